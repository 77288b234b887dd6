"""The tables of a gallery in PostgreSQL, their rows, and filters as conditions on them; `{s}` stands for the schema."""

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from resight.gallery.engines.database import Database
from resight.gallery.record import LABELS, Filter, GalleryInfo, Record, images_from_text, images_to_text

_COLUMNS: Final = ("id", "vector", *LABELS, "time", "images", "thumbnail", "metadata")
TYPES: Final = ("text", "vector", *["text"] * len(LABELS), "float8", "text", "bytea", "jsonb")
"""The type of each column of a record."""
RECORD: Final = ", ".join(_COLUMNS)
"""The columns of a record."""
_UNSAMPLED: Final = ("id", "vector", "identity", "tracklet", "images", "thumbnail", "metadata")
"""Columns without planner statistics: samples of removed values would stay in them."""


def create_tables(database: Database, info: GalleryInfo) -> None:
    """Create the schema of an empty gallery in one transaction."""
    with database.transaction():
        database.rows("CREATE EXTENSION IF NOT EXISTS vector")
        database.rows("CREATE SCHEMA IF NOT EXISTS {s}")
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(_COLUMNS[2:], TYPES[2:], strict=True))
        database.rows(
            "CREATE TABLE {s}.records (number bigserial PRIMARY KEY, id text UNIQUE NOT NULL, "
            f"vector vector({int(info.width)}) NOT NULL, {columns})"
        )
        for name in (*LABELS, "time"):
            database.rows(f"CREATE INDEX ON {{s}}.records ({name})")
        database.rows("CREATE INDEX ON {s}.records USING gin (metadata jsonb_path_ops)")
        database.rows("CREATE TABLE {s}.log (place bigserial PRIMARY KEY, entry text NOT NULL)")
        for table, column in (*(("records", name) for name in _UNSAMPLED), ("log", "entry")):
            database.rows(f"ALTER TABLE {{s}}.{table} ALTER COLUMN {column} SET STATISTICS 0")
        database.rows("CREATE TABLE {s}.info (info text NOT NULL)")
        database.rows("INSERT INTO {s}.info VALUES (%s)", [info.model_dump_json()])


def condition_of(where: Filter) -> tuple[str, dict[str, Any]]:
    """Return a filter as an SQL condition and the values of its parameters."""
    conditions = ["true"]
    values = dict[str, Any]()
    for name in LABELS:
        if labels := getattr(where, name):
            conditions.append(f"{name} = ANY(%({name})s)")
            values[name] = list(labels)
    for name, operator in (("after", ">="), ("before", "<")):
        if (seconds := getattr(where, name)) is not None:
            conditions.append(f"time {operator} %({name})s")
            values[name] = seconds
    if where.metadata:
        conditions.append("metadata @> %(metadata)s::jsonb")
        values["metadata"] = json.dumps({name: json.dumps(value) for name, value in where.metadata.items()})
    return " AND ".join(conditions), values


def row_of(record: Record) -> tuple[Any, ...]:
    """Convert a record to a row of the columns RECORD."""
    metadata = {name: json.dumps(value) for name, value in record.metadata.items()}  # JSON text keeps 2 and 2.0 apart
    values = (images_to_text(record.images) if name == "images" else getattr(record, name) for name in _COLUMNS[2:-1])
    return (record.id, np.asarray(record.vector, np.float32), *values, metadata)


def record_of(row: Sequence[Any]) -> Record:
    """Convert a row of the columns RECORD to a record."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values["metadata"] = {name: json.loads(text) for name, text in values["metadata"].items()}
    values["images"] = images_from_text(values["images"])
    values["vector"] = values["vector"].to_numpy()
    return Record(**values)
