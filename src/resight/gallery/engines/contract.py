"""The interface of gallery engines, which store records. tests/gallery/test_engines.py runs over every engine."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from resight.gallery.record import Assignment, Filter, GalleryInfo, Hit, Record

EVERYTHING: Final = Filter()
EXACT_UNDER: Final = 20_000
"""Engines that have an index search exactly while at most this many records match the filter."""


class Engine(Protocol):
    """Stores records. When a method returns, its changes are on disk; if it fails, it has changed nothing."""

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

    def fields(self) -> set[str]:
        """Return the names of all metadata fields that occur in any record."""
        ...

    def assign(self, ids: Sequence[str], identity: str | None, of: str | None = None) -> int:
        """Set the identity of records, and log the assignment.

        Args:
            ids: record ids.
            identity: the new identity; None makes the records unknown.
            of: also assign all records of this identity.

        Returns:
            the number of records.

        Raises:
            GalleryError: an id does not exist, or there is nothing to assign.
        """
        ...

    def undo(self) -> Assignment:
        """Undo the last assignment, remove it from the log, and return it.

        Raises:
            GalleryError: there is no assignment to undo.
        """
        ...

    def remove(self, ids: Sequence[str], identity: str | None = None) -> int:
        """Remove records, or all of an identity, with everything derived from them and their part of the log.

        Returns:
            how many existed.
        """
        ...

    def assignments(self) -> list[Assignment]:
        """Return the assignments that can be undone, oldest first."""
        ...

    def add_assignments(self, entries: Sequence[Assignment]) -> None:
        """Add assignments of another gallery to the log, without changing records."""
        ...

    def faults(self) -> list[str]:
        """Return what is wrong with the stored data, beyond what reading every record shows."""
        ...

    def close(self) -> None:
        """Release files and connections; the engine cannot be used afterwards."""
        ...
