"""MSVR310: vehicles in three registered modalities; a folder for each identity, with a folder for each modality."""

import re
from pathlib import Path

from resight.data.readers.folders import matching, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

_FOLDERS = {"rgb": "vis", "nir": "ni", "tir": "th"}
_NAME = re.compile(r"(?P<identity>\d{4})_s(?P<scene>\d{3})_v(?P<view>\d)")


def read(root: Path) -> Split:
    """Read the three parts of MSVR310. Junk is the same vehicle in the same scene, not under the same camera.

    Raises:
        DatasetError: `root` does not have the layout of MSVR310, or an image is missing in one of the modalities.
    """
    folders = require(root, ("bounding_box_train", "query3", "bounding_box_test"), "MSVR310")
    train, query, gallery = (_part(folder) for folder in folders)
    return Split("MSVR310", train, query, gallery)


def _part(folder: Path) -> SightingTable:
    sightings = list[Sighting]()
    for vehicle in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        folders = dict(zip(_FOLDERS, require(vehicle, tuple(_FOLDERS.values()), "MSVR310"), strict=True))
        names = {m: {path.name for path in f.iterdir()} for m, f in folders.items()}
        for path, match in matching(folders["rgb"], (".jpg", ".png"), _NAME, "MSVR310"):
            lacking = [folders[m] for m, modality_names in names.items() if path.name not in modality_names]
            if lacking:
                raise DatasetError(f"{lacking[0]} lacks {path.name}, which another modality has")
            images = {m: f / path.name for m, f in folders.items()}
            sightings.append(Sighting(images, match["identity"], view=match["view"], scene=match["scene"]))
    return SightingTable.of(sightings)
