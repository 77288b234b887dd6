"""A connection to `gallery.sqlite`: how it is opened, its transactions, and its errors as sentences."""

import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

from resight.errors import GalleryError, ResightError, StorageError
from resight.files import move
from resight.gallery.engines.sqlite.state import read_state, write_state
from resight.gallery.engines.sqlite.tables import APPLICATION, FORMAT, SCHEMA, checksum

DATABASE: Final = "gallery.sqlite"
TIMEOUT_SECONDS: Final = 10.0
"""How long a process waits for another one that writes, or that keeps the write-ahead log from being emptied."""
_NETWORK: Final = ("nfs", "cifs", "smb", "afs", "ceph", "lustre", "gpfs", "gluster", "fuse.sshfs", "fuse.gluster")
_CACHE_KIB: Final = 16_384
_FULL, _BUSY, _READONLY = 13, (5, 6), 8  # primary result codes of SQLite


class Connection:
    """A connection to the database of a gallery's folder.

    Several processes can read while one writes. A folder that cannot be written is opened for reading: as it is where
    the write-ahead log is empty, and else through a private copy, which SQLite recovers.

    Args:
        folder: of the gallery.

    Raises:
        GalleryError: there is no gallery, it is of another format, corrupt, or on a network file system.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / DATABASE
        require_local(folder)
        self.writable = os.access(folder, os.W_OK) and os.access(self.file, os.W_OK)
        self._lock = threading.RLock()
        self._copy: TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        with self.errors():
            self._connection = self._open()
            self._prepare()

    @classmethod
    def create(cls, folder: Path, info: str) -> None:
        """Write an empty database, which appears under its name when it is complete."""
        with _new_database(folder) as connection:
            for name, value in (("page_size", 16_384), ("application_id", APPLICATION), ("user_version", FORMAT)):
                connection.execute(f"PRAGMA {name} = {value}")
            connection.executescript(SCHEMA)
            row = (secrets.token_hex(16), info, 0, 0, 0)
            connection.execute("INSERT INTO info VALUES (1, ?, ?, ?, ?, ?, ?)", [*row, checksum(*row)])

    @property
    def raw(self) -> sqlite3.Connection:
        """SQLite's own connection.

        Raises:
            GalleryError: it is closed.
        """
        if self._connection is None:
            raise GalleryError("the gallery is closed; open it again")
        return self._connection

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with self._lock, self.errors():
            return self.raw.execute(query, values).fetchall()

    @contextmanager
    def transaction(self, write: bool = False) -> Generator[sqlite3.Connection]:
        """Run the statements of the block on one state of the database; those that write take effect together.

        A transaction in a transaction is a part of it.
        """
        with self._lock, self.errors():
            connection = self.raw
            if connection.in_transaction:
                yield connection
                return
            if write and not self.writable:
                raise GalleryError(f"{self.folder} cannot be written, so the gallery is open for reading only")
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def backup(self, folder: Path) -> None:
        """Copy the database to another folder while it is in use (SQLite's backup API).

        The copy has an id of its own, so that derived files of the one are not taken for those of the other. It appears
        under its name when it is complete.
        """
        with self._lock, self.errors(), _new_database(folder) as target:
            self.raw.backup(target, pages=-1)
            write_state(target, replace(read_state(target), gallery_id=secrets.token_hex(16)))

    def vacuum(self) -> None:
        """Write the database again, without free pages and copies of deleted rows."""
        with self._lock, self.errors():
            self.raw.execute("PRAGMA temp_store = FILE")  # in memory, the copy would need as much as the database
            try:
                self.raw.execute("VACUUM")
            finally:
                self.raw.execute("PRAGMA temp_store = MEMORY")

    @contextmanager
    def waiting(self, seconds: float) -> Generator[None]:
        """Wait at most so long for other processes during the block, where SQLite waits."""
        with self._lock, self.errors():
            self.raw.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
            try:
                yield
            finally:
                self.raw.execute(f"PRAGMA busy_timeout = {int(1000 * TIMEOUT_SECONDS)}")

    def empty_log(self) -> bool:
        """Write the log's pages into the database and truncate it; False where a reader does not let go in time."""
        with self._lock, self.errors():
            return self.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._copy is not None:
                self._copy.cleanup()
                self._copy = None

    @contextmanager
    def errors(self) -> Generator[None]:
        """Raise SQLite's errors in the block as sentences."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a corrupt name in an error text of SQLite's is no UTF-8
            raise self._sentence(error) from error

    def _sentence(self, error: Exception) -> ResightError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == _FULL:
            return StorageError(f"{self.file} cannot be written: the disk is full")
        if code in _BUSY:
            return GalleryError(
                f"{self.folder} is in use: another process has been writing for over {TIMEOUT_SECONDS:g} seconds; try "
                "again when it is done"
            )
        if code == _READONLY:
            return StorageError(f"{self.file} cannot be written: {error}")
        return GalleryError(
            f"{self.file} is corrupt ({error}); resight gallery repair copies what is whole to a new gallery"
        )

    def _open(self) -> sqlite3.Connection:
        file, mode = self.file, "mode=rw"
        log = self.file.with_name(DATABASE + "-wal")
        if not self.writable and log.exists() and log.stat().st_size:
            self._copy = TemporaryDirectory(prefix="resight-gallery-")
            file = Path(self._copy.name) / DATABASE
            shutil.copyfile(self.file, file)
            shutil.copyfile(log, file.with_name(log.name))
        elif not self.writable:
            mode = "mode=ro&immutable=1"  # no shared memory file can be made there, and nothing changes the database
        uri = f"file:{quote(os.fsencode(str(file.absolute())))}?{mode}"
        return sqlite3.connect(uri, TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False, uri=True)

    def _prepare(self) -> None:
        connection = self.raw
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise GalleryError(f"{self.file} is no gallery of resight")
        number = connection.execute("PRAGMA user_version").fetchone()[0]
        if number != FORMAT:
            raise GalleryError(wrong_format(self.file, number))
        if self.writable and connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        for name, value in (
            ("synchronous", "FULL"), ("foreign_keys", "ON"), ("secure_delete", "ON"), ("temp_store", "MEMORY"),
            ("cache_size", -_CACHE_KIB),
        ):  # fmt: skip
            connection.execute(f"PRAGMA {name} = {value}")
        connection.create_function("record_checksum", -1, checksum, deterministic=True)


@contextmanager
def _new_database(folder: Path) -> Generator[sqlite3.Connection]:
    """A database to fill, which appears under its name when the block has ended without an error."""
    partial = folder / f".{DATABASE}.partial"
    for leftover in folder.glob(f"{partial.name}*"):
        leftover.unlink()
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # readable by the owner alone
    connection = sqlite3.connect(partial, isolation_level=None)
    try:
        yield connection
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    move(partial, folder / DATABASE)


def wrong_format(where: Path, number: int) -> str:
    """The sentence for a gallery of another format."""
    return (
        f"{where} has format {number}, and this version of resight reads format {FORMAT}: create the gallery again and "
        "add its images"
    )


def require_local(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Refuse a network file system: SQLite's write-ahead log needs memory that all its processes share.

    Raises:
        GalleryError: the folder is on one.
    """
    try:
        lines = [line.split(" ") for line in mounts.read_text(errors="surrogateescape").splitlines()]
    except OSError:
        return  # not Linux: nothing is known
    real = folder.resolve()
    kinds = {Path(line[1].replace("\\040", " ")): line[2] for line in lines if len(line) > 2}
    kind = next((kinds[parent] for parent in (real, *real.parents) if parent in kinds), "")
    if kind.startswith(_NETWORK):
        raise GalleryError(
            f"{folder} is on a network file system ({kind}), where SQLite's write-ahead log does not work: put the "
            "gallery on a local disk, or in PostgreSQL or Qdrant"
        )
