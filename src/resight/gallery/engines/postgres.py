"""`postgresql://...`: a gallery in PostgreSQL with pgvector, which many processes and machines may use at once.

A gallery is a schema of the database with three tables: `info`, `records` and `log`. Few records are searched exactly;
over that an HNSW index over 16-bit floats finds candidates, which the vectors themselves put in order. The index is
made when the gallery grows to need one, for vectors of at most 4,000 numbers.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from resight.errors import GalleryError
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.database import Database
from resight.gallery.record import (
    LABELS,
    Filter,
    GalleryInfo,
    Near,
    Record,
    images_from_text,
    images_to_text,
)

_SEARCH, _FILTERED = 256, 1000  # candidates of HNSW; many of those that are met a filter does not mean
_AGAIN: Final = 3  # times k that the index finds and the vectors themselves put in order
_WIDEST: Final = 4000  # pgvector's own limit for an index over 16-bit floats
_PAGE: Final = 2000
_COLUMNS: Final = ("id", "vector", *LABELS, "time", "images", "thumbnail", "metadata")
_TYPES: Final = ("text", "vector", *["text"] * len(LABELS), "float8", "text", "bytea", "jsonb")
_UNSAMPLED: Final = ("id", "vector", "identity", "tracklet", "images", "thumbnail", "metadata")
"""Columns of which the planner keeps no samples: they would outlive what is removed."""
_RECORD: Final = ", ".join(_COLUMNS)


class PostgresEngine:
    """A gallery in a schema of a database.

    Args:
        url: as psycopg takes it, and `?gallery=NAME`, the schema; `resight` without it.
        exact_under: at most so many records are searched exactly.

    Raises:
        GalleryError: the database cannot be reached, has no such gallery, or psycopg is not installed.
    """

    def __init__(self, url: str, exact_under: int = EXACT_UNDER) -> None:
        self.exact_under = exact_under
        self._database = Database(url)
        if not self._database.has("info"):
            schema = self._database.schema
            self.close()
            raise GalleryError(f"the database has no gallery {schema!r}: make one with resight gallery create")
        self._database.learn_vectors()
        self._info: GalleryInfo = json.loads(self._database.rows("SELECT about FROM {s}.about")[0][0])
        self._indexed = self._database.has("near")

    @classmethod
    def create(cls, url: str, info: GalleryInfo) -> "PostgresEngine":
        """Makes a gallery.

        Raises:
            GalleryError: it is there already, or the database cannot have pgvector.
        """
        database = Database(url)
        if database.has("info"):
            database.close()
            raise GalleryError(f"the database has a gallery {database.schema!r} already; use ?gallery=ANOTHER")
        with database.transaction():
            database.rows("CREATE EXTENSION IF NOT EXISTS vector")
            database.rows("CREATE SCHEMA IF NOT EXISTS {s}")
            columns = ", ".join(f"{name} {kind}" for name, kind in zip(_COLUMNS[2:], _TYPES[2:], strict=True))
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
        database.close()
        return cls(url)

    @staticmethod
    def exists(url: str) -> bool:
        """Whether the database has the gallery."""
        database = Database(url)
        found = database.has("info")
        database.close()
        return found

    @property
    def info(self) -> GalleryInfo:
        """What the gallery knows of its model."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """In one transaction; others that add wait for it."""
        last = {record.id: record for record in records}  # of one id given twice the last counts
        if not last:
            return
        with self._database.transaction():
            self._database.rows("LOCK TABLE {s}.records IN SHARE ROW EXCLUSIVE MODE")
            self._database.rows("DELETE FROM {s}.records WHERE id = ANY(%s)", [list(last)])
            copying = f"COPY {{s}}.records ({_RECORD}) FROM STDIN (FORMAT BINARY)"
            self._database.copy(copying, _TYPES, map(_row, last.values()))
        if not self._indexed and self.info.width <= _WIDEST and not self._few(EVERYTHING):
            self._database.rows(
                f"CREATE INDEX IF NOT EXISTS near ON {{s}}.records USING hnsw ({self._half('vector')} halfvec_ip_ops) "
                "WITH (m = 16, ef_construction = 128)"
            )
            self._database.rows("ANALYZE {s}.records")
            self._indexed = True

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Near]]:
        """Exactly, or through the index where many records are meant."""
        condition, values = _where(where)
        held = f"{{s}}.records WHERE {condition}"
        if self._indexed and not self._few(where):
            nearest = f"{self._half('vector')} <#> {self._half('%(asked)s')}"
            held = f"(SELECT id, number, vector FROM {held} ORDER BY {nearest} LIMIT %(more)s) near"
        query = f"SELECT id, -(vector <#> %(asked)s) FROM {held} ORDER BY vector <#> %(asked)s, number LIMIT %(k)s"
        found = list[list[Near]]()
        with self._database.transaction():
            candidates = _SEARCH if where == EVERYTHING else _FILTERED  # it goes on where they are too few
            for name, value in (("ef_search", str(candidates)), ("iterative_scan", "strict_order")):
                self._database.rows("SELECT set_config(%s, %s, true)", [f"hnsw.{name}", value])
            for vector in np.asarray(vectors, np.float32):
                rows = self._database.rows(query, {**values, "asked": vector, "more": _AGAIN * k, "k": k})
                found.append([Near(i, float(similarity)) for i, similarity in rows])
        return found

    def get(self, ids: Sequence[str]) -> list[Record]:
        """By their ids."""
        rows = self._database.rows(f"SELECT {_RECORD} FROM {{s}}.records WHERE id = ANY(%s)", [list(ids)])
        held = {row[0]: _record(row) for row in rows}
        return [held[i] for i in ids if i in held]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Page by page, so that nothing is held open in between."""
        condition, values = _where(where)
        query = (
            f"SELECT {_RECORD}, number FROM {{s}}.records WHERE number > %(last)s AND {condition} "
            f"ORDER BY number LIMIT {_PAGE}"
        )
        last = -1
        while rows := self._database.rows(query, {**values, "last": last}):
            last = rows[-1][-1]
            yield from (_record(row[:-1]) for row in rows)

    def count(self, where: Filter = EVERYTHING) -> int:
        """By the database."""
        condition, values = _where(where)
        return self._database.rows(f"SELECT count(*) FROM {{s}}.records WHERE {condition}", values)[0][0]

    def name(self, ids: Sequence[str], identity: str | None) -> None:
        """In one statement."""
        self._database.rows("UPDATE {s}.records SET identity = %s WHERE id = ANY(%s)", [identity, list(ids)])

    def delete(self, ids: Sequence[str]) -> int:
        """And writes tables and indexes anew, so that what is gone leaves their files too. The server's write-ahead
        log and its backups are not ours to change."""
        gone = self._database.rows("DELETE FROM {s}.records WHERE id = ANY(%s) RETURNING 1", [list(ids)])
        for table in ("records", "log"):
            self._database.rows(f"VACUUM (FULL, ANALYZE) {{s}}.{table}")
        return len(gone)

    def fields(self) -> set[str]:
        """From every record."""
        return {row[0] for row in self._database.rows("SELECT DISTINCT jsonb_object_keys(metadata) FROM {s}.records")}

    def read_log(self) -> list[dict[str, Any]]:
        """From the table `log`."""
        return [json.loads(row[0]) for row in self._database.rows("SELECT entry FROM {s}.log ORDER BY place")]

    def write_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """In one transaction."""
        with self._database.transaction():
            self._database.rows("DELETE FROM {s}.log")
            for entry in entries:
                self._database.rows("INSERT INTO {s}.log (entry) VALUES (%s)", [json.dumps(entry)])

    def close(self) -> None:
        """Ends the connection."""
        self._database.close()

    def _few(self, where: Filter) -> bool:
        """Whether so few are meant that they are searched exactly; counts no further than that."""
        condition, values = _where(where)
        query = f"SELECT count(*) FROM (SELECT 1 FROM {{s}}.records WHERE {condition} LIMIT {self.exact_under + 1}) few"
        return self._database.rows(query, values)[0][0] <= self.exact_under

    def _half(self, what: str) -> str:
        return f"({what}::halfvec({int(self.info.width)}))"


def _where(where: Filter) -> tuple[str, dict[str, Any]]:
    said, values = ["true"], dict[str, Any]()
    for name in LABELS:
        if wanted := getattr(where, name):
            said.append(f"{name} = ANY(%({name})s)")
            values[name] = list(wanted)
    for name, sign in (("after", ">="), ("before", "<")):
        if (moment := getattr(where, name)) is not None:
            said.append(f"time {sign} %({name})s")
            values[name] = moment
    if where.metadata:
        said.append("metadata @> %(metadata)s::jsonb")
        values["metadata"] = json.dumps({name: json.dumps(value) for name, value in where.metadata.items()})
    return " AND ".join(said), values


def _row(record: Record) -> tuple[Any, ...]:
    held = {name: json.dumps(value) for name, value in record.metadata.items()}  # JSON in JSON: 2 is not 2.0
    plain = (images_to_text(record.images) if name == "images" else getattr(record, name) for name in _COLUMNS[2:-1])
    return (record.id, np.asarray(record.vector, np.float32), *plain, held)


def _record(row: Sequence[Any]) -> Record:
    held = dict(zip(_COLUMNS, row, strict=True))
    held["metadata"] = {name: json.loads(text) for name, text in held["metadata"].items()}
    held["images"] = images_from_text(held["images"])
    return Record(**{**held, "vector": held["vector"].to_numpy()})
