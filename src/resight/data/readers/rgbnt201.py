"""RGBNT201: persons in three registered modalities, a folder each, the same file names in all three."""

import re
from pathlib import Path

from resight.data.readers.folders import contents, matching, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

MODALITY_FOLDERS = {"rgb": "RGB", "nir": "NI", "tir": "TI"}
_NAME = re.compile(r"(?P<identity>\d{6})_cam(?P<camera>\d)")


def read(root: Path) -> Split:
    """Reads `train_171` and `test`; query and gallery are both the whole of `test`, as the set's protocol has it.

    Raises:
        DatasetError: the layout is another one, or a picture lacks its counterpart in another modality.
    """
    train, test = require(root, ("train_171", "test"), "RGBNT201")
    tested = _read_part(test)
    return Split("RGBNT201", _read_part(train), tested, tested)


def _read_part(folder: Path) -> SightingTable:
    folders = dict(zip(MODALITY_FOLDERS, require(folder, tuple(MODALITY_FOLDERS.values()), "RGBNT201"), strict=True))
    found = {m: matching(folder, (".jpg", ".png"), _NAME, "RGBNT201") for m, folder in folders.items()}
    names = {m: {path.name for path, _ in files} for m, files in found.items()}
    for modality, own in names.items():
        unpaired = sorted(set().union(*names.values()) - own)
        if unpaired:
            raise DatasetError(
                f"{folders[modality]} lacks {unpaired[0]} ({len(unpaired)} such), which another modality has; "
                f"it holds {contents(folders[modality], 3)}"
            )
    return SightingTable.of(
        Sighting(
            {modality: folders[modality] / path.name for modality in folders},
            identity=match["identity"],
            camera=match["camera"],
        )
        for path, match in found["rgb"]
    )
