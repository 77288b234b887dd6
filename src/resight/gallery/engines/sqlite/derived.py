"""Derived data of a gallery, matrix and index: kept in step with the database, and searched."""

import json
import sqlite3
from pathlib import Path
from typing import Final

import numpy as np

from resight.errors import GalleryError, StorageError
from resight.gallery.engines.contract import EVERYTHING
from resight.gallery.engines.sqlite.connection import Connection
from resight.gallery.engines.sqlite.index import Index, Row
from resight.gallery.engines.sqlite.matrix import MATRIX, Matrix
from resight.gallery.engines.sqlite.state import State, read_state
from resight.gallery.engines.sqlite.tables import LABEL_COLUMNS, conditions
from resight.gallery.record import LABELS, Filter

_FEW_MATCHES: Final = 2000  # a product with so few records is as fast as the index
_MAX_FILTERS: Final = 16  # whose matches are kept; of a million records they take 8 MB each
_AHEAD: Final = (
    "{file} is newer than gallery.sqlite, which was replaced by an older copy: delete {file}, and it is rebuilt"
)


class Derived:
    """Matrix and index of a gallery, and what this process knows of its records.

    Args:
        folder: of the gallery.
        place: of the matrix; another folder where that of the gallery cannot be written.
        width: numbers of a vector.
        gallery_id: of the gallery.
        indexed: whether an index is used.
        exact_under: no index is built while the gallery has at most this many records.
    """

    def __init__(self, folder: Path, place: Path, width: int, gallery_id: str, indexed: bool, exact_under: int) -> None:
        self.folder = folder
        self.matrix = Matrix(folder / MATRIX, width, gallery_id)
        self.index = Index(folder, width, gallery_id)
        self._private_matrix = None if place == folder else Matrix(place / MATRIX, width, gallery_id)
        self._indexed = indexed and place == folder
        self._exact_under = exact_under
        self._generation = -1
        self._last_number = 0
        self._alive = np.zeros(0, bool)  # of each row of the matrix, whether its record exists
        self._rows = np.zeros(0, np.int64)  # those rows
        self._matches: dict[str, np.ndarray] = {}  # rows by filter, of this generation

    def catch_up(self, database: Connection) -> None:
        """Bring matrix and index up to the database, or build them again.

        Raises:
            GalleryError: they are newer than the database.
        """
        with database.transaction() as connection:
            state = read_state(connection)
            current = self.matrix.generation()
        if current is not None and current[0] > state.generation:
            raise GalleryError(_AHEAD.format(file=self.matrix.file))
        if current is None or current[0] < state.generation:
            if self._private_matrix is not None:
                self.matrix = self._private_matrix
                with database.transaction() as connection:
                    self._fill_matrix(connection)
            else:
                with database.transaction(write=True) as connection:
                    self._fill_matrix(connection)
        if self._indexed:
            with database.transaction() as connection:
                self._refresh(connection)
                self._catch_up_index(connection)

    def purge_index(self, connection: sqlite3.Connection) -> bool:
        """Remove from the index what was removed from the gallery; False where another process has the index."""
        if not self.index.path.exists():
            return True
        state = read_state(connection)
        if not self.index.is_open:
            stated = self.index.read_state()
            if stated is not None and stated["generation"] >= state.generation:
                return True
            if not self.index.open():
                return False
        self._follow(connection, state)
        if not self._indexed:
            self.index.close()
        return True

    def nearest(
        self, connection: sqlite3.Connection, queries: np.ndarray, k: int, where: Filter
    ) -> list[list[tuple[float, int]]]:
        """For each query similarity and number of its k nearest records that match."""
        rows = self.matching(connection, where)
        total = len(self._rows)
        few = where != EVERYTHING and len(rows) <= min(_FEW_MATCHES, self._exact_under)
        if total > self._exact_under and not few and self.index.is_open:
            self._catch_up_index(connection)
            return self.index.nearest(queries, k, where, total)
        return self.matrix.nearest(queries, rows, self._last_number, k)

    def matching(self, connection: sqlite3.Connection, where: Filter) -> np.ndarray:
        """The rows of the records that match, int64, ascending; a row is the record's number less one."""
        self._refresh(connection)
        if where == EVERYTHING:
            return self._rows
        condition, values = conditions(where)
        key = json.dumps([condition, values])
        if key not in self._matches:
            if len(self._matches) == _MAX_FILTERS:
                self._matches.clear()
            numbers = connection.execute(f"SELECT r.number FROM records r WHERE {condition}", values).fetchall()
            self._matches[key] = np.sort(np.array(numbers, np.int64).reshape(-1)) - 1
        return self._matches[key]

    def delete(self) -> None:
        """Delete every derived file; they are built again when the gallery is next opened or changed."""
        self.matrix.close()
        self.matrix.file.unlink(missing_ok=True)
        if self.index.is_open or (self.index.path.exists() and self.index.open()):
            self.index.delete()

    def close(self) -> None:
        """Let another process have the index."""
        self.matrix.close()
        self.index.close()

    def _fill_matrix(self, connection: sqlite3.Connection) -> None:
        """Write what the matrix lacks; the caller's transaction keeps others from writing."""
        state = read_state(connection)
        current = self.matrix.generation()
        if current is None:
            everything = connection.execute("SELECT number, vector FROM vectors ORDER BY number")
            self.matrix.rebuild(everything, state.generation, state.last_number)
        elif current[0] < state.generation:
            generation, last = current
            query = "SELECT number, vector FROM vectors WHERE number > ? ORDER BY number"
            if last < state.last_number:
                self.matrix.put(connection.execute(query, [last]))
            removed = connection.execute("SELECT number FROM removed WHERE generation > ?", [generation])
            self.matrix.zero([row[0] for row in removed])
            self.matrix.follow(state.generation, state.last_number)

    def _catch_up_index(self, connection: sqlite3.Connection) -> None:
        large = len(self._rows) > self._exact_under or self.index.path.exists()
        if not large or (not self.index.is_open and not self.index.open()):
            return
        state = read_state(connection)
        if self.index.generation > state.generation:
            self.index.close()
            raise GalleryError(_AHEAD.format(file=self.index.path))
        if self.index.generation < state.generation:
            self._follow(connection, state)

    def _follow(self, connection: sqlite3.Connection, state: State) -> None:
        self._refresh(connection)
        before = self.index.generation
        query = (
            f"SELECT r.number, v.vector, {LABEL_COLUMNS}, r.time, r.metadata FROM records r JOIN vectors v "
            "USING (number) WHERE r.changed > ? ORDER BY r.number"
        )
        changed: list[Row] | map[Row] = map(_index_row, connection.execute(query, [before]))
        removed = connection.execute("SELECT number FROM removed WHERE generation > ?", [before])
        try:
            self.index.follow(changed, [row[0] for row in removed], state.generation, len(self._rows))
        except Exception as error:
            self.index.close(store_checksums=False)
            raise StorageError(
                f"the gallery is stored, but {self.index.path} cannot be brought up to date ({error}); searches are "
                "exact until the gallery is opened again"
            ) from error

    def _refresh(self, connection: sqlite3.Connection) -> None:
        """Learn which records exist, if a transaction has changed that since."""
        state = read_state(connection)
        if state.generation == self._generation:
            return
        if state.generation < self._generation:
            raise GalleryError(f"{self.folder} was replaced while it is open; open it again")
        # Every number up to the last one was given to a record, and `removed` has those of the records that are gone:
        # the table of records need not be read.
        removed = connection.execute("SELECT number FROM removed WHERE generation > ?", [self._generation]).fetchall()
        alive = np.ones(state.last_number, bool)
        alive[: len(self._alive)] = self._alive
        alive[np.array(removed, np.int64).reshape(-1) - 1] = False
        self._alive = alive
        self._rows = np.flatnonzero(alive)
        self._matches.clear()
        self._generation = state.generation
        self._last_number = state.last_number


def _index_row(row: tuple[object, ...]) -> Row:
    number, vector, *labels, time, metadata = row
    return int(str(number)), vector, tuple(labels[: len(LABELS)]), time, json.loads(str(metadata))  # pyright: ignore[reportReturnType]
