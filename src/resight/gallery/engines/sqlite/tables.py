"""The tables of `gallery.sqlite`, and what stands in their rows."""

import json
import sqlite3
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from resight.errors import GalleryError
from resight.gallery.identities import entry_to_text
from resight.gallery.record import LABELS, Assignment, Filter, Record, images_from_text, images_to_text

APPLICATION: Final = 0x52455347  # "RESG"
FORMAT: Final = 3
LABEL_COLUMNS: Final = ", ".join(LABELS)
FIELDS: Final = f"number, id, {LABEL_COLUMNS}, time, images, metadata"
"""The columns of a record that its checksum covers."""
RECORD_COLUMNS: Final = ", ".join(f"r.{name.strip()}" for name in FIELDS.split(","))
RECORD: Final = f"{RECORD_COLUMNS}, r.checksum, v.vector, v.checksum, t.jpeg, t.checksum"
RECORDS: Final = "records r LEFT JOIN vectors v USING (number) LEFT JOIN thumbnails t USING (number)"
SCHEMA: Final = f"""
CREATE TABLE info (
    one INTEGER PRIMARY KEY CHECK (one = 1), gallery_id TEXT NOT NULL, info TEXT NOT NULL, generation INTEGER NOT NULL,
    last_number INTEGER NOT NULL, erasure_pending INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE records (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, {", ".join(f"{name} TEXT" for name in LABELS)}, time REAL,
    images TEXT NOT NULL, metadata TEXT NOT NULL, checksum INTEGER NOT NULL, changed INTEGER NOT NULL
);
CREATE TABLE vectors (number INTEGER PRIMARY KEY REFERENCES records, vector BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE thumbnails (number INTEGER PRIMARY KEY REFERENCES records, jpeg BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE fields (number INTEGER NOT NULL REFERENCES records, name TEXT NOT NULL, value TEXT NOT NULL);
CREATE TABLE removed (number INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE log (
    place INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, count INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE assignments (
    place INTEGER PRIMARY KEY REFERENCES log, entry TEXT NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX records_changed ON records (changed);
CREATE INDEX records_identity ON records (identity) WHERE identity IS NOT NULL;
CREATE INDEX records_camera ON records (camera, time) WHERE camera IS NOT NULL;
CREATE INDEX records_modality ON records (modality) WHERE modality IS NOT NULL;
CREATE INDEX records_tracklet ON records (tracklet) WHERE tracklet IS NOT NULL;
CREATE INDEX records_time ON records (time) WHERE time IS NOT NULL;
CREATE INDEX fields_name ON fields (name, value, number);
CREATE INDEX fields_number ON fields (number);
CREATE INDEX removed_generation ON removed (generation);
"""
"""`removed` keeps the numbers of removed records, and nothing else of them, so that derived data can follow. `log` has
neither ids nor names; what `undo` needs of an assignment is in `assignments`, and leaves it with the records."""


def checksum(*values: Any) -> int:
    """Return the CRC-32 of some columns, which are texts, numbers or NULL."""
    texts = [value if value.__class__ is str else "\0" if value is None else str(value) for value in values]
    text = "\x1f".join(texts)
    return zlib.crc32(text.encode(errors="surrogatepass"))


def blob_checksum(number: int, data: bytes) -> int:
    """Return the CRC-32 of the bytes that belong to a record."""
    return zlib.crc32(data, number & 0xFFFFFFFF)


def value_text(value: Any) -> str:
    """Return a value of metadata as JSON, which keeps 2, 2.0 and true apart."""
    return repr(value) if value.__class__ is int else json.dumps(value)  # the encoder takes 5 us for a number


class Rows:
    """The rows of records, by table."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[Any, ...]]] = {"records": [], "vectors": [], "thumbnails": [], "fields": []}

    def add(self, number: int, record: Record, generation: int) -> None:
        """Add the rows of one record."""
        vector = np.ascontiguousarray(record.vector, "<f4").tobytes()
        time = None if record.time is None else float(record.time)
        metadata = "{}"
        if record.metadata:
            values = [(name, value_text(value)) for name, value in record.metadata.items()]
            metadata = "{" + ", ".join([f"{_quoted(name)}: {text}" for name, text in values]) + "}"
            self.of["fields"] += [(number, name, text) for name, text in values]
        fields = (
            number, record.id, record.identity, record.camera, record.modality, record.tracklet, time,
            images_to_text(record.images), metadata,
        )  # fmt: skip
        self.of["records"].append((*fields, checksum(*fields), generation))
        self.of["vectors"].append((number, vector, blob_checksum(number, vector)))
        if record.thumbnail is not None:
            jpeg = record.thumbnail
            self.of["thumbnails"].append((number, jpeg, blob_checksum(number, jpeg)))


@lru_cache(1024)
def _quoted(name: str) -> str:
    return json.dumps(name)


def to_record(row: Sequence[Any], width: int) -> Record:
    """Convert a row of the columns RECORD to a record.

    Raises:
        GalleryError: a checksum does not match.
    """
    number = row[0]
    *fields, stated, vector, vector_stated, jpeg, jpeg_stated = row
    intact = (
        checksum(*fields) == stated
        and isinstance(vector, bytes)
        and len(vector) == 4 * width
        and blob_checksum(number, vector) == vector_stated
        and (jpeg_stated is None or (isinstance(jpeg, bytes) and blob_checksum(number, jpeg) == jpeg_stated))
    )
    if not intact:
        raise GalleryError(
            f"record {row[1]!r} is corrupt: its checksum does not match; resight gallery repair copies the records "
            "that are whole to a new gallery"
        )
    _, record_id, identity, camera, modality, tracklet, time, images, metadata = fields
    return Record(
        record_id, np.frombuffer(vector, "<f4").copy(), identity, camera, modality, tracklet, time,
        images_from_text(images), jpeg, json.loads(metadata) if metadata != "{}" else {},
    )  # fmt: skip


def conditions(where: Filter) -> tuple[str, list[Any]]:
    """A filter as an SQL condition on `records r`, and the values of its parameters."""
    parts = ["1"]
    values = list[Any]()
    for name in LABELS:
        if labels := getattr(where, name):
            parts.append(f"r.{name} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(labels)))
    for operator, seconds in ((">=", where.after), ("<", where.before)):
        if seconds is not None:
            parts.append(f"r.time {operator} ?")
            values.append(float(seconds))
    for name, value in where.metadata.items():
        parts.append("r.number IN (SELECT number FROM fields WHERE name = ? AND value = ?)")
        values += [name, value_text(value)]
    return " AND ".join(parts), values


def write_entry(connection: sqlite3.Connection, place: int, entry: Assignment) -> None:
    """Store what is needed to undo the assignment of a log row; an entry that exists is replaced."""
    text = entry_to_text(entry)
    connection.execute("INSERT OR REPLACE INTO assignments VALUES (?, ?, ?)", [place, text, checksum(place, text)])


def read_entry(row: Sequence[Any]) -> Assignment:
    """Read a row of `assignments`.

    Raises:
        GalleryError: its checksum does not match.
    """
    if checksum(row[0], row[1]) != row[2]:
        raise GalleryError(f"the log of assignments is corrupt at place {row[0]}: its checksum does not match")
    return Assignment(**json.loads(row[1]))
