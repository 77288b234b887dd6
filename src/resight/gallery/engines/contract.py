"""What an engine that keeps records can do. One contract test suite runs over all of them (tests/test_gallery.py)."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np

from resight.gallery.record import Filter, GalleryInfo, Near, Record

EVERYTHING: Final = Filter()
EXACT_UNDER: Final = 20_000
"""At most so many records are searched exactly by engines that have an index."""


class Engine(Protocol):
    """Keeps records; whatever a method has returned from is on disk."""

    @property
    def info(self) -> GalleryInfo:
        """What the gallery knows of its model."""
        ...

    def add(self, records: Sequence[Record]) -> None:
        """Keeps records, all or none of them; one of an id that is there already takes its place."""
        ...

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Near]]:
        """For each of float32 [Q, D] its at most k nearest records, nearest first; of equal ones the earlier first."""
        ...

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records of these ids, in their order; those that are not there are left out."""
        ...

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Every record that is meant, in the order in which they were added."""
        ...

    def count(self, where: Filter = EVERYTHING) -> int:
        """How many records are meant."""
        ...

    def name(self, ids: Sequence[str], identity: str | None) -> None:
        """Says who the records of these ids are, or that nobody knows."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Removes records, with every trace; returns how many there were."""
        ...

    def fields(self) -> set[str]:
        """The names of metadata that some record has."""
        ...

    def read_log(self) -> list[dict[str, Any]]:
        """What was done to identities, in order."""
        ...

    def write_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """Replaces what `read_log` gives."""
        ...

    def close(self) -> None:
        """Lets go of it; nothing can be done with it afterwards."""
        ...
