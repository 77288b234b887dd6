"""Vehicles: VeRi-776 and VehicleID."""

import re
from functools import partial
from pathlib import Path

from resight.data.readers.folders import matching, read_lines, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

_VERI = re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)")


def read_veri(root: Path) -> Split:
    """Read VeRi-776. Views (0 to 7) are read from `keypoint_{train,test}.txt`; other images have an unknown view.

    Raises:
        DatasetError: `root` does not have the layout of VeRi-776.
    """
    folders = require(root, ("image_train", "image_query", "image_test"), "VeRi-776")
    views = _read_views(root / "keypoint_train.txt") | _read_views(root / "keypoint_test.txt")
    train, query, gallery = (
        SightingTable.of(
            Sighting({"rgb": path}, match["identity"], match["camera"], views.get(path.name))
            for path, match in matching(folder, _VERI, "VeRi-776")
        )
        for folder in folders
    )
    notes = () if views else ("no keypoint_train.txt or keypoint_test.txt: every view is unknown",)
    return Split("VeRi-776", train, query, gallery, notes)


def read_vehicleid(root: Path, size: int = 800) -> Split:
    """Read VehicleID. Query and gallery are both all test images, of which the protocol draws the gallery.

    Args:
        root: the folder with `image` and `train_test_split`.
        size: number of test identities: 800, 1600 or 2400.

    Raises:
        DatasetError: `root` does not have the layout of VehicleID.
    """
    images, lists = require(root, ("image", "train_test_split"), "VehicleID")
    test = SightingTable.of(_read_list(lists / f"test_list_{size}.txt", images))
    train = SightingTable.of(_read_list(lists / "train_list.txt", images))
    return Split(f"VehicleID ({size})", train, test, test)


READERS = {
    "veri776": read_veri,
    "vehicleid": read_vehicleid,
    "vehicleid-1600": partial(read_vehicleid, size=1600),
    "vehicleid-2400": partial(read_vehicleid, size=2400),
}


def _read_views(path: Path) -> dict[str, str]:
    """The last field of each line by the base name of its first, which may be a Windows path."""
    if not path.is_file():
        return {}
    fields = [line.split() for line in read_lines(path, "VeRi-776")]
    if any(len(row) < 2 for row in fields):
        raise DatasetError(f"{path} is not a list of lines `image ... view`")
    return {re.split(r"[/\\]", first)[-1]: last for first, *_, last in fields}


def _read_list(path: Path, images: Path) -> list[Sighting]:
    rows = [line.split() for line in read_lines(path, "VehicleID")]
    if any(len(row) != 2 for row in rows):
        raise DatasetError(f"{path} is not a list of lines `image vehicle`")
    return [Sighting({"rgb": images / f"{image}.jpg"}, identity=vehicle) for image, vehicle in rows]
