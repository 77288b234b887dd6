"""What a transaction changes in the tables of a gallery, and its lines of the log."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from resight.gallery.engines.sqlite.tables import FIELDS, Rows, checksum, read_entry, write_entry
from resight.gallery.identities import now, without_records
from resight.gallery.record import Assignment, Record

OF_IDS: Final = "id IN (SELECT value FROM json_each(?))"
ASSIGN: Final = (
    f"UPDATE records SET identity = ?, changed = ?, checksum = record_checksum({FIELDS.replace('identity', '?')}) "
    f"WHERE {OF_IDS}"
)


@dataclass
class Change:
    """What one transaction does, as its log says it."""

    generation: int
    last_number: int
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """Records, by action: a line of the log for each."""
    entry: Assignment | None = None
    """What `undo` needs, if this is an assignment."""
    erase: bool = False
    """Whether something must leave the files."""


def write_log(connection: sqlite3.Connection, change: Change) -> None:
    """Write the lines of the log."""
    at = now()
    for action, count in change.counts.items():
        if count or action in ("remove", "assign", "undo"):
            place = connection.execute("SELECT coalesce(max(place), 0) + 1 FROM log").fetchone()[0]
            row = (place, at, action, count)
            connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?)", [*row, checksum(*row)])
            if change.entry is not None:
                write_entry(connection, place, change.entry)


def insert_records(
    connection: sqlite3.Connection, records: Sequence[Record], change: Change
) -> list[tuple[int, bytes]]:
    """Insert records with different ids, in place of those that exist; return the number and vector of each."""
    replaced = numbers_of(connection, [record.id for record in records])
    delete_records(connection, replaced, change.generation)
    first = change.last_number + 1
    rows = Rows()
    for number, record in enumerate(records, first):
        rows.add(number, record, change.generation)
    for table, values in rows.of.items():
        if values:
            places = ", ".join("?" * len(values[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", values)
    change.last_number += len(records)
    change.counts = {"add": len(records), "replace": len(replaced)}
    return [(number, vector) for number, vector, _ in rows.of["vectors"]]


def remove_records(connection: sqlite3.Connection, ids: Sequence[str], identity: str | None, change: Change) -> int:
    """Delete records, or all of an identity, and their part of the log; return how many existed."""
    query = f"SELECT number, id FROM records WHERE {OF_IDS} OR identity = ?"
    removed: dict[int, str] = dict(connection.execute(query, [json.dumps(list(ids)), identity]))
    for row in connection.execute("SELECT * FROM assignments").fetchall():
        entry = read_entry(row)
        rest = without_records(entry, set(ids) | set(removed.values()), identity)
        if rest != entry:
            change.erase = True
            connection.execute("DELETE FROM assignments WHERE place = ?", [row[0]])
            if rest is not None:
                write_entry(connection, row[0], rest)
    if removed or change.erase:
        delete_records(connection, list(removed), change.generation)
        change.erase = True
        change.counts = {"remove": len(removed)}
    return len(removed)


def numbers_of(connection: sqlite3.Connection, ids: Sequence[str]) -> list[int]:
    """Return the numbers of the records that exist."""
    return [row[0] for row in connection.execute(f"SELECT number FROM records WHERE {OF_IDS}", [json.dumps(ids)])]


def delete_records(connection: sqlite3.Connection, numbers: Sequence[int], generation: int) -> None:
    """Delete the rows of records; their numbers are kept, so that derived data can follow."""
    text = json.dumps(list(numbers))
    for table in ("fields", "thumbnails", "vectors", "records"):
        connection.execute(f"DELETE FROM {table} WHERE number IN (SELECT value FROM json_each(?))", [text])
    connection.executemany("INSERT INTO removed VALUES (?, ?)", [(number, generation) for number in numbers])
