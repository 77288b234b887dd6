"""What a gallery holds: records, and which of them are meant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

Value = str | int | float | bool
"""Of free metadata."""

LABELS: Final = ("identity", "camera", "modality", "tracklet")


@dataclass(frozen=True)
class Record:
    """One sighting at rest."""

    id: str
    """Its own; adding another record of the same id takes the first one's place."""
    vector: np.ndarray
    """float32 [D] of unit length."""
    identity: str | None = None
    """None: nobody has said who it is."""
    camera: str | None = None
    modality: str | None = None
    tracklet: str | None = None
    time: float | None = None
    """Seconds, on a clock that all cameras share."""
    picture: str | None = None
    """Where the picture lies."""
    thumbnail: bytes | None = None
    """A small JPEG of it, where it does not stay where it is."""
    metadata: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Anything else, by name."""


@dataclass(frozen=True)
class Filter:
    """Which records are meant: those for which everything that is given holds."""

    identity: tuple[str, ...] = ()
    """Any of these; all where it is empty. So with the next three."""
    camera: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    tracklet: tuple[str, ...] = ()
    after: float | None = None
    """At this time or later; a record without a time is not meant."""
    before: float | None = None
    """Earlier than this time."""
    metadata: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Fields that have exactly these values."""

    def holds(self, record: Record) -> bool:
        """Whether a record is meant: the definition that every engine follows."""
        for name in LABELS:
            if getattr(self, name) and getattr(record, name) not in getattr(self, name):
                return False
        if (self.after is not None or self.before is not None) and record.time is None:
            return False
        if self.after is not None and record.time is not None and record.time < self.after:
            return False
        if self.before is not None and record.time is not None and record.time >= self.before:
            return False
        return all(
            name in record.metadata and type(record.metadata[name]) is type(value) and record.metadata[name] == value
            for name, value in self.metadata.items()
        )


@dataclass(frozen=True)
class Near:
    """A record that a search found."""

    id: str
    similarity: float
    """Inner product with what was asked for."""
