"""A connection to one schema of a PostgreSQL database."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlunsplit

from resight.errors import GalleryError, require_extra
from resight.gallery.engines.server_url import shown_url, split_url

_FORM: Final = "postgresql://USER@HOST/DATABASE?gallery=NAME"
_GALLERY: Final = "gallery="
_MAX_NAME: Final = 63  # bytes; PostgreSQL cuts longer names, so that two of them could be one


class Database:
    """A connection to a database and the name of one schema, which statements write as `{s}`.

    Args:
        url: a connection URL of psycopg, with `?gallery=NAME` for the schema; without it the schema is `resight`.

    Raises:
        GalleryError: the URL is not valid, the name cannot be that of a schema, or the database cannot be reached.
        ConfigError: psycopg is not installed.
    """

    def __init__(self, url: str) -> None:
        self._psycopg = require_extra("psycopg", "postgresql")
        self._pgvector = require_extra("pgvector.psycopg", "postgresql")
        parts = split_url(url, _FORM)
        parameters = [parameter for parameter in parts.query.split("&") if parameter]
        names = [unquote(text.removeprefix(_GALLERY)) for text in parameters if text.startswith(_GALLERY)]
        self.schema = _schema_name(names[-1] if names else "resight")
        others = "&".join(parameter for parameter in parameters if not parameter.startswith(_GALLERY))
        plain = urlunsplit(parts._replace(query=others))
        try:
            self._psycopg.conninfo.conninfo_to_dict(plain)
        except self._psycopg.Error:  # whose text may repeat the password
            raise GalleryError(f"{shown_url(url)} is no URL that PostgreSQL's client library can read") from None
        with self._translated_errors():
            self._connection: Any = self._psycopg.connect(plain, autocommit=True)

    def has(self, name: str) -> bool:
        """Return whether the schema has a table or an index of that name."""
        query = (
            "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s"
        )
        return bool(self.rows(query, [self.schema, name]))

    def rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; none for a statement that returns no rows."""
        with self._translated_errors():
            statement = self._sql(query, self.schema.replace("%", "%%"))  # of which psycopg makes % again
            cursor = self._connection.execute(statement, values, binary=True)
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

    def _sql(self, query: str, schema: str | None = None) -> Any:
        sql = self._psycopg.sql
        return sql.SQL(query).format(s=sql.Identifier(schema or self.schema))

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        """Raise PostgreSQL's errors as a `GalleryError` with one line of text."""
        try:
            yield
        except self._psycopg.Error as error:
            raise GalleryError(f"PostgreSQL says: {' '.join(str(error).split())}") from error


def _schema_name(name: str) -> str:
    """Return the name if PostgreSQL can store it unchanged."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _MAX_NAME or "\0" in name or "\ufffd" in name:
        raise GalleryError(
            f"a gallery in PostgreSQL cannot have the name {name!r}: a name has 1 to {_MAX_NAME} bytes of UTF-8, "
            "without NUL"
        )
    return name
