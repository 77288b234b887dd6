"""Counts and checks of a data set, before anything is trained on it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resight.config.scaling import Scaling, require_modalities
from resight.data.catalog import read_dataset
from resight.data.image import corrupt
from resight.data.picture_notes import PictureNotes
from resight.data.scaling import rules_of_files
from resight.data.sightings import MODALITIES, SightingTable, Split
from resight.files import make_folder


@dataclass(frozen=True)
class PartCounts:
    """Counts of one part of a data set."""

    part: str
    sightings: int
    images: int
    identities: int
    cameras: int
    views: int
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """A data set with counts of its parts."""

    name: str
    split: Split
    parts: list[PartCounts]
    notes: tuple[str, ...]
    corrupt: list[str] | None
    """The reason for each image that cannot be decoded; None if the images were not checked."""


def inspect_dataset(
    name: str,
    root: str | Path,
    check: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    scaling: Scaling | None = None,
) -> Inspection:
    """Read a data set, and count its sightings, images and labels.

    Args:
        name: of a data set of the catalog.
        root: its folder or table.
        check: decode every image.
        progress: called with the number of images decoded so far.
        scaling: by modality, how one channel of more than 8 bits becomes 8; None refuses such images.

    Raises:
        ConfigError: there is no data set of that name, or no modality of a rule.
        DatasetError: `root` does not have the layout of the data set.
    """
    require_modalities(scaling or {}, MODALITIES)
    split = read_dataset(name, root)
    tables = {"train": split.train, "query": split.query, "gallery": split.gallery}
    reasons, picture_notes = None, PictureNotes()
    if check:
        files = sorted({path for table in tables.values() for path in table.paths})
        rules = rules_of_files(tables.values(), scaling or {})
        reasons = [reason for _, reason in corrupt(files, progress, rules, picture_notes)]
    counts, notes = [_counts(part, table) for part, table in tables.items()], (*split.notes, *picture_notes.lines())
    return Inspection(split.name, split, counts, notes, reasons)


def write_tables(split: Split, folder: Path) -> None:
    """Write the three parts of a data set as Parquet tables of sightings.

    Raises:
        StorageError: the folder cannot be written.
    """
    make_folder(folder)
    for name, table in (("train", split.train), ("query", split.query), ("gallery", split.gallery)):
        table.write(folder / f"{name}.parquet")


def _counts(part: str, table: SightingTable) -> PartCounts:
    identities, cameras, views = (len(table.values(name)) for name in ("identity", "camera", "view"))
    return PartCounts(part, len(table), len(table.paths), identities, cameras, views, table.modalities)
