"""Verify a gallery in SQLite: the database's structure, every checksum, the log's counts, and derived data."""

import sqlite3
from collections.abc import Iterator

import numpy as np

from resight.errors import GalleryError
from resight.gallery.engines.sqlite.connection import Connection
from resight.gallery.engines.sqlite.derived import Derived
from resight.gallery.engines.sqlite.state import read_state
from resight.gallery.engines.sqlite.tables import RECORD, RECORDS, checksum, read_entry, to_record, value_text

_INDEX_ROUNDING = 1e-6


def faults(database: Connection, derived: Derived, width: int) -> list[str]:
    """Return what is wrong, a sentence each; an empty list if there is nothing."""
    messages = list[str]()
    try:
        with database.transaction() as connection:
            for part in (_structure, _checksums, _counts):
                messages += part(connection, width)
            if not messages:
                messages += _matrix(connection, derived, width)
                messages += _index(connection, derived)
    except GalleryError as error:
        messages.append(str(error))
    return messages


def _structure(connection: sqlite3.Connection, width: int) -> Iterator[str]:
    for row in connection.execute("PRAGMA integrity_check(20)"):
        if row[0] != "ok":
            yield f"gallery.sqlite is corrupt: {' '.join(str(row[0]).split())}"
    for row in connection.execute("PRAGMA foreign_key_check"):
        yield f"gallery.sqlite is corrupt: a row of the table {row[0]} has no row in {row[2]}"


def _checksums(connection: sqlite3.Connection, width: int) -> Iterator[str]:
    read_state(connection)
    for row in connection.execute(f"SELECT {RECORD} FROM {RECORDS} ORDER BY r.number"):
        try:
            metadata = to_record(row, width).metadata
        except GalleryError as error:
            yield str(error)
            continue
        stored = connection.execute("SELECT name, value FROM fields WHERE number = ?", [row[0]]).fetchall()
        if sorted(stored) != sorted((name, value_text(value)) for name, value in metadata.items()):
            yield f"the table fields differs from the metadata of record {row[1]!r}"
    for row in connection.execute("SELECT * FROM log"):
        if checksum(*row[:-1]) != row[-1]:
            yield f"the log is corrupt at place {row[0]}: its checksum does not match"
    for row in connection.execute("SELECT * FROM assignments"):
        try:
            read_entry(row)
        except GalleryError as error:
            yield str(error)


def _counts(connection: sqlite3.Connection, width: int) -> Iterator[str]:
    state = read_state(connection)
    if state.erasure_pending:
        yield "the erasure of removed records is pending: end other processes that use the gallery, and open it again"
    count = connection.execute("SELECT count(*) FROM records").fetchone()[0]
    logged = dict(connection.execute("SELECT action, sum(count) FROM log GROUP BY action").fetchall())
    expected = logged.get("add", 0) - logged.get("replace", 0) - logged.get("remove", 0)
    if count != expected:
        yield f"the gallery has {count} records, and by its log {expected}"
    removed = connection.execute("SELECT count(*) FROM removed").fetchone()[0]
    if count + removed != state.last_number:
        yield f"{count} records exist and {removed} were removed, but {state.last_number} numbers were given"


def _matrix(connection: sqlite3.Connection, derived: Derived, width: int) -> Iterator[str]:
    """Every row of the matrix equals the record's vector, and is zero where there is none."""
    state = read_state(connection)
    rows = derived.matrix.rows(state.last_number)
    expected = 0
    for number, vector in connection.execute("SELECT number, vector FROM vectors ORDER BY number"):
        if rows[expected : number - 1].any():
            yield f"{derived.matrix.file} has vectors of removed records; delete it, and it is rebuilt"
        if rows[number - 1].tobytes() != vector:
            yield f"{derived.matrix.file} is corrupt at row {number - 1}; delete it, and it is rebuilt"
        expected = number
    if rows[expected:].any():
        yield f"{derived.matrix.file} has vectors of removed records; delete it, and it is rebuilt"


def _index(connection: sqlite3.Connection, derived: Derived) -> Iterator[str]:
    """The index's files are as they were left, and its points are the gallery's records."""
    index = derived.index
    changed = index.faults()
    yield from (f"{fault}; delete {index.path}, and it is rebuilt" for fault in changed)
    if changed or not index.is_open:
        return
    points = index.vectors()
    for number, vector in connection.execute("SELECT number, vector FROM vectors"):
        point = points.pop(number, None)
        if point is None or np.abs(point - np.frombuffer(vector, "<f4")).max() > _INDEX_ROUNDING:
            yield f"{index.path} lacks record number {number}, or has another vector; delete it, and it is rebuilt"
    if points:
        yield f"{index.path} has {len(points)} records that the gallery does not have; delete it, and it is rebuilt"
