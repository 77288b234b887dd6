"""MSVR310: vehicles in three registered modalities; a folder for each identity, with a folder for each modality."""

import re
from pathlib import Path

from resight.data.readers.folders import match_name, require
from resight.data.readers.paired import pair_named
from resight.data.sightings import Sighting, SightingTable, Split

MODALITY_FOLDERS = {"rgb": "vis", "nir": "ni", "tir": "th"}
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
        folders = dict(
            zip(MODALITY_FOLDERS, require(vehicle, tuple(MODALITY_FOLDERS.values()), "MSVR310"), strict=True)
        )
        for name, images in pair_named(folders, "MSVR310"):
            match = match_name(vehicle / name, _NAME, "MSVR310")
            sightings.append(Sighting(images, match["identity"], view=match["view"], scene=match["scene"]))
    return SightingTable.of(sightings)
