"""Counts and checks of a data set, before anything is trained on it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resight.config.folder import FolderOptions
from resight.config.scaling import Scaling, require_modalities
from resight.data.catalog import read_dataset
from resight.data.content import find_content_faults, read_contents
from resight.data.findings import ALLOW_OVERLAP, Finding, file_uses, find_faults
from resight.data.modalities import MODALITIES, ordered
from resight.data.picture_notes import PictureNotes
from resight.data.readers.folders import UNREAD, is_image, picture_like
from resight.data.scaling import rules_of_files
from resight.data.sightings import SightingTable, Split
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
    """A data set with counts of its parts, and what is suspicious in it."""

    name: str
    split: Split
    parts: list[PartCounts]
    notes: tuple[str, ...]
    corrupt: list[str] | None
    """The reason for each image that cannot be decoded; None if the images were not checked."""
    findings: tuple[Finding, ...] = ()
    """Errors first."""

    def errors(self, allow_overlap: bool = False) -> list[Finding]:
        """Return the findings because of which the data set cannot be used as it is.

        Args:
            allow_overlap: whether identities and files may be both in the training set and in the test set.
        """
        return [f for f in self.findings if f.is_error and not (allow_overlap and f.is_overlap)]

    def error(self, allow_overlap: bool = False) -> str:
        """Return why the data set cannot be used as it is, in one sentence; empty if nothing was found.

        Args:
            allow_overlap: as in `errors`.
        """
        errors = self.errors(allow_overlap)
        texts = [finding.text for finding in errors]
        if self.corrupt:
            texts.append(f"{len(self.corrupt)} of the images are corrupt, such as {self.corrupt[0]}")
        if any(finding.is_overlap for finding in errors):
            texts.append(ALLOW_OVERLAP)
        return "; ".join(texts)


def inspect_dataset(
    name: str,
    root: str | Path,
    check: bool = False,
    progress: Callable[[int], None] = lambda count: None,
    folder: FolderOptions | None = None,
    scaling: Scaling | None = None,
) -> Inspection:
    """Read a data set, count its sightings, images and labels, and list what is suspicious.

    Args:
        name: of a data set of the catalog.
        root: its folder or table.
        check: decode every image, and compare the bytes of files and the sizes of registered images.
        progress: called with the number of images decoded so far.
        folder: camera, pattern of file names, and modalities of the folder of `own`; None for the defaults.
        scaling: by modality, how one channel of more than 8 bits becomes 8; None refuses such images.

    Raises:
        ConfigError: there is no data set of that name, no modality of a rule, or the options of a folder do not fit it.
        DatasetError: `root` does not have the layout of the data set.
    """
    split = read_dataset(name, root, folder)
    tables = {"train": split.train, "query": split.query, "gallery": split.gallery}
    require_modalities(
        scaling or {}, ordered({*MODALITIES, *(m for table in tables.values() for m in table.modalities)})
    )
    uses = file_uses(split)
    findings = [*find_faults(split, uses), *_unread(name, root, split)]
    reasons, picture_notes = None, PictureNotes()
    if check:
        files = sorted({path for table in tables.values() for path in table.paths})
        contents = read_contents(files, progress, rules_of_files(tables.values(), scaling or {}), picture_notes)
        reasons = [content for content in contents.values() if isinstance(content, str)]
        findings = [finding for finding in findings if finding.kind != "missing-file"]  # these are corrupt, too
        findings += find_content_faults(split, uses, contents)
    findings.sort(key=lambda finding: not finding.is_error)
    counts = [_counts(part, table) for part, table in tables.items()]
    notes = tuple(note for note in split.notes if note not in {finding.text for finding in findings})
    return Inspection(split.name, split, counts, (*notes, *picture_notes.lines()), reasons, tuple(findings))


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


def _unread(name: str, root: str | Path, split: Split) -> list[Finding]:
    """Files below the folders of a data set that look like pictures and are not read. A published data set has images
    that its protocol leaves out, so only those of other suffixes count there."""
    folders = [Path(folder) for folder in str(root).split(os.pathsep) if Path(folder).is_dir()]
    files = [path for folder in folders for path in picture_like(folder)]
    if name == "own":
        read = {path for table in (split.train, split.query, split.gallery) for path in table.paths}
        files = [path for path in files if path not in read]
    else:
        files = [path for path in files if not is_image(path)]
    return Finding.of("unread-picture", files, *UNREAD)
