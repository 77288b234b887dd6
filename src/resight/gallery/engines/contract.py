"""The interface of gallery engines, which store records. tests/gallery/test_engines.py runs over every engine."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np

from resight.gallery.record import Filter, GalleryInfo, Hit, Record

EVERYTHING: Final = Filter()
EXACT_UNDER: Final = 20_000
"""Engines that have an index search exactly while at most this many records match the filter."""


class Engine(Protocol):
    """Stores records; when a method returns, its changes are on disk."""

    @property
    def info(self) -> GalleryInfo:
        """The model whose embeddings the gallery stores."""
        ...

    def add(self, records: Sequence[Record]) -> None:
        """Store all records or, if that fails, none of them; a record whose id exists replaces that record."""
        ...

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Return for each query vector, float32 [Q, D], the at most k nearest records that match, nearest first.

        Among equal similarities, the record that was added earlier comes first.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records with these ids, in the order of the ids; ids that do not exist are left out."""
        ...

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Iterate over the records that match, in the order in which they were added."""
        ...

    def count(self, where: Filter = EVERYTHING) -> int:
        """Return the number of records that match."""
        ...

    def assign(self, ids: Sequence[str], identity: str | None) -> None:
        """Set the identity of the records with these ids; None makes it unknown. Ids that do not exist are ignored."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove records and everything derived from them; return how many existed."""
        ...

    def fields(self) -> set[str]:
        """Return the names of all metadata fields that occur in any record."""
        ...

    def read_log(self) -> list[dict[str, Any]]:
        """Return the log of assignments, oldest first."""
        ...

    def write_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """Replace the log of assignments."""
        ...

    def close(self) -> None:
        """Release files and connections; the engine cannot be used afterwards."""
        ...
