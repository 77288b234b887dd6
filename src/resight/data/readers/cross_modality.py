"""SYSU-MM01 and RegDB: colour pictures to be found by infrared or thermal ones, and the other way round."""

from functools import partial
from pathlib import Path

from resight.data.readers.folders import PICTURES, contents, require
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

_SYSU_CAMERAS = ("1", "2", "3", "4", "5", "6")
_INFRARED = ("3", "6")
_ONE_PLACE = ("2", "3")  # look at the same room, so that a query of camera 3 leaves camera 2 out


def read_sysu(root: Path) -> Split:
    """SYSU-MM01. Learns from train and val identities. Its protocol says who of the test pictures asks and is drawn.

    Raises:
        DatasetError: the layout is another one.
    """
    *cameras, lists = require(root, (*(f"cam{c}" for c in _SYSU_CAMERAS), "exp"), "SYSU-MM01")
    folders = dict(zip(_SYSU_CAMERAS, cameras, strict=True))
    learned, tested = (
        SightingTable.of(
            Sighting(
                {"nir" if camera in _INFRARED else "rgb": path},
                identity=identity,
                camera=camera,
                scene="2 and 3" if camera in _ONE_PLACE else camera,
            )
            for identity in sorted(set().union(*(_sysu_identities(lists / f"{name}_id.txt") for name in names)))
            for camera, folder in folders.items()
            for path in _pictures(folder / identity)
        )
        for names in (("train", "val"), ("test",))
    )
    note = "all-search, single-shot; --protocol sysu-indoor for indoor search"
    return Split("SYSU-MM01", learned, tested, tested, (note,))


def read_regdb(root: Path, trial: int = 1) -> Split:
    """RegDB, one of its ten splits. Its protocol says which modality asks.

    Args:
        root: the folder that holds `idx`, `Visible` and `Thermal`.
        trial: 1 to 10.

    Raises:
        DatasetError: the layout is another one.
    """
    (lists,) = require(root, ("idx",), "RegDB")
    learned, tested = (
        SightingTable.of(
            sighting
            for modality, name in (("rgb", "visible"), ("tir", "thermal"))
            for sighting in _regdb_list(lists / f"{part}_{name}_{trial}.txt", root, modality)
        )
        for part in ("train", "test")
    )
    note = (
        "colour asks of thermal; --protocol regdb-thermal-visible for the other way; papers give the mean of ten splits"
    )
    return Split(f"RegDB (split {trial})", learned, tested, tested, (note,))


READERS = {
    "sysu-mm01": read_sysu,
    "regdb": read_regdb,
    **{f"regdb-{trial}": partial(read_regdb, trial=trial) for trial in range(2, 11)},
}


def _sysu_identities(path: Path) -> set[str]:
    if not path.is_file():
        raise DatasetError(f"SYSU-MM01 lacks its list {path}; found {contents(path.parent)}")
    numbers = path.read_text().strip().split(",")
    if not all(n.strip().isdigit() for n in numbers):
        raise DatasetError(f"{path} is not a line of identities with commas between them")
    return {f"{int(n):04d}" for n in numbers}


def _pictures(folder: Path) -> list[Path]:
    """Sorted; none where the identity was not seen by that camera."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES) if folder.is_dir() else []


def _regdb_list(path: Path, root: Path, modality: str) -> list[Sighting]:
    if not path.is_file():
        raise DatasetError(f"RegDB lacks its list {path}; found {contents(path.parent)}")
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) != 2 for row in rows):
        raise DatasetError(f"{path} is not a list of lines `picture identity`")
    return [Sighting({modality: root / name}, identity=identity) for name, identity in rows]
