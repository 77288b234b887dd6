"""SYSU-MM01 and RegDB: search colour images with infrared or thermal queries, and the reverse."""

import re
from functools import partial
from pathlib import Path

from resight.data.readers.folders import is_image, read_lines, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

_SYSU_CAMERAS = ("1", "2", "3", "4", "5", "6")
_INFRARED = ("3", "6")
_SAME_SCENE = ("2", "3")  # show the same room: a query of camera 3 excludes images of camera 2


def read_sysu(root: Path) -> Split:
    """Read SYSU-MM01. The training set has the train and val identities; query and gallery are both all test images, of
    which the protocol selects.

    Raises:
        DatasetError: `root` does not have the layout of SYSU-MM01.
    """
    *cameras, lists = require(root, (*(f"cam{c}" for c in _SYSU_CAMERAS), "exp"), "SYSU-MM01")
    folders = dict(zip(_SYSU_CAMERAS, cameras, strict=True))
    train, test = (
        SightingTable.of(
            Sighting(
                {"nir" if camera in _INFRARED else "rgb": path},
                identity=identity,
                camera=camera,
                scene="2 and 3" if camera in _SAME_SCENE else camera,
            )
            for identity in sorted(set().union(*(_sysu_identities(lists / f"{name}_id.txt") for name in names)))
            for camera, folder in folders.items()
            for path in _image_files(folder / identity)
        )
        for names in (("train", "val"), ("test",))
    )
    note = "all-search, single-shot; --protocol sysu-indoor for indoor search"
    return Split("SYSU-MM01", train, test, test, (note,))


def read_regdb(root: Path, trial: int = 1) -> Split:
    """Read one of the ten splits of RegDB. Query and gallery are both all test images, of which the protocol selects.

    The numbers of training and test identities both start at 0, so they get the prefixes `train-` and `test-`.

    Args:
        root: the folder with `idx`, `Visible` and `Thermal`.
        trial: number of the split, 1 to 10.

    Raises:
        DatasetError: `root` does not have the layout of RegDB.
    """
    (lists,) = require(root, ("idx",), "RegDB")
    train, test = (
        SightingTable.of(
            sighting
            for modality, name in (("rgb", "visible"), ("tir", "thermal"))
            for sighting in _regdb_list(lists / f"{part}_{name}_{trial}.txt", root, modality, part)
        )
        for part in ("train", "test")
    )
    note = (
        "colour queries, thermal gallery; --protocol regdb-thermal-visible for the reverse; papers report the mean of "
        "ten splits"
    )
    return Split(f"RegDB (split {trial})", train, test, test, (note,))


READERS = {
    "sysu-mm01": read_sysu,
    "regdb": read_regdb,
    **{f"regdb-{trial}": partial(read_regdb, trial=trial) for trial in range(2, 11)},
}


def _sysu_identities(path: Path) -> set[str]:
    numbers = ",".join(read_lines(path, "SYSU-MM01")).split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}", n.strip()) for n in numbers):
        raise DatasetError(f"{path} is not a line of identities that are separated by commas")
    return {f"{int(n):04d}" for n in numbers}


def _image_files(folder: Path) -> list[Path]:
    """The image files of a folder, sorted; none if the folder does not exist."""
    return sorted(p for p in folder.iterdir() if is_image(p)) if folder.is_dir() else []


def _regdb_list(path: Path, root: Path, modality: str, part: str) -> list[Sighting]:
    rows = [line.split() for line in read_lines(path, "RegDB")]
    if any(len(row) != 2 for row in rows):
        raise DatasetError(f"{path} is not a list of lines `picture identity`")
    return [Sighting({modality: root / name}, identity=f"{part}-{identity}") for name, identity in rows]
