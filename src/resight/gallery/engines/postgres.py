"""`postgresql://...`: a gallery in PostgreSQL with pgvector, which many processes and machines can use at once.

A gallery is a schema of the database with three tables: `info`, `records` and `log`. A small gallery is searched
exactly. In a larger one an HNSW index over 16-bit floats finds candidates, and the float32 vectors give their order.
The index is created when the gallery has more than `exact_under` records, for vectors of at most 4,000 numbers.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from resight.errors import GalleryError
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.database import Database
from resight.gallery.identities import entry_to_text, new_assignment, require_assignable, without_records
from resight.gallery.record import (
    LABELS,
    Assignment,
    Filter,
    GalleryInfo,
    Hit,
    Record,
    images_from_text,
    images_to_text,
    read_gallery_info,
)

_CANDIDATES: Final = 256  # of HNSW
_FILTERED_CANDIDATES: Final = 1000  # of HNSW with a filter, which rejects many of them
_OVERSAMPLING: Final = 3  # times k records from the index are scored again with the float32 vectors
_MAX_INDEXED_WIDTH: Final = 4000  # pgvector's limit for an index over 16-bit floats
_PAGE: Final = 2000
_COLUMNS: Final = ("id", "vector", *LABELS, "time", "images", "thumbnail", "metadata")
_TYPES: Final = ("text", "vector", *["text"] * len(LABELS), "float8", "text", "bytea", "jsonb")
_UNSAMPLED: Final = ("id", "vector", "identity", "tracklet", "images", "thumbnail", "metadata")
"""Columns without planner statistics: samples of removed values would stay in them."""
_RECORD: Final = ", ".join(_COLUMNS)


class PostgresEngine:
    """A gallery in a schema of a database.

    Args:
        url: a connection URL of psycopg, with `?gallery=NAME` for the schema; without it the schema is `resight`.
        exact_under: searches are exact while at most this many records match the filter.

    Raises:
        GalleryError: the database cannot be reached, or has no such gallery.
        ConfigError: psycopg is not installed.
    """

    def __init__(self, url: str, exact_under: int = EXACT_UNDER) -> None:
        self.exact_under = exact_under
        self._database = Database(url)
        if not self._database.has("info"):
            schema = self._database.schema
            self.close()
            raise GalleryError(f"the database has no gallery {schema!r}; create one with resight gallery create")
        self._database.learn_vectors()
        stated: str = self._database.rows("SELECT info FROM {s}.info")[0][0]
        self._info = read_gallery_info(stated, f"the gallery {self._database.schema!r}")
        self._indexed = self._database.has("near")

    @classmethod
    def create(cls, url: str, info: GalleryInfo) -> "PostgresEngine":
        """Create an empty gallery.

        Raises:
            GalleryError: the gallery exists already, or pgvector is not available on the server.
        """
        database = Database(url)
        if database.has("info"):
            database.close()
            raise GalleryError(
                f"the database has a gallery {database.schema!r} already; use another name with ?gallery=NAME"
            )
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
        """Return whether the database has the gallery."""
        database = Database(url)
        has_info = database.has("info")
        database.close()
        return has_info

    @property
    def info(self) -> GalleryInfo:
        """The model whose embeddings the gallery stores."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """Write the records in one transaction; other processes that add records wait for it."""
        by_id = {record.id: record for record in records}  # of records with the same id the last one is stored
        if not by_id:
            return
        with self._database.transaction():
            self._database.rows("LOCK TABLE {s}.records IN SHARE ROW EXCLUSIVE MODE")
            self._database.rows("DELETE FROM {s}.records WHERE id = ANY(%s)", [list(by_id)])
            statement = f"COPY {{s}}.records ({_RECORD}) FROM STDIN (FORMAT BINARY)"
            self._database.copy(statement, _TYPES, map(_row, by_id.values()))
        if not self._indexed and self.info.width <= _MAX_INDEXED_WIDTH and not self._few(EVERYTHING):
            self._database.rows(
                f"CREATE INDEX IF NOT EXISTS near ON {{s}}.records USING hnsw ({self._half('vector')} halfvec_ip_ops) "
                "WITH (m = 16, ef_construction = 128)"
            )
            self._database.rows("ANALYZE {s}.records")
            self._indexed = True

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Search exactly, or through the index if many records match the filter."""
        condition, values = _where(where)
        candidates = f"{{s}}.records WHERE {condition}"
        if self._indexed and not self._few(where):
            nearest = f"{self._half('vector')} <#> {self._half('%(query)s')}"
            candidates = f"(SELECT id, number, vector FROM {candidates} ORDER BY {nearest} LIMIT %(more)s) near"
        statement = (
            f"SELECT id, -(vector <#> %(query)s) FROM {candidates} ORDER BY vector <#> %(query)s, number LIMIT %(k)s"
        )
        hits = list[list[Hit]]()
        with self._database.transaction():
            # With `iterative_scan` the index looks further if the filter leaves fewer than LIMIT candidates
            ef_search = _CANDIDATES if where == EVERYTHING else _FILTERED_CANDIDATES
            for name, value in (("ef_search", str(ef_search)), ("iterative_scan", "strict_order")):
                self._database.rows("SELECT set_config(%s, %s, true)", [f"hnsw.{name}", value])
            for vector in np.asarray(vectors, np.float32):
                rows = self._database.rows(statement, {**values, "query": vector, "more": _OVERSAMPLING * k, "k": k})
                hits.append([Hit(record_id, float(similarity)) for record_id, similarity in rows])
        return hits

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Read the records in one statement."""
        rows = self._database.rows(f"SELECT {_RECORD} FROM {{s}}.records WHERE id = ANY(%s)", [list(ids)])
        records = {row[0]: _record(row) for row in rows}
        return [records[record_id] for record_id in ids if record_id in records]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Read page by page, so that no cursor or transaction stays open in between."""
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
        """Count in the database."""
        condition, values = _where(where)
        return self._database.rows(f"SELECT count(*) FROM {{s}}.records WHERE {condition}", values)[0][0]

    def assign(self, ids: Sequence[str], identity: str | None, of: str | None = None) -> int:
        """Write the identity and the log in one transaction."""
        with self._database.transaction():
            query = "SELECT id, identity FROM {s}.records WHERE id = ANY(%s) OR identity = %s FOR UPDATE"
            before = require_assignable(dict(self._database.rows(query, [list(ids), of])), ids)  # pyright: ignore[reportArgumentType]
            self._set_identity(list(before), identity)
            self._log(new_assignment(identity, before))
        return len(before)

    def undo(self) -> Assignment:
        """Restore the identities, and remove the assignment from the log, in one transaction."""
        with self._database.transaction():
            rows = self._database.rows("SELECT place, entry FROM {s}.log ORDER BY place DESC LIMIT 1 FOR UPDATE")
            if not rows:
                raise GalleryError("there is no assignment to take back")
            last = Assignment(**json.loads(rows[0][1]))
            for identity in dict.fromkeys(last.before.values()):
                self._set_identity([i for i, before in last.before.items() if before == identity], identity)
            self._database.rows("DELETE FROM {s}.log WHERE place = %s", [rows[0][0]])
        return last

    def remove(self, ids: Sequence[str], identity: str | None = None) -> int:
        """Remove the records in one transaction, then rewrite the tables, so that deleted rows leave their files too.

        The server's write-ahead log and backups are not changed.
        """
        with self._database.transaction():
            query = "DELETE FROM {s}.records WHERE id = ANY(%s) OR identity = %s RETURNING id"
            removed = {row[0] for row in self._database.rows(query, [list(ids), identity])}
            for place, text in self._database.rows("SELECT place, entry FROM {s}.log"):
                entry = Assignment(**json.loads(text))
                rest = without_records(entry, removed | set(ids), identity)
                if rest is None:
                    self._database.rows("DELETE FROM {s}.log WHERE place = %s", [place])
                elif rest != entry:
                    self._database.rows("UPDATE {s}.log SET entry = %s WHERE place = %s", [entry_to_text(rest), place])
        for table in ("records", "log"):
            self._database.rows(f"VACUUM (FULL, ANALYZE) {{s}}.{table}")
        return len(removed)

    def fields(self) -> set[str]:
        """Collect the names from every record."""
        return {row[0] for row in self._database.rows("SELECT DISTINCT jsonb_object_keys(metadata) FROM {s}.records")}

    def assignments(self) -> list[Assignment]:
        """Read the table `log`."""
        rows = self._database.rows("SELECT entry FROM {s}.log ORDER BY place")
        return [Assignment(**json.loads(row[0])) for row in rows]

    def add_assignments(self, entries: Sequence[Assignment]) -> None:
        """Add rows to the table `log` in one transaction."""
        with self._database.transaction():
            for entry in entries:
                self._log(entry)

    def faults(self) -> list[str]:
        """None are known: the server checks its own pages."""
        return []

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _set_identity(self, ids: Sequence[str], identity: str | None) -> None:
        self._database.rows("UPDATE {s}.records SET identity = %s WHERE id = ANY(%s)", [identity, list(ids)])

    def _log(self, entry: Assignment) -> None:
        self._database.rows("INSERT INTO {s}.log (entry) VALUES (%s)", [entry_to_text(entry)])

    def _few(self, where: Filter) -> bool:
        """Whether at most `exact_under` records match; counts no further than that."""
        condition, values = _where(where)
        query = f"SELECT count(*) FROM (SELECT 1 FROM {{s}}.records WHERE {condition} LIMIT {self.exact_under + 1}) few"
        return self._database.rows(query, values)[0][0] <= self.exact_under

    def _half(self, expression: str) -> str:
        return f"({expression}::halfvec({int(self.info.width)}))"


def _where(where: Filter) -> tuple[str, dict[str, Any]]:
    """A filter as an SQL condition and the values of its parameters."""
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


def _row(record: Record) -> tuple[Any, ...]:
    metadata = {name: json.dumps(value) for name, value in record.metadata.items()}  # JSON text keeps 2 and 2.0 apart
    values = (images_to_text(record.images) if name == "images" else getattr(record, name) for name in _COLUMNS[2:-1])
    return (record.id, np.asarray(record.vector, np.float32), *values, metadata)


def _record(row: Sequence[Any]) -> Record:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["metadata"] = {name: json.loads(text) for name, text in values["metadata"].items()}
    values["images"] = images_from_text(values["images"])
    values["vector"] = values["vector"].to_numpy()
    return Record(**values)
