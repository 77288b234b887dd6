"""A gallery in a folder, searched exactly.

gallery/
├── gallery.json     width, and the model's fingerprint
├── segments/        stretches of records, in the order of their names
├── audit.jsonl      what was done to identities
└── .lock            one process at a time

A segment is written whole and never changed but for names; what is removed is written anew without it, and the old one
deleted. Where a process was stopped between the two, the later segment counts.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from resight.errors import GalleryError
from resight.files import make_folder, write_file
from resight.gallery.engines.contract import EVERYTHING
from resight.gallery.engines.segment import Segment, write_segment
from resight.gallery.record import Filter, GalleryInfo, Near, Record, read_gallery_info

_SMALL, _MANY, _LONGEST = 4096, 32, 65_536  # segments under so many rows, so many of them, are joined up to so many
_ROUNDING = 1e-5  # more than a float32 product of vectors of unit length is off by
INFO, SEGMENTS, LOG = "gallery.json", "segments", "audit.jsonl"


class FolderEngine:
    """`exact:FOLDER`, and what `FOLDER` keeps its records in.

    Args:
        path: the gallery's folder.

    Raises:
        GalleryError: it is no gallery, is damaged, or another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / INFO).is_file():
            raise GalleryError(f"{path} is no gallery: make one with resight gallery create {path} --model FOLDER")
        self._lock = _locked(path)
        self._info = read_gallery_info((path / INFO).read_text(), str(path / INFO))
        self.segments: list[Segment] = []
        self._place: dict[str, tuple[Segment, int]] = {}
        for part in sorted((path / SEGMENTS).iterdir()):
            if part.name.startswith("."):  # of a process that was stopped while it wrote
                shutil.rmtree(part, ignore_errors=True)
            else:
                self._open(part)
        for segment in [s for s in self.segments if not s.alive.any()]:
            self._drop(segment)

    @classmethod
    def create(cls, path: Path, info: GalleryInfo) -> "FolderEngine":
        """Makes a gallery.

        Raises:
            GalleryError: something is there already.
            StorageError: it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise GalleryError(f"{path} exists already and is not made a gallery of; use another name")
        make_folder(path / SEGMENTS)
        path.chmod(0o700)  # it is about people
        write_file(path / INFO, info.model_dump_json(indent=2) + "\n")
        return cls(path)

    @property
    def info(self) -> GalleryInfo:
        """What the gallery knows of its model."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """One new segment."""
        last = {record.id: record for record in records}  # of one id given twice the last counts
        if not last:
            return
        replaced = [self._place[i] for i in last if i in self._place]
        self._write(self._next_number() + np.arange(len(last)), list(last.values()))
        self._rewrite(replaced)
        self._join()

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Near]]:
        """By one product with all records that are meant; the nearest are then scored again in float64, so that equal
        vectors tie wherever they lie."""
        asked = np.ascontiguousarray(vectors, np.float32)  # [Q, D]
        found = [list[tuple[float, int, str]]() for _ in asked]  # of each question: how far, number, id
        for segment in self.segments:
            kept = np.flatnonzero(segment.where(where))
            if not len(kept):
                continue
            held = segment.vectors if len(kept) == len(segment) else segment.vectors[kept]
            for own, question, rough in zip(found, asked, asked @ held.T, strict=True):  # rough: float32 [n]
                least = np.partition(rough, -k)[-k] - _ROUNDING if k < len(rough) else -np.inf
                least = max(least, -own[k - 1][0] - _ROUNDING) if len(own) >= k else least
                rows = kept[rough >= least]
                exact = (segment.vectors[rows].astype(np.float64) * question).sum(1).astype(np.float32)
                own += [(-float(s), int(segment.numbers[r]), segment.ids[r]) for s, r in zip(exact, rows, strict=True)]
                own.sort()
                del own[k:]
        return [[Near(i, -far) for far, _, i in own] for own in found]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """By their place."""
        groups: dict[Path, tuple[Segment, list[int]]] = {}
        for i in dict.fromkeys(ids):
            if i in self._place:
                segment, row = self._place[i]
                groups.setdefault(segment.path, (segment, []))[1].append(row)
        held = {record.id: record for segment, rows in groups.values() for record in segment.records(rows)}
        return [held[i] for i in ids if i in held]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Segment by segment; those that were joined have kept the order."""
        for segment in sorted(self.segments, key=lambda s: int(s.numbers[0])):
            yield from segment.records(np.flatnonzero(segment.where(where)))

    def count(self, where: Filter = EVERYTHING) -> int:
        """Without reading a vector."""
        return sum(int(segment.where(where).sum()) for segment in self.segments)

    def name(self, ids: Sequence[str], identity: str | None) -> None:
        """In place."""
        groups: dict[Path, tuple[Segment, list[int]]] = {}
        for i in ids:
            if i in self._place:
                segment, row = self._place[i]
                groups.setdefault(segment.path, (segment, []))[1].append(row)
        for segment, rows in groups.values():
            segment.name(np.array(rows), identity)
            segment.read()

    def delete(self, ids: Sequence[str]) -> int:
        """By writing what is left of their segments anew."""
        gone = [self._place[i] for i in dict.fromkeys(ids) if i in self._place]
        self._rewrite(gone)
        return len(gone)

    def fields(self) -> set[str]:
        """From every record."""
        return {name for s in self.segments for n, own in enumerate(s.metadata) if s.alive[n] for name in own}

    def read_log(self) -> list[dict[str, Any]]:
        """From `audit.jsonl`."""
        path = self.path / LOG
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """In one step."""
        write_file(self.path / LOG, "".join(json.dumps(entry) + "\n" for entry in entries))

    def close(self) -> None:
        """Another process may open it then."""
        self._lock.close()

    def _open(self, path: Path) -> None:
        """Takes a segment in; what earlier ones hold under the same ids does not count any more."""
        segment = Segment(path)
        for row, i in enumerate(segment.ids):
            if i in self._place:
                older, at = self._place[i]
                older.alive[at] = False
            self._place[i] = segment, row
        self.segments.append(segment)

    def _drop(self, segment: Segment) -> None:
        """Deletes a segment; what it holds of ids that no other has is gone with it."""
        shutil.rmtree(segment.path)
        self.segments.remove(segment)
        for row in np.flatnonzero(segment.alive):
            del self._place[segment.ids[row]]

    def _next_number(self) -> int:
        return 1 + max((int(segment.numbers.max()) for segment in self.segments), default=-1)

    def _write(self, numbers: np.ndarray, records: Sequence[Record]) -> None:
        names = [int(path.name) for path in (self.path / SEGMENTS).iterdir() if not path.name.startswith(".")]
        at = 1 + max(names, default=0)
        for start in range(0, len(records), _LONGEST):
            part = slice(start, start + _LONGEST)
            write_segment(self.path / SEGMENTS / f"{at:010d}", numbers[part], records[part])
            self._open(self.path / SEGMENTS / f"{at:010d}")
            at += 1

    def _rewrite(self, without: Sequence[tuple[Segment, int]]) -> None:
        """Writes segments anew without some rows, and without those that are not alive; deletes the old ones."""
        groups: dict[Path, tuple[Segment, list[int]]] = {}
        for segment, row in without:
            groups.setdefault(segment.path, (segment, []))[1].append(row)
        for segment, rows in groups.values():
            kept = segment.alive.copy()
            kept[rows] = False
            left = np.flatnonzero(kept)
            if len(left):
                self._write(segment.numbers[left], segment.records(left))
            self._drop(segment)

    def _join(self) -> None:
        """Joins small segments where there are many."""
        small = [s for s in self.segments if len(s) < _SMALL]
        if len(small) < _MANY:
            return
        rows = [np.flatnonzero(segment.alive) for segment in small]
        numbers = np.concatenate([segment.numbers[own] for segment, own in zip(small, rows, strict=True)])
        records = [r for segment, own in zip(small, rows, strict=True) for r in segment.records(own)]
        order = np.argsort(numbers)
        self._write(numbers[order], [records[n] for n in order])
        for segment in small:
            self._drop(segment)


def _locked(path: Path) -> IO[str]:
    lock = (path / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise GalleryError(f"{path} is open in another process; only one at a time can use it") from error
    return lock
