"""LTCC, PRCC and VC-Clothes: persons who change their clothes."""

import re
from pathlib import Path

from resight.data.readers.folders import is_image, matching, require
from resight.data.sightings import Sighting, SightingTable, Split

_LTCC = re.compile(r"(?P<identity>\d+)_(?P<clothes>\d+)_c(?P<camera>\d+)")
_VC = re.compile(r"(?P<identity>\d+)-(?P<camera>\d+)-(?P<clothes>\d+)-")
_PRCC_CLOTHES = {"A": "1", "B": "1", "C": "2"}


def read_ltcc(root: Path) -> Split:
    """Read LTCC.

    Raises:
        DatasetError: `root` does not have the layout of LTCC.
    """
    train, query, gallery = (_named(f, _LTCC, "LTCC") for f in require(root, ("train", "query", "test"), "LTCC"))
    note = "standard protocol; --protocol clothes-changed or clothes-same for the others"
    return Split("LTCC", train, query, gallery, (note,))


def read_vc_clothes(root: Path) -> Split:
    """Read VC-Clothes.

    Raises:
        DatasetError: `root` does not have the layout of VC-Clothes.
    """
    folders = require(root, ("train", "query", "gallery"), "VC-Clothes")
    train, query, gallery = (_named(folder, _VC, "VC-Clothes") for folder in folders)
    note = "all cameras; --protocol vc-clothes-changed (cameras 3 and 4) or vc-clothes-same (2 and 3) for the others"
    return Split("VC-Clothes", train, query, gallery, (note,))


def read_prcc(root: Path) -> Split:
    """Read the colour images of PRCC. The training set is `train`; `val` has other images of the same persons.

    Raises:
        DatasetError: `root` does not have the layout of PRCC.
    """
    if (root / "rgb").is_dir():
        root = root / "rgb"
    train, test = require(root, ("train", "test"), "PRCC")
    cameras = require(test, tuple(_PRCC_CLOTHES), "PRCC")
    train_table = SightingTable.of(
        Sighting({"rgb": path}, folder.name, path.name[0], clothes=_PRCC_CLOTHES.get(path.name[0]))
        for folder in sorted(entry for entry in train.iterdir() if entry.is_dir())
        for path in sorted(folder.iterdir())
        if is_image(path)
    )
    test_table = SightingTable.of(
        Sighting({"rgb": path}, path.parent.name, camera.name, clothes=_PRCC_CLOTHES[camera.name])
        for camera in cameras
        for path in sorted(camera.glob("*/*"))
        if is_image(path)
    )
    note = "changed clothes, single shot; --protocol prcc-same or prcc-changed-whole for the others"
    return Split("PRCC", train_table, test_table, test_table, (note,), "prcc-changed")


READERS = {"ltcc": read_ltcc, "prcc": read_prcc, "vc-clothes": read_vc_clothes}


def _named(folder: Path, pattern: re.Pattern[str], layout: str) -> SightingTable:
    return SightingTable.of(
        Sighting({"rgb": path}, match["identity"], match["camera"], clothes=match["clothes"])
        for path, match in matching(folder, pattern, layout)
    )
