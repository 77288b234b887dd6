"""`postgresql://...`: a gallery in PostgreSQL with pgvector, which many processes and machines can use at once.

A gallery is a schema of the database with three tables: `info`, `records` and `log`. A small gallery is searched
exactly. In a larger one an HNSW index over 16-bit floats finds candidates, and the float32 vectors give their order.
The index is created when the gallery has more than `exact_under` records, for vectors of at most 4,000 numbers.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np

from resight.errors import GalleryError
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.database import Database
from resight.gallery.engines.postgres_tables import RECORD, TYPES, condition_of, create_tables, record_of, row_of
from resight.gallery.identities import entry_to_text, new_assignment, require_assignable, without_records
from resight.gallery.record import Assignment, Filter, GalleryInfo, Hit, Record, read_gallery_info

_CANDIDATES: Final = 256  # of HNSW
_FILTERED_CANDIDATES: Final = 1000  # of HNSW with a filter, which rejects many of them
_OVERSAMPLING: Final = 3  # times k records from the index are scored again with the float32 vectors
_MAX_INDEXED_WIDTH: Final = 4000  # pgvector's limit for an index over 16-bit floats
_PAGE: Final = 2000


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
        try:
            self._info = self._read_info()
            self._database.learn_vectors()
            self._indexed = self._database.has("near")
        except Exception:
            self.close()
            raise

    @classmethod
    def create(cls, url: str, info: GalleryInfo) -> "PostgresEngine":
        """Create an empty gallery.

        Raises:
            GalleryError: the gallery exists already, or pgvector is not available on the server.
        """
        with closing(Database(url)) as database:
            if database.has("info"):
                raise GalleryError(
                    f"the database has a gallery {database.schema!r} already; use another name with ?gallery=NAME"
                )
            create_tables(database, info)
        return cls(url)

    @staticmethod
    def exists(url: str) -> bool:
        """Return whether the database has the gallery."""
        with closing(Database(url)) as database:
            return database.has("info")

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
            statement = f"COPY {{s}}.records ({RECORD}) FROM STDIN (FORMAT BINARY)"
            self._database.copy(statement, TYPES, map(row_of, by_id.values()))
        if not self._indexed and self.info.width <= _MAX_INDEXED_WIDTH and not self._few(EVERYTHING):
            self._database.rows(
                f"CREATE INDEX IF NOT EXISTS near ON {{s}}.records USING hnsw ({self._half('vector')} halfvec_ip_ops) "
                "WITH (m = 16, ef_construction = 128)"
            )
            self._database.rows("ANALYZE {s}.records")
            self._indexed = True

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Search exactly, or through the index if many records match the filter."""
        condition, values = condition_of(where)
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
        rows = self._database.rows(f"SELECT {RECORD} FROM {{s}}.records WHERE id = ANY(%s)", [list(ids)])
        records = {row[0]: record_of(row) for row in rows}
        return [records[record_id] for record_id in ids if record_id in records]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Read page by page, so that no cursor or transaction stays open in between."""
        condition, values = condition_of(where)
        query = (
            f"SELECT {RECORD}, number FROM {{s}}.records WHERE number > %(last)s AND {condition} "
            f"ORDER BY number LIMIT {_PAGE}"
        )
        last = -1
        while rows := self._database.rows(query, {**values, "last": last}):
            last = rows[-1][-1]
            yield from (record_of(row[:-1]) for row in rows)

    def count(self, where: Filter = EVERYTHING) -> int:
        """Count in the database."""
        condition, values = condition_of(where)
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

        Raises:
            GalleryError: the server cannot be reached, or the records are removed but the tables are not rewritten.
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
        try:
            for table in ("records", "log"):
                self._database.rows(f"VACUUM (FULL, ANALYZE) {{s}}.{table}")
        except GalleryError as error:
            raise GalleryError(
                f"the records are removed, but their erasure from the server's files is pending ({error}): remove them "
                "again, which completes it"
            ) from error
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

    def _read_info(self) -> GalleryInfo:
        name = self._database.schema
        if not self._database.has("info"):
            raise GalleryError(f"the database has no gallery {name!r}; create one with resight gallery create")
        stated: str = self._database.rows("SELECT info FROM {s}.info")[0][0]
        return read_gallery_info(stated, f"the gallery {name!r}")

    def _set_identity(self, ids: Sequence[str], identity: str | None) -> None:
        self._database.rows("UPDATE {s}.records SET identity = %s WHERE id = ANY(%s)", [identity, list(ids)])

    def _log(self, entry: Assignment) -> None:
        self._database.rows("INSERT INTO {s}.log (entry) VALUES (%s)", [entry_to_text(entry)])

    def _few(self, where: Filter) -> bool:
        """Whether at most `exact_under` records match; counts no further than that."""
        condition, values = condition_of(where)
        query = f"SELECT count(*) FROM (SELECT 1 FROM {{s}}.records WHERE {condition} LIMIT {self.exact_under + 1}) few"
        return self._database.rows(query, values)[0][0] <= self.exact_under

    def _half(self, expression: str) -> str:
        return f"({expression}::halfvec({int(self.info.width)}))"
