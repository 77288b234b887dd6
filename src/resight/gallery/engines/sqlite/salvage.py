"""Copy what is whole of a corrupt gallery to a new one."""

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from resight.errors import GalleryError
from resight.gallery.engines.sqlite.connection import DATABASE
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.engines.sqlite.state import read_state
from resight.gallery.engines.sqlite.tables import FIELDS, read_entry, to_record
from resight.gallery.identities import without_records
from resight.gallery.record import Assignment, Record, read_gallery_info

_BATCH: Final = 2000


@dataclass
class RepairReport:
    """What `repair` copied, and what it could not."""

    copied: int = 0
    """Records."""
    lost: list[str] = field(default_factory=list[str])
    """What is not whole, a sentence each."""


def repair(folder: Path, to: Path) -> RepairReport:
    """Copy every record whose checksum matches, and the assignments, to a new gallery; the corrupt one is not changed.

    Args:
        folder: of the corrupt gallery.
        to: a folder that does not exist or is empty.

    Raises:
        GalleryError: there is no gallery, its description is corrupt, or the other folder is not empty.
    """
    if not (folder / DATABASE).is_file():
        raise GalleryError(f"{folder} is no gallery: it has no {DATABASE}")
    report = RepairReport()
    with TemporaryDirectory(prefix="resight-repair-") as scratch:
        for name in (DATABASE, f"{DATABASE}-wal"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, Path(scratch) / name)
        connection = sqlite3.connect(Path(scratch) / DATABASE, isolation_level=None)
        try:
            state = read_state(connection)
            info = read_gallery_info(state.info, str(folder / DATABASE))
        except (sqlite3.Error, UnicodeDecodeError, GalleryError) as error:
            connection.close()
            raise GalleryError(
                f"{folder / DATABASE} cannot be repaired: what it says of its model is corrupt ({error}); restore it "
                "from a copy"
            ) from error
        SQLiteEngine.create(to, info)
        engine = SQLiteEngine(to, indexed=False)
        try:
            copied = set[str]()
            records = _records(connection, state.last_number, info.width, report)
            while batch := list(islice(records, _BATCH)):
                engine.add(batch)
                copied |= {record.id for record in batch}
            report.copied = engine.count()
            entries = (without_records(e, e.before.keys() - copied, None) for e in _assignments(connection, report))
            engine.add_assignments([entry for entry in entries if entry is not None])
        finally:
            engine.close()
            connection.close()
    return report


def _records(connection: sqlite3.Connection, last: int, width: int, report: RepairReport) -> Iterator[Record]:
    """Every whole record, in order; numbers that were removed are passed over."""
    removed = {
        row[0] for row in _rows(connection, "SELECT number FROM removed", [], report, "the list of removed numbers")
    }
    for number in range(1, last + 1):
        if number in removed:
            continue
        name = f"record number {number}"
        lost_before = len(report.lost)
        fields = _rows(connection, f"SELECT {FIELDS}, checksum FROM records WHERE number = ?", [number], report, name)
        vector = _rows(connection, "SELECT vector, checksum FROM vectors WHERE number = ?", [number], report, name)
        if len(fields) + len(vector) < 2 and len(report.lost) == lost_before:
            report.lost.append(f"{name} has lost a part" if fields or vector else f"{name} is missing")
        jpeg = _rows(connection, "SELECT jpeg, checksum FROM thumbnails WHERE number = ?", [number], report, name)
        if not fields or not vector:
            continue
        try:
            yield to_record((*fields[0], *vector[0], *(jpeg[0] if jpeg else (None, None))), width)
        except GalleryError as error:
            report.lost.append(f"{name}: {str(error).partition(';')[0]}")


def _assignments(connection: sqlite3.Connection, report: RepairReport) -> list[Assignment]:
    entries = list[Assignment]()
    for row in _rows(connection, "SELECT * FROM assignments ORDER BY place", [], report, "the log of assignments"):
        try:
            entries.append(read_entry(row))
        except GalleryError as error:
            report.lost.append(str(error))
    return entries


def _rows(
    connection: sqlite3.Connection, query: str, values: list[Any], report: RepairReport, name: str
) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query, values).fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        report.lost.append(f"{name} cannot be read: {error}")
        return []
