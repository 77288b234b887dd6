"""What the rules of ranking look at: the labels of queries and gallery items, as numbers that mean the same in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np

LabelArray = np.ndarray
"""int64 [n]; -1 where not known, which equals nothing, not even another -1, and differs from nothing."""
COLUMNS: Final = ("identity", "camera", "view", "scene", "clothes", "tracklet", "modality", "picture")
"""What can be known of an item; `picture` is its file, so that a query never finds itself."""


@dataclass(frozen=True)
class Labels:
    """The labels of n queries or gallery items; a column that is absent is not known of any."""

    size: int
    columns: Mapping[str, LabelArray]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """What the numbers of a column are called in the data set."""
    time: np.ndarray | None = None
    """float64 [n], seconds; NaN where not known."""

    @classmethod
    def of(cls, time: np.ndarray | None = None, **columns: np.ndarray) -> Self:
        """Keys of labels that are numbers already."""
        return cls(
            len(next(iter(columns.values()))), {k: np.asarray(v, np.int64) for k, v in columns.items()}, {}, time
        )

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, column: str) -> LabelArray:
        return self.columns[column] if column in self.columns else np.full(self.size, -1, np.int64)

    @property
    def identity(self) -> LabelArray:
        """The identities."""
        return self["identity"]

    def take(self, rows: slice | np.ndarray) -> "Labels":
        """Some of the items."""
        columns = {name: labels[rows] for name, labels in self.columns.items()}
        time = None if self.time is None else self.time[rows]
        return Labels(len(np.arange(self.size)[rows]), columns, self.names, time)

    def where(self, wanted: Mapping[str, Sequence[str]]) -> np.ndarray:
        """bool [n]: the items whose labels, by name, are among those wanted of each column."""
        chosen = np.ones(self.size, bool)
        for column, names in wanted.items():
            known = {name: n for n, name in enumerate(self.names.get(column, ()))}
            chosen &= np.isin(self[column], [known[name] for name in names if name in known])
        return chosen

    def name(self, column: str, number: int) -> str:
        """What the data set calls a label."""
        return self.names[column][number] if column in self.names else str(number)

    def groups(self, columns: Sequence[str]) -> np.ndarray:
        """int64 [n]: the same number for the same labels in all of the columns; -1 where one is not known."""
        return compound(self, self, columns)[0]


def compound(query: Labels, gallery: Labels, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """One number for the labels of several columns together: int64 [Q] and [G]; -1 where one is not known."""
    asked, searched = np.zeros(len(query), np.int64), np.zeros(len(gallery), np.int64)
    known_asked, known_searched = np.ones(len(query), bool), np.ones(len(gallery), bool)
    for column in columns:
        a, b = query[column], gallery[column]
        size = 1 + max(int(a.max(initial=-1)), int(b.max(initial=-1)))
        asked, searched = asked * size + a, searched * size + b
        known_asked &= a >= 0
        known_searched &= b >= 0
    return np.where(known_asked, asked, -1), np.where(known_searched, searched, -1)
