"""VeRi-776 and VehicleID."""

import re
from functools import partial
from pathlib import Path

from resight.data.readers.folders import contents, matching, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

_VERI = re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)")


def read_veri(root: Path) -> Split:
    """VeRi-776. Views (0 to 7) come from `keypoint_{train,test}.txt`; a picture without one has an unknown view.

    Raises:
        DatasetError: the layout is another one.
    """
    train, query, test = require(root, ("image_train", "image_query", "image_test"), "VeRi-776")
    views = _read_views(root / "keypoint_train.txt") | _read_views(root / "keypoint_test.txt")
    learned, asked, searched = (
        SightingTable.of(
            Sighting({"rgb": path}, match["identity"], match["camera"], views.get(path.name))
            for path, match in matching(folder, (".jpg",), _VERI, "VeRi-776")
        )
        for folder in (train, query, test)
    )
    notes = () if views else ("no keypoint_train.txt or keypoint_test.txt: every view is unknown",)
    return Split("VeRi-776", learned, asked, searched, notes)


def read_vehicleid(root: Path, size: int = 800) -> Split:
    """VehicleID. Its protocol draws the gallery, one picture of each test identity; so all test pictures are in both.

    Args:
        root: the folder that holds `image` and `train_test_split`.
        size: 800, 1600 or 2400 test identities.

    Raises:
        DatasetError: the layout is another one.
    """
    images, lists = require(root, ("image", "train_test_split"), "VehicleID")
    tested = SightingTable.of(_read_list(lists / f"test_list_{size}.txt", images))
    learned = SightingTable.of(_read_list(lists / "train_list.txt", images))
    return Split(f"VehicleID ({size})", learned, tested, tested)


READERS = {
    "veri776": read_veri,
    "vehicleid": read_vehicleid,
    "vehicleid-1600": partial(read_vehicleid, size=1600),
    "vehicleid-2400": partial(read_vehicleid, size=2400),
}


def _read_views(path: Path) -> dict[str, str]:
    """The last field of each line by the base name of its first, which may have been written on Windows."""
    if not path.is_file():
        return {}
    fields = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return {re.split(r"[/\\]", first)[-1]: last for first, *_, last in fields}


def _read_list(path: Path, images: Path) -> list[Sighting]:
    if not path.is_file():
        raise DatasetError(f"VehicleID lacks its list {path}; found {contents(path.parent)}")
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise DatasetError(f"{path} is not a list of lines `image vehicle`")
    return [Sighting({"rgb": images / f"{image}.jpg"}, identity=vehicle) for image, vehicle in rows]
