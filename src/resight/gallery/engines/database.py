"""A connection to one schema of a PostgreSQL database."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from resight.errors import GalleryError, require_extra


class Database:
    """A connection to a database and the name of one schema, which statements write as `{s}`.

    Args:
        url: a connection URL of psycopg, with `?gallery=NAME` for the schema; without it the schema is `resight`.

    Raises:
        GalleryError: the database cannot be reached.
        ConfigError: psycopg is not installed.
    """

    def __init__(self, url: str) -> None:
        self._psycopg = require_extra("psycopg", "postgresql")
        self._pgvector = require_extra("pgvector.psycopg", "postgresql")
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.schema = parameters.pop("gallery", "resight")
        plain = urlunsplit(parts._replace(query=urlencode(parameters)))
        with self._translated_errors():
            self._connection: Any = self._psycopg.connect(plain, autocommit=True)

    def has(self, name: str) -> bool:
        """Return whether the schema has a table or an index of that name."""
        query = (
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s"
        )
        return bool(self.rows(query, [self.schema, name]))

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; none for a statement that returns no rows."""
        with self._translated_errors():
            cursor = self._connection.execute(self._sql(query), values, binary=True)
            return cursor.fetchall() if cursor.description else []

    def copy(self, query: str, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Write rows with a binary COPY statement.

        Args:
            query: the COPY statement.
            types: the PostgreSQL type of each column.
            rows: a value for each column.
        """
        with self._translated_errors(), self._connection.cursor().copy(self._sql(query)) as copying:
            copying.set_types(types)
            for row in rows:
                copying.write_row(row)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Run the statements of the block in one transaction: all take effect, or none."""
        with self._translated_errors(), self._connection.transaction():
            yield

    def learn_vectors(self) -> None:
        """Register pgvector's types on the connection; the extension must be installed in the database."""
        with self._translated_errors():
            self._pgvector.register_vector(self._connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _sql(self, query: str) -> Any:
        sql = self._psycopg.sql
        return sql.SQL(query).format(s=sql.Identifier(self.schema))

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        """Raise PostgreSQL's errors as a `GalleryError` with one line of text."""
        try:
            yield
        except self._psycopg.Error as error:
            raise GalleryError(f"PostgreSQL says: {' '.join(str(error).split())}") from error
