"""The row `info`: what the gallery is of, and how many transactions have changed it."""

import sqlite3
from dataclasses import astuple, dataclass

from resight.errors import GalleryError
from resight.gallery.engines.sqlite.tables import checksum


@dataclass(frozen=True)
class State:
    """The row `info` of a gallery."""

    gallery_id: str
    """32 hexadecimal digits, drawn when the gallery is created; derived files carry them too."""
    info: str
    """The `GalleryInfo`, as JSON."""
    generation: int
    """Number of transactions that have changed the gallery."""
    last_number: int
    """The number of the record that was added last; numbers are not used again."""
    erasure_pending: int
    """Whether removed records may still be in free pages, the write-ahead log or derived files."""


def read_state(connection: sqlite3.Connection) -> State:
    """Read the row.

    Raises:
        GalleryError: its checksum does not match.
    """
    row = connection.execute(
        "SELECT gallery_id, info, generation, last_number, erasure_pending, checksum FROM info"
    ).fetchone()
    if row is None or checksum(*row[:-1]) != row[-1]:
        raise GalleryError(
            "gallery.sqlite is corrupt: the checksum of its description does not match; restore it from a copy"
        )
    return State(*row[:-1])


def write_state(connection: sqlite3.Connection, state: State) -> None:
    """Replace the row."""
    connection.execute(
        "UPDATE info SET gallery_id = ?, info = ?, generation = ?, last_number = ?, erasure_pending = ?, checksum = ?",
        [*astuple(state), checksum(*astuple(state))],
    )
