"""A schema of a PostgreSQL database, and what is asked of it."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from resight.errors import GalleryError


class Database:
    """A connection, and the schema that its statements mean by `{s}`.

    Args:
        url: as psycopg takes it, and `?gallery=NAME`, the schema; `resight` without it.

    Raises:
        GalleryError: the database cannot be reached, or psycopg is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._psycopg: Any = import_module("psycopg")
            self._pgvector: Any = import_module("pgvector.psycopg")
        except ImportError as error:
            raise GalleryError("a gallery in PostgreSQL needs psycopg: pip install 'resight[postgresql]'") from error
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.schema = asked.pop("gallery", "resight")
        plain = urlunsplit(parts._replace(query=urlencode(asked)))
        with self._said():
            self._connection: Any = self._psycopg.connect(plain, autocommit=True)

    def has(self, name: str) -> bool:
        """Whether the schema has a table or an index of that name."""
        query = (
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s"
        )
        return bool(self.rows(query, [self.schema, name]))

    def rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """What a statement gives."""
        with self._said():
            cursor = self._connection.execute(self._sql(query), values, binary=True)
            return cursor.fetchall() if cursor.description else []

    def copy(self, query: str, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Hands over rows in bulk."""
        with self._said(), self._connection.cursor().copy(self._sql(query)) as copying:
            copying.set_types(types)
            for row in rows:
                copying.write_row(row)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """What is asked within it is done whole or not at all."""
        with self._said(), self._connection.transaction():
            yield

    def learn_vectors(self) -> None:
        """Has pgvector's types read and written as such; its extension must be there."""
        with self._said():
            self._pgvector.register_vector(self._connection)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _sql(self, query: str) -> Any:
        sql = self._psycopg.sql
        return sql.SQL(query).format(s=sql.Identifier(self.schema))

    @contextmanager
    def _said(self) -> Generator[None]:
        """What PostgreSQL says, in one line, as ours."""
        try:
            yield
        except self._psycopg.Error as error:
            raise GalleryError(f"PostgreSQL says: {' '.join(str(error).split())}") from error
