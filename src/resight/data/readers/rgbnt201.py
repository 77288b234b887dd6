"""RGBNT201: persons in three registered modalities; a folder for each modality, with the same file names."""

import re
from pathlib import Path

from resight.data.readers.folders import match_name, require
from resight.data.readers.paired import pair_named
from resight.data.sightings import Sighting, SightingTable, Split

MODALITY_FOLDERS = {"rgb": "RGB", "nir": "NI", "tir": "TI"}
_NAME = re.compile(r"(?P<identity>\d{6})_cam(?P<camera>\d)")


def read(root: Path) -> Split:
    """Read `train_171` and `test`; query and gallery are both all of `test`, as the protocol requires.

    Raises:
        DatasetError: `root` does not have the layout of RGBNT201, or an image is missing in one of the modalities.
    """
    train, test = require(root, ("train_171", "test"), "RGBNT201")
    tested = _read_part(test)
    return Split("RGBNT201", _read_part(train), tested, tested)


def _read_part(folder: Path) -> SightingTable:
    folders = dict(zip(MODALITY_FOLDERS, require(folder, tuple(MODALITY_FOLDERS.values()), "RGBNT201"), strict=True))
    sightings = list[Sighting]()
    for name, images in pair_named(folders, "RGBNT201"):
        match = match_name(folder / name, _NAME, "RGBNT201")
        sightings.append(Sighting(images, identity=match["identity"], camera=match["camera"]))
    return SightingTable.of(sightings)
