"""Erase removed records from every file of a gallery: free pages, write-ahead log, matrix and index."""

import time
from dataclasses import replace
from typing import Final

from resight.errors import GalleryError, ResightError
from resight.gallery.engines.sqlite.connection import TIMEOUT_SECONDS, Connection
from resight.gallery.engines.sqlite.derived import Derived
from resight.gallery.engines.sqlite.state import read_state, write_state

_PAUSE: Final = 0.2  # seconds between attempts


def finish(database: Connection, derived: Derived, seconds: float = TIMEOUT_SECONDS) -> None:
    """Erase what removals have hidden, and then say so in the database.

    `secure_delete` overwrites deleted rows, but a page can keep a copy of a row that was moved on it: VACUUM writes the
    database again without such copies. It can need as much free disk space as the database has.

    Args:
        database: of the gallery.
        derived: its matrix and index, which follow the database.
        seconds: how long to wait for other processes that read.

    Raises:
        GalleryError: the erasure is pending, since another process reads, or the disk is full.
    """
    deadline = time.monotonic() + seconds
    try:
        if derived.matrix.file.exists():
            derived.catch_up(database)
        with database.waiting(seconds):
            while not _erased(database, derived):
                if time.monotonic() > deadline:
                    raise GalleryError(f"another process is using {database.folder}")
                time.sleep(_PAUSE)
        with database.transaction(write=True) as connection:
            write_state(connection, replace(read_state(connection), erasure_pending=0))
        derived.catch_up(database)
    except ResightError as error:
        raise GalleryError(
            f"the records are removed and no longer found, but their erasure from disk is pending ({error}); it is "
            "finished when the gallery is next opened"
        ) from error


def _erased(database: Connection, derived: Derived) -> bool:
    with database.transaction() as connection:
        if not derived.purge_index(connection):
            return False
    database.vacuum()
    return database.empty_log()
