"""What is suspicious in the labels and files of a data set, found without decoding an image."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resight.data.modalities import LABELS
from resight.data.sightings import SightingTable, Split
from resight.errors import DatasetError

EXAMPLES: Final = 3
"""Labels or files that a text lists."""
_LIKE_UNKNOWN: Final = frozenset(("nan", "none", "null", "na", "n/a", "nil", "unknown", "?", "-", "<na>"))
BOTH: Final = "both in train and in test"
ALLOW_OVERLAP: Final = "separate train and test, or allow this with --allow-train-test-overlap"
"""What to do about identities and files that are both in the training set and in the test set."""


def list_first(names: Sequence[str]) -> str:
    """Return the first three names, and how many others there are."""
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


@dataclass(frozen=True)
class Finding:
    """Something suspicious in a data set."""

    kind: str
    """What was found, such as `identity-in-train-and-test`; see docs/first-steps.md."""
    count: int
    examples: tuple[str, ...]
    """The first three: labels or files."""
    text: str
    """One sentence with the count and the examples."""
    is_error: bool = False
    """Whether the data set cannot be used as it is."""

    @property
    def is_overlap(self) -> bool:
        """Whether something is both in the training set and in the test set, which can be allowed."""
        return self.kind.endswith("-in-train-and-test")

    @classmethod
    def of(cls, kind: str, items: Iterable[object], one: str, many: str, is_error: bool = False) -> list["Finding"]:
        """Return the finding of some items, or nothing if there are none.

        Args:
            kind: of the finding.
            items: labels or files.
            one: what is said after the number 1.
            many: what is said after a larger number.
            is_error: whether the data set cannot be used as it is.
        """
        names = [str(item) for item in items]
        if not names:
            return []
        text = f"{len(names)} {one if len(names) == 1 else many}: {list_first(names)}"
        return [cls(kind, len(names), tuple(names[:EXAMPLES]), text, is_error)]


@dataclass(frozen=True)
class FileUse:
    """A file and what the tables say of it."""

    path: Path
    parts: tuple[str, ...]
    """The part of each sighting that has the file: train, query or gallery."""
    labels: Mapping[str, frozenset[str]]
    """The distinct known labels of these sightings, by kind."""

    @property
    def overlaps(self) -> bool:
        """Whether the file is both in the training set and in the test set."""
        return "train" in self.parts and len(set(self.parts)) > 1


def find_faults(split: Split, uses: Sequence[FileUse]) -> list[Finding]:
    """Return what is suspicious in the labels and files of a data set."""
    files = [
        *find_overlap(split, uses),
        *Finding.of("missing-file", _missing(uses), "file does not exist", "files do not exist", True),
        *_shared_files(uses),
    ]
    labels = [finding for name in LABELS for finding in _suspicious_labels(split, name)]
    return [*files, *labels]


def find_overlap(split: Split, uses: Iterable[FileUse]) -> list[Finding]:
    """Return the findings of identities and files that are both in the training set and in the test set."""
    train = set(split.train.values("identity"))
    identities = sorted(train & {*split.query.values("identity"), *split.gallery.values("identity")})
    files = [use.path for use in uses if use.overlaps]
    return [
        *Finding.of("identity-in-train-and-test", identities, f"identity is {BOTH}", f"identities are {BOTH}", True),
        *Finding.of("file-in-train-and-test", files, f"file is {BOTH}", f"files are {BOTH}", True),
    ]


def refuse_overlap(split: Split) -> None:
    """Make sure that no identity and no file is both in the training set and in the test set.

    Raises:
        DatasetError: there is one; the text names the option that allows it.
    """
    findings = find_overlap(split, file_uses(split))
    if findings:
        texts = "; ".join(finding.text for finding in findings)
        raise DatasetError(f"{split.name}: {texts}; figures would measure what was trained on: {ALLOW_OVERLAP}")


def file_uses(split: Split) -> list[FileUse]:
    """Return each file of a data set once, in the order of the tables; links to one file count as that file."""
    tables = {"train": split.train, "query": split.query, "gallery": split.gallery}
    if split.gallery is split.query:
        del tables["gallery"]
    paths = dict[object, Path]()
    parts = defaultdict[object, list[str]](list)
    labels = defaultdict[object, dict[str, set[str]]](lambda: {"identity": set(), "camera": set()})
    for part, table in tables.items():
        for sighting in table:
            for path in sighting.images.values():
                file = _file_of(path)
                paths.setdefault(file, path)
                parts[file].append(part)
                for kind, values in labels[file].items():
                    value = getattr(sighting, kind)
                    if value is not None:
                        values.add(value)
    return [
        FileUse(path, tuple(parts[file]), {kind: frozenset(values) for kind, values in labels[file].items()})
        for file, path in paths.items()
    ]


def _file_of(path: Path) -> object:
    """What is the same for all names of one file; for a file that does not exist, its absolute path."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return os.path.abspath(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _shared_files(uses: Iterable[FileUse]) -> list[Finding]:
    twice = [use.path for use in uses if any(use.parts.count(part) > 1 for part in use.parts)]
    where = "in two or more sightings of one part"
    findings = Finding.of("file-twice", twice, f"file is {where}", f"files are {where}")
    for kind, plural in (("identity", "identities"), ("camera", "cameras")):
        files = [
            f"{use.path} ({' and '.join(sorted(use.labels[kind])[:EXAMPLES])})"
            for use in uses
            if len(use.labels[kind]) > 1
        ]
        findings += Finding.of(
            f"file-of-two-{plural}", files, f"file has two or more {plural}", f"files have two or more {plural}"
        )
    return findings


def _suspicious_labels(split: Split, kind: str) -> list[Finding]:
    tables: list[SightingTable] = [split.train, split.query, split.gallery]
    names = sorted({name for table in tables for name in table.values(kind)})
    unknown = [name for name in names if name.rpartition(":")[2].strip().lower() in {*_LIKE_UNKNOWN, ""}]
    spellings = defaultdict[str, list[str]](list)
    for name in names:
        spellings[name.strip().casefold()].append(name)
    doubled = [" and ".join(map(repr, group[:EXAMPLES])) for group in spellings.values() if len(group) > 1]
    like = "like an unknown value, which is an empty cell in a table"
    return [
        *Finding.of(
            f"{kind}-like-unknown", map(repr, unknown), f"label of {kind} looks {like}", f"labels of {kind} look {like}"
        ),
        *Finding.of(
            f"{kind}-spelled-twice",
            doubled,
            f"label of {kind} is written in several ways, which count as different",
            f"labels of {kind} are written in several ways, which count as different",
        ),
    ]


def _missing(uses: Iterable[FileUse]) -> list[Path]:
    return [use.path for use in uses if not _exists(use.path)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file can have this name
        return False
