"""RGBNT201: persons in three registered modalities; a folder for each modality, with the same file names."""

import re
from pathlib import Path

from resight.data.readers.folders import contents, matching, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

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
    files_of = {m: matching(folder, (".jpg", ".png"), _NAME, "RGBNT201") for m, folder in folders.items()}
    names = {m: {path.name for path, _ in files} for m, files in files_of.items()}
    for modality, modality_names in names.items():
        unpaired = sorted(set().union(*names.values()) - modality_names)
        if unpaired:
            raise DatasetError(
                f"{folders[modality]} lacks {unpaired[0]} ({len(unpaired)} such), which another modality has; "
                f"it contains {contents(folders[modality], 3)}"
            )
    return SightingTable.of(
        Sighting(
            {modality: folders[modality] / path.name for modality in folders},
            identity=match["identity"],
            camera=match["camera"],
        )
        for path, match in files_of["rgb"]
    )
