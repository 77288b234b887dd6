"""VeRi-776 and VehicleID."""

import re
from pathlib import Path
from random import Random

from resight.datasets.folders import contents, matching, require
from resight.errors import DatasetError
from resight.sightings import Sighting, SightingTable, Split

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


def read_vehicleid(root: Path, size: int = 800, trial: int = 0) -> Split:
    """VehicleID: one picture of each test identity, drawn at random, is the gallery; the others are queries.

    Args:
        root: the folder that holds `image` and `train_test_split`.
        size: 800, 1600 or 2400 test identities.
        trial: decides the draw.

    Raises:
        DatasetError: the layout is another one.
    """
    images, lists = require(root, ("image", "train_test_split"), "VehicleID")
    tested = _read_list(lists / f"test_list_{size}.txt", images)
    by_identity: dict[str, list[Sighting]] = {}
    for sighting in tested:
        by_identity.setdefault(str(sighting.identity), []).append(sighting)
    rng = Random(trial)
    chosen = {id(rng.choice(by_identity[identity])) for identity in sorted(by_identity)}
    query = SightingTable.of(s for s in tested if id(s) not in chosen)
    gallery = SightingTable.of(s for s in tested if id(s) in chosen)
    note = (
        f"{size} test identities, gallery of one picture each drawn with seed {trial}; no camera is named: --junk none"
    )
    return Split("VehicleID", SightingTable.of(_read_list(lists / "train_list.txt", images)), query, gallery, (note,))


READERS = {"veri776": read_veri, "vehicleid": read_vehicleid}


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
