"""WMVeID863: vehicles in three registered modalities; a folder for each identity, with a folder for each modality."""

import re
from pathlib import Path

from resight.data.readers.folders import match_name, require
from resight.data.readers.msvr310 import MODALITY_FOLDERS
from resight.data.readers.paired import pair_named
from resight.data.sightings import Sighting, SightingTable, Split

_PARENT = "WMVEID863"  # the folder in the archive; `root` may be this folder or its parent
_NAME = re.compile(r"(?=.*?v(?P<camera>\d))(?:.*?n(?P<scene>\d))?", re.ASCII)


def read(root: Path) -> Split:
    """Read the three parts of WMVeID863. In a file name, `v` and a digit state the camera, `n` and a digit the scene.

    Raises:
        DatasetError: `root` does not have the layout of WMVeID863, or an image is missing in one of the modalities.
    """
    if not (root / "train").is_dir() and (root / _PARENT / "train").is_dir():
        root = root / _PARENT
    train, query, gallery = (_part(folder) for folder in require(root, ("train", "query", "test"), "WMVeID863"))
    return Split("WMVeID863", train, query, gallery)


def _part(folder: Path) -> SightingTable:
    sightings = list[Sighting]()
    for vehicle in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        names = tuple(MODALITY_FOLDERS.values())
        folders = dict(zip(MODALITY_FOLDERS, require(vehicle, names, "WMVeID863"), strict=True))
        for name, images in pair_named(folders, "WMVeID863"):
            match = match_name(vehicle / name, _NAME, "WMVeID863")
            sightings.append(Sighting(images, vehicle.name, match["camera"], scene=match["scene"]))
    return SightingTable.of(sightings)
