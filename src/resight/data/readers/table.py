"""Custom images: a table (CSV or Parquet), or a folder for each identity."""

from pathlib import Path
from random import Random
from typing import Any

from resight.config.folder import FolderOptions
from resight.data.findings import Finding
from resight.data.modalities import LABELS, MODALITIES, modality_of, name_fault
from resight.data.readers.arrow import plain_rows, read_arrow
from resight.data.readers.folders import UNREAD
from resight.data.readers.labelled import LabelledFolder, read_folder
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import ConfigError, DatasetError

_COLUMNS = ("path", "modality", *MODALITIES, *LABELS, "time", "split")
_PARTS = ("train", "query", "gallery")


def read(root: Path, seed: int = 0, test_fraction: float = 0.3, folder: FolderOptions | None = None) -> Split:
    """Read a table, or a folder with one folder for each identity.

    A table may have any of the columns path, modality, rgb, nir, tir, image:NAME (of a modality with any other name),
    identity, camera, view, time, scene, clothes, tracklet and split (train, query, gallery, or test for an image that
    is both query and gallery). Paths are relative to the table. Without the column split, a fraction of the identities
    becomes the test set, in which each image is searched among the others.

    Args:
        root: the table or folder.
        seed: of the draw of test identities.
        test_fraction: of the identities.
        folder: camera, pattern of file names, and modalities of a folder; None for the defaults.

    Raises:
        ConfigError: the fraction is not between 0 and 1, or the options are for a folder and `root` is a table.
        DatasetError: `root` is neither a table nor such a folder, or has an unknown column or value; or the options do
            not fit its files.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"the fraction of test identities must be between 0 and 1, not {test_fraction}")
    if not root.exists():
        raise DatasetError(f"there is no table or folder at {root}")
    options = folder or FolderOptions()
    if root.is_dir():
        content = read_folder(root, options, "first folder")
        return _divide(root.name, content.sightings, content.parts, seed, test_fraction, _unread_note(content))
    if not is_table(root):
        raise DatasetError(
            f"{root} is neither a table (.csv, .parquet) nor a folder with a folder of images for each identity"
        )
    refuse_for_table(root, options)
    sightings, parts = read_rows(root)
    return _divide(root.stem, sightings, parts, seed, test_fraction)


def is_table(path: Path) -> bool:
    """Return whether the suffix of a file is that of a table."""
    return path.suffix in (".csv", ".parquet")


def refuse_for_table(path: Path, options: FolderOptions) -> None:
    """Make sure that no option of folders is set, for a table.

    Raises:
        ConfigError: one is set.
    """
    if options.changed_options:
        raise ConfigError(
            f"{options.changed_options[0]} is for folders of images, and {path} is a table: state it in its columns"
        )


def _unread_note(content: LabelledFolder) -> tuple[str, ...]:
    return tuple(finding.text for finding in Finding.of("unread-picture", content.unread, *UNREAD))


def read_rows(path: Path) -> tuple[list[Sighting], list[str] | None]:
    """Read the sightings of a table, and the column split, None if there is none.

    Raises:
        DatasetError: the table has an unknown column, a column twice, or a value that is not of its column's kind.
    """
    table = read_arrow(path)
    unknown = [name for name in table.column_names if name not in _COLUMNS and modality_of(name) is None]
    if unknown:
        raise DatasetError(f"{path} has the column {unknown[0]!r:.60}; known are: {', '.join(_COLUMNS)}, image:NAME")
    if not any(name == "path" or modality_of(name) for name in table.column_names):
        raise DatasetError(f"{path} has no column of pictures: path (with modality), or rgb, nir, tir, image:NAME")
    rows = plain_rows(table, path)
    if not rows:
        raise DatasetError(f"{path} has no row")
    sightings = [_row(path, number, row) for number, row in enumerate(rows, start=2)]
    return sightings, [str(row["split"]) for row in rows] if "split" in table.column_names else None


def _row(table: Path, number: int, row: dict[str, Any]) -> Sighting:
    modality = row.get("modality") or "rgb"
    if fault := name_fault(modality):
        raise DatasetError(f"{table} row {number}: {fault}")
    columns = {column: name for column in row if (name := modality_of(column)) is not None}
    named = {modality: row.get("path")} | {name: row[column] for column, name in columns.items() if row[column]}
    images = {m: table.parent / name for m, name in named.items() if name}
    if not images:
        raise DatasetError(f"{table} row {number} names no picture")
    return Sighting(images, time=row.get("time"), **{name: row.get(name) for name in LABELS})


def _divide(
    name: str, sightings: list[Sighting], parts: list[str] | None, seed: int, test_fraction: float,
    notes: tuple[str, ...] = (),
) -> Split:  # fmt: skip
    if parts is not None:
        unknown = set(parts) - {*_PARTS, "test"}
        if unknown:
            raise DatasetError(f"split {sorted(unknown)[0]!r:.60} is not one of {', '.join(_PARTS)}, test")
        pairs = list(zip(sightings, parts, strict=True))
        train, query, gallery = (
            SightingTable.of(
                s for s, part in pairs if part == name_of_part or (part == "test" and name_of_part != "train")
            )
            for name_of_part in _PARTS
        )
        return Split(name, train, query, gallery, notes)
    identities = sorted({s.identity for s in sightings if s.identity is not None})
    if len(identities) < 2:
        raise DatasetError(
            f"{name} names {len(identities)} identities; at least 2 are needed to split it into train and test"
        )
    test_count = min(max(1, round(test_fraction * len(identities))), len(identities) - 1)
    test_identities = set(Random(seed).sample(identities, test_count))
    test = SightingTable.of(s for s in sightings if s.identity in test_identities)
    train = SightingTable.of(s for s in sightings if s.identity is not None and s.identity not in test_identities)
    train_count = len(identities) - len(test_identities)
    note = f"split by identity with seed {seed}: {train_count} for training, {len(test_identities)} for testing"
    return Split(name, train, test, test, (note, *notes))
