"""`FOLDER` and `exact:FOLDER`: a gallery in one file of SQLite, with and without an index.

gallery/
├── gallery.sqlite   records, vectors, thumbnails, the log, and what the gallery is of: the truth
├── vectors.f32      derived: the vectors as one memory-mapped matrix, for exact search
├── index/           derived: the approximate index of a large gallery, with index.json and index.lock
└── ...-wal, ...-shm SQLite's write-ahead log and its shared memory, while the gallery is open

Every change is one transaction, with its line of the log; `synchronous=FULL` means that it is on disk when it returns.
Derived files follow the transaction's number and are caught up, or built again, when a gallery is opened.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from resight.errors import GalleryError, StorageError
from resight.files import make_folder
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.sqlite import erasure, verification
from resight.gallery.engines.sqlite.changes import ASSIGN, OF_IDS, Change, insert_records, remove_records, write_log
from resight.gallery.engines.sqlite.connection import DATABASE, Connection, wrong_format
from resight.gallery.engines.sqlite.derived import Derived
from resight.gallery.engines.sqlite.state import State, read_state, write_state
from resight.gallery.engines.sqlite.tables import (
    RECORD,
    RECORDS,
    read_entry,
    to_record,
)
from resight.gallery.identities import new_assignment, require_assignable
from resight.gallery.record import Assignment, Filter, GalleryInfo, Hit, Record, read_gallery_info

_PAGE: Final = 250  # records: their vectors stay in a core's cache while they are checked
_OLD: Final = "gallery.json"  # of formats 1 and 2


class SQLiteEngine:
    """A gallery in a folder. Several processes can read it while one writes.

    Args:
        path: the gallery's folder.
        indexed: whether a large gallery has an approximate index; otherwise every search is exact.
        exact_under: searches are exact, and no index is built, while the gallery has at most this many records.

    Raises:
        GalleryError: the folder is no gallery, of another format, corrupt, or on a network file system.
    """

    def __init__(self, path: Path, indexed: bool = True, exact_under: int = EXACT_UNDER) -> None:
        self.path = path
        if not (path / DATABASE).is_file():
            raise GalleryError(_why_no_gallery(path))
        self._database = Connection(path)
        self._scratch: TemporaryDirectory[str] | None = None
        try:
            with self._database.transaction() as connection:
                state = read_state(connection)
            self._info = read_gallery_info(state.info, str(path / DATABASE))
            place = path
            if not self._database.writable:
                self._scratch = TemporaryDirectory(prefix="resight-gallery-")
                place = Path(self._scratch.name)
            self.derived = Derived(path, place, self._info.width, state.gallery_id, indexed, exact_under)
            self.derived.catch_up(self._database)
            if state.erasure_pending and self._database.writable:
                with suppress(GalleryError):  # it stays pending while another process reads, and `faults` says so
                    erasure.finish(self._database, self.derived, seconds=0)
        except Exception:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, info: GalleryInfo) -> None:
        """Create an empty gallery, in a folder that does not exist or is empty.

        Raises:
            GalleryError: the path is a file, or a folder that is not empty.
            StorageError: the folder cannot be written.
        """
        _make_new_folder(path)
        Connection.create(path, info.model_dump_json())

    @property
    def info(self) -> GalleryInfo:
        """The model whose embeddings the gallery stores."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """Write the records in one transaction, and their vectors into the matrix before it ends."""
        by_id = {record.id: record for record in records}  # of records with the same id the last one is stored
        if not by_id:
            return
        with self._write() as (connection, change):
            self.derived.matrix.put(insert_records(connection, list(by_id.values()), change))

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Search exactly, or through the index if many records match the filter."""
        queries = np.ascontiguousarray(vectors, np.float32)  # [Q, D]
        with self._database.transaction() as connection:
            nearest = self.derived.nearest(connection, queries, k, where)
            numbers = sorted({number for row in nearest for _, number in row})
            query = "SELECT number, id FROM records WHERE number IN (SELECT value FROM json_each(?))"
            ids: dict[int, str] = dict(connection.execute(query, [json.dumps(numbers)]))
        return [[Hit(ids[number], score) for score, number in row if number in ids] for row in nearest]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Read the records in one statement."""
        rows = self._database.rows(f"SELECT {RECORD} FROM {RECORDS} WHERE r.{OF_IDS}", [json.dumps(list(ids))])
        records = {row[1]: to_record(row, self._info.width) for row in rows}
        return [records[record_id] for record_id in ids if record_id in records]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Read page by page, so that no transaction stays open in between."""
        with self._database.transaction() as connection:
            numbers = self.derived.matching(connection, where) + 1
        query = f"SELECT {RECORD} FROM {RECORDS} WHERE r.number IN (SELECT value FROM json_each(?)) ORDER BY r.number"
        for start in range(0, len(numbers), _PAGE):
            page = json.dumps(numbers[start : start + _PAGE].tolist())
            yield from (to_record(row, self._info.width) for row in self._database.rows(query, [page]))

    def count(self, where: Filter = EVERYTHING) -> int:
        """Count without reading records."""
        with self._database.transaction() as connection:
            return len(self.derived.matching(connection, where))

    def fields(self) -> set[str]:
        """Read the names from the table `fields`."""
        return {row[0] for row in self._database.rows("SELECT DISTINCT name FROM fields")}

    def assign(self, ids: Sequence[str], identity: str | None, of: str | None = None) -> int:
        """Write the identity and the log in one transaction."""
        with self._write() as (connection, change):
            query = f"SELECT id, identity FROM records WHERE {OF_IDS} OR identity = ?"
            before = require_assignable(dict(connection.execute(query, [json.dumps(list(ids)), of])), ids)
            connection.execute(ASSIGN, [identity, change.generation, identity, json.dumps(list(before))])
            change.counts = {"assign": len(before)}
            change.entry = new_assignment(identity, before)
        return len(before)

    def undo(self) -> Assignment:
        """Restore the identities, and remove the assignment from the log, in one transaction."""
        with self._write() as (connection, change):
            row = connection.execute("SELECT * FROM assignments ORDER BY place DESC LIMIT 1").fetchone()
            if row is None:
                raise GalleryError("there is no assignment to take back")
            last = read_entry(row)
            for identity in dict.fromkeys(last.before.values()):
                ids = json.dumps([i for i, before in last.before.items() if before == identity])
                connection.execute(ASSIGN, [identity, change.generation, identity, ids])
            connection.execute("DELETE FROM assignments WHERE place = ?", [row[0]])
            change.counts = {"undo": len(last.before)}
        return last

    def remove(self, ids: Sequence[str], identity: str | None = None) -> int:
        """Remove the records in one transaction, which hides them at once; then erase them from every file.

        Raises:
            GalleryError: the records are removed, but another process keeps their erasure from being completed.
        """
        try:
            count = self._remove(ids, identity)
        except StorageError:  # the disk is full: derived files can be built again, and give room
            self.derived.delete()
            count = self._remove(ids, identity, follow=False)
        with self._database.transaction() as connection:
            pending = read_state(connection).erasure_pending
        if pending:
            erasure.finish(self._database, self.derived)
        return count

    def assignments(self) -> list[Assignment]:
        """Read the table `assignments`."""
        return [read_entry(row) for row in self._database.rows("SELECT * FROM assignments ORDER BY place")]

    def add_assignments(self, entries: Sequence[Assignment]) -> None:
        """Add the assignments in one transaction."""
        for entry in entries:
            with self._write() as (_, change):
                change.counts = {"assign": len(entry.before)}
                change.entry = entry

    def faults(self) -> list[str]:
        """Check the database's structure, every checksum, the counts of the log, and derived data."""
        return verification.faults(self._database, self.derived, self._info.width)

    def backup(self, path: Path) -> int:
        """Copy the gallery to a new or empty folder while it is in use; return the number of its records."""
        _make_new_folder(path)
        self._database.backup(path)
        copied = SQLiteEngine(path, indexed=False)
        count = copied.count()
        copied.close()
        return count

    def close(self) -> None:
        """Close the database, and let another process have the index."""
        if hasattr(self, "derived"):
            self.derived.close()
        self._database.close()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def _remove(self, ids: Sequence[str], identity: str | None, follow: bool = True) -> int:
        with self._write(follow) as (connection, change):
            return remove_records(connection, ids, identity, change)

    @contextmanager
    def _write(self, follow: bool = True) -> Generator[tuple[Any, Change]]:
        """One change: a transaction with its lines of the log, which derived data follow when it has ended."""
        with self._database.transaction(write=True) as connection:
            state = read_state(connection)
            change = Change(state.generation + 1, state.last_number)
            yield connection, change
            if not change.counts:
                return
            write_log(connection, change)
            pending = int(state.erasure_pending or change.erase)
            ended = State(state.gallery_id, state.info, change.generation, change.last_number, pending)
            write_state(connection, ended)
        if follow:
            self.derived.catch_up(self._database)


def _make_new_folder(path: Path) -> None:
    partial = f".{DATABASE}"  # an interrupted creation leaves nothing else
    if path.exists() and (not path.is_dir() or any(not file.name.startswith(partial) for file in path.iterdir())):
        raise GalleryError(f"{path} exists already; use another name for the gallery")
    make_folder(path)
    path.chmod(0o700)  # personal data: readable by the owner alone


def _why_no_gallery(path: Path) -> str:
    if (path / _OLD).is_file():
        try:
            number = int(json.loads((path / _OLD).read_text())["format"])
        except (OSError, ValueError, KeyError, TypeError):
            number = 2
        return wrong_format(path / _OLD, number)
    return f"{path} is no gallery; create one with resight gallery create {path} --model FOLDER"
