"""A gallery in a folder, searched exactly.

gallery/
├── gallery.json     the gallery's `GalleryInfo`
├── segments/        the records, in segments; a later segment has a higher number as its name
├── audit.jsonl      the log of assignments
└── .lock            held by the one process that has the gallery open

A segment is written once; only its identities change afterwards. To remove records, their segment is written again
without them, under a new number, and the old segment is deleted. If a process stops between the two steps, both
segments exist, and records of the later one count.
"""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from resight.errors import GalleryError
from resight.files import make_folder, write_file
from resight.gallery.engines.contract import EVERYTHING
from resight.gallery.engines.segment import Segment, write_segment
from resight.gallery.record import Filter, GalleryInfo, Hit, Record, read_gallery_info

_SMALL_SEGMENT = 4096  # rows; smaller segments are merged
_MERGE_COUNT = 32  # small segments that trigger a merge
_MAX_ROWS = 65_536  # of a segment
_ROUNDING = 1e-5  # upper bound of the float32 rounding error of a product of unit-length vectors
INFO, SEGMENTS, LOG = "gallery.json", "segments", "audit.jsonl"


class FolderEngine:
    """The engine of `exact:FOLDER`, and the storage of `FOLDER`.

    Args:
        path: the gallery's folder.

    Raises:
        GalleryError: the folder is no gallery, is corrupt, or is open in another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / INFO).is_file():
            raise GalleryError(f"{path} is no gallery; create one with resight gallery create {path} --model FOLDER")
        self._lock = _lock(path)
        self._info = read_gallery_info((path / INFO).read_text(), str(path / INFO))
        self.segments: list[Segment] = []
        self._positions: dict[str, tuple[Segment, int]] = {}  # segment and row, by record id
        for folder in sorted((path / SEGMENTS).iterdir()):
            if folder.name.startswith("."):  # incomplete: a process was stopped while it wrote
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._open(folder)
        for segment in [segment for segment in self.segments if not segment.alive.any()]:
            self._drop(segment)

    @classmethod
    def create(cls, path: Path, info: GalleryInfo) -> "FolderEngine":
        """Create an empty gallery, in a folder that does not exist or is empty.

        Raises:
            GalleryError: the path is a file, or a folder that is not empty.
            StorageError: the folder cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise GalleryError(f"{path} exists already; use another name for the gallery")
        make_folder(path / SEGMENTS)
        path.chmod(0o700)  # personal data: readable by the owner alone
        write_file(path / INFO, info.model_dump_json(indent=2) + "\n")
        return cls(path)

    @property
    def info(self) -> GalleryInfo:
        """The model whose embeddings the gallery stores."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """Write the records as a new segment, and remove those that they replace."""
        by_id = {record.id: record for record in records}  # of records with the same id the last one is stored
        if not by_id:
            return
        replaced = [self._positions[record_id] for record_id in by_id if record_id in self._positions]
        self._write(self._next_number() + np.arange(len(by_id)), list(by_id.values()))
        self._rewrite(replaced)
        self._merge()

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Multiply the queries with all matching records, and score the nearest again in float64.

        The second score makes equal vectors tie, whatever segment they are in.
        """
        queries = np.ascontiguousarray(vectors, np.float32)  # [Q, D]
        nearest = [list[tuple[float, int, str]]() for _ in queries]  # for each query: -similarity, number, id
        for segment in self.segments:
            rows = np.flatnonzero(segment.where(where))  # [n]
            if not len(rows):
                continue
            embeddings = segment.vectors if len(rows) == len(segment) else segment.vectors[rows]  # [n, D]
            for best, query, scores in zip(nearest, queries, queries @ embeddings.T, strict=True):  # scores: [n]
                # Take every record that may be among the k nearest of this segment and those before it
                lowest = np.partition(scores, -k)[-k] - _ROUNDING if k < len(scores) else -np.inf
                if len(best) >= k:
                    lowest = max(lowest, -best[k - 1][0] - _ROUNDING)
                candidates = rows[scores >= lowest]
                exact = (segment.vectors[candidates].astype(np.float64) * query).sum(1).astype(np.float32)
                best += [
                    (-float(score), int(segment.numbers[row]), segment.ids[row])
                    for score, row in zip(exact, candidates, strict=True)
                ]
                best.sort()
                del best[k:]
        return [[Hit(record_id, -distance) for distance, _, record_id in best] for best in nearest]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Read each segment that has one of the records once."""
        records = {
            record.id: record
            for segment, rows in self._by_segment(dict.fromkeys(ids))
            for record in segment.records(rows)
        }
        return [records[record_id] for record_id in ids if record_id in records]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Read segment by segment; merging keeps records in the order of their numbers."""
        for segment in sorted(self.segments, key=lambda segment: int(segment.numbers[0])):
            yield from segment.records(np.flatnonzero(segment.where(where)))

    def count(self, where: Filter = EVERYTHING) -> int:
        """Count without reading vectors."""
        return sum(int(segment.where(where).sum()) for segment in self.segments)

    def assign(self, ids: Sequence[str], identity: str | None) -> None:
        """Write the identities of each segment in one step."""
        for segment, rows in self._by_segment(ids):
            segment.assign(np.array(rows), identity)
            segment.read()

    def delete(self, ids: Sequence[str]) -> int:
        """Write the segments of the records again without them."""
        positions = [self._positions[record_id] for record_id in dict.fromkeys(ids) if record_id in self._positions]
        self._rewrite(positions)
        return len(positions)

    def fields(self) -> set[str]:
        """Collect the names from every record."""
        return {
            name
            for segment in self.segments
            for row, metadata in enumerate(segment.metadata)
            if segment.alive[row]
            for name in metadata
        }

    def read_log(self) -> list[dict[str, Any]]:
        """Read `audit.jsonl`."""
        path = self.path / LOG
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """Write `audit.jsonl` in one step."""
        write_file(self.path / LOG, "".join(json.dumps(entry) + "\n" for entry in entries))

    def close(self) -> None:
        """Release the lock, so that another process can open the gallery."""
        self._lock.close()

    def _by_segment(self, ids: Iterable[str]) -> list[tuple[Segment, list[int]]]:
        return _grouped([self._positions[record_id] for record_id in ids if record_id in self._positions])

    def _open(self, path: Path) -> None:
        """Open a segment; its records replace those of earlier segments with the same ids."""
        segment = Segment(path)
        for row, record_id in enumerate(segment.ids):
            if record_id in self._positions:
                older, older_row = self._positions[record_id]
                older.alive[older_row] = False
            self._positions[record_id] = segment, row
        self.segments.append(segment)

    def _drop(self, segment: Segment) -> None:
        """Delete a segment, with the records that no later segment replaces."""
        shutil.rmtree(segment.path)
        self.segments.remove(segment)
        for row in np.flatnonzero(segment.alive):
            del self._positions[segment.ids[row]]

    def _next_number(self) -> int:
        return 1 + max((int(segment.numbers.max()) for segment in self.segments), default=-1)

    def _write(self, numbers: np.ndarray, records: Sequence[Record]) -> None:
        names = [int(path.name) for path in (self.path / SEGMENTS).iterdir() if not path.name.startswith(".")]
        name = 1 + max(names, default=0)
        for start in range(0, len(records), _MAX_ROWS):
            rows = slice(start, start + _MAX_ROWS)
            write_segment(self.path / SEGMENTS / f"{name:010d}", numbers[rows], records[rows])
            self._open(self.path / SEGMENTS / f"{name:010d}")
            name += 1

    def _rewrite(self, removed: Sequence[tuple[Segment, int]]) -> None:
        """Write segments again without the removed rows and without replaced records; delete the old segments."""
        for segment, rows in _grouped(removed):
            alive = segment.alive.copy()
            alive[rows] = False
            remaining = np.flatnonzero(alive)
            if len(remaining):
                self._write(segment.numbers[remaining], segment.records(remaining))
            self._drop(segment)

    def _merge(self) -> None:
        """Merge small segments once there are many."""
        small = [segment for segment in self.segments if len(segment) < _SMALL_SEGMENT]
        if len(small) < _MERGE_COUNT:
            return
        rows = [np.flatnonzero(segment.alive) for segment in small]
        numbers = np.concatenate([s.numbers[alive] for s, alive in zip(small, rows, strict=True)])
        records = [record for s, alive in zip(small, rows, strict=True) for record in s.records(alive)]
        order = np.argsort(numbers)
        self._write(numbers[order], [records[n] for n in order])
        for segment in small:
            self._drop(segment)


def _grouped(positions: Sequence[tuple[Segment, int]]) -> list[tuple[Segment, list[int]]]:
    """Rows by segment, in the order of the segments' first occurrence."""
    groups: dict[Path, tuple[Segment, list[int]]] = {}
    for segment, row in positions:
        groups.setdefault(segment.path, (segment, []))[1].append(row)
    return list(groups.values())


def _lock(path: Path) -> IO[str]:
    lock = (path / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise GalleryError(f"{path} is open in another process; only one at a time can use it") from error
    return lock
