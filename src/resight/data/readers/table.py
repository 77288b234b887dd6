"""The user's own pictures: a table (CSV or Parquet), or a folder per identity."""

from pathlib import Path
from random import Random
from typing import Any

from resight.data.readers.folders import PICTURES, contents
from resight.data.sightings import LABELS, MODALITIES, Sighting, SightingTable, Split, read_arrow
from resight.errors import DatasetError

_COLUMNS = ("path", "modality", *MODALITIES, *LABELS, "time", "split")
_PARTS = ("train", "query", "gallery")


def read(root: Path, seed: int = 0, test_share: float = 0.3) -> Split:
    """Reads a table file, or a folder that holds one folder per identity.

    A table may have any of the columns path, modality, rgb, nir, tir, identity, camera, view, time, scene, clothes,
    tracklet and split (train, query, gallery, or test for a picture that is both asked and searched). Paths are
    relative to the table. Where there is no split, `test_share` of the identities, drawn with `seed`, become the
    test set, and each of their pictures is asked against all the others.

    Raises:
        DatasetError: there is nothing such at `root`, or a column or value is not known.
    """
    if not root.exists():
        raise DatasetError(f"there is no table or folder at {root}")
    if root.is_dir():
        return _divide(root.name, _read_folders(root), None, seed, test_share)
    if root.suffix not in (".csv", ".parquet"):
        raise DatasetError(
            f"{root} is neither a table (.csv, .parquet) nor a folder that holds a folder of pictures for each identity"
        )
    sightings, parts = read_rows(root)
    return _divide(root.stem, sightings, parts, seed, test_share)


def _read_folders(root: Path) -> list[Sighting]:
    found = [
        Sighting({"rgb": path}, identity=folder.name)
        for folder in sorted(entry for entry in root.iterdir() if entry.is_dir())
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in PICTURES
    ]
    if not found:
        raise DatasetError(
            f"{root} holds no folder of pictures ({', '.join(PICTURES)}) for each identity; found {contents(root)}"
        )
    return found


def read_rows(path: Path) -> tuple[list[Sighting], list[str] | None]:
    """The sightings of a table, and the part of the split of each, where it says.

    Raises:
        DatasetError: a column or value is not known.
    """
    table = read_arrow(path)
    strange = [name for name in table.column_names if name not in _COLUMNS]
    if strange:
        raise DatasetError(f"{path} has the column {strange[0]!r}; known are: {', '.join(_COLUMNS)}")
    if not {"path", *MODALITIES} & set(table.column_names):
        raise DatasetError(f"{path} has no column of pictures: path (with modality), or rgb, nir, tir")
    rows = table.to_pylist()
    if not rows:
        raise DatasetError(f"{path} has no row")
    sightings = [_row(path, number, row) for number, row in enumerate(rows, start=2)]
    return sightings, [str(row["split"]) for row in rows] if "split" in table.column_names else None


def _row(table: Path, number: int, row: dict[str, Any]) -> Sighting:
    modality = row.get("modality") or "rgb"
    if modality not in MODALITIES:
        raise DatasetError(f"{table} row {number}: modality {modality!r} is not one of {', '.join(MODALITIES)}")
    named = {modality: row.get("path")} | {m: row[m] for m in MODALITIES if row.get(m)}
    images = {m: table.parent / str(name) for m, name in named.items() if name}
    if not images:
        raise DatasetError(f"{table} row {number} names no picture")
    labels = {name: None if row.get(name) is None else str(row[name]) for name in LABELS}
    return Sighting(images, time=row.get("time"), **labels)


def _divide(name: str, sightings: list[Sighting], parts: list[str] | None, seed: int, test_share: float) -> Split:
    if parts is not None:
        strange = set(parts) - {*_PARTS, "test"}
        if strange:
            raise DatasetError(f"split {sorted(strange)[0]!r} is not one of {', '.join(_PARTS)}, test")
        pairs = list(zip(sightings, parts, strict=True))
        train, query, gallery = (
            SightingTable.of(s for s, part in pairs if part == wanted or (part == "test" and wanted != "train"))
            for wanted in _PARTS
        )
        return Split(name, train, query, gallery)
    identities = sorted({s.identity for s in sightings if s.identity is not None})
    if len(identities) < 2:
        raise DatasetError(
            f"{name} names {len(identities)} identities; at least 2 are needed to split it into train and test"
        )
    held = set(Random(seed).sample(identities, max(1, round(test_share * len(identities)))))
    test = SightingTable.of(s for s in sightings if s.identity in held)
    train = SightingTable.of(s for s in sightings if s.identity is not None and s.identity not in held)
    note = f"split by identity with seed {seed}: {len(identities) - len(held)} to learn from, {len(held)} to test on"
    return Split(name, train, test, test, (note,))
