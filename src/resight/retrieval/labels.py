"""The labels of queries and gallery items, as numbers with the same meaning in both: the input of the ranking rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np

LabelArray = np.ndarray
"""int64 [n]; -1 where unknown. An unknown label neither equals nor differs from any other, not even from another -1."""
COLUMNS: Final = ("identity", "camera", "view", "scene", "clothes", "tracklet", "modality", "picture")
"""The columns that an item can have; `picture` is its file, by which a query's own file is left out of its ranking."""


@dataclass(frozen=True)
class Labels:
    """The labels of n queries or gallery items; an absent column is unknown for all of them."""

    size: int
    columns: Mapping[str, LabelArray]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The data set's names of the labels, by column: number i has the name at index i."""
    time: np.ndarray | None = None
    """float64 [n], seconds; NaN where unknown."""

    @classmethod
    def of(cls, time: np.ndarray | None = None, **columns: np.ndarray) -> Self:
        """Make `Labels` of columns that are numbers already, integers [n] each."""
        size = len(next(iter(columns.values())))
        return cls(size, {name: np.asarray(labels, np.int64) for name, labels in columns.items()}, {}, time)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, column: str) -> LabelArray:
        return self.columns[column] if column in self.columns else np.full(self.size, -1, np.int64)

    @property
    def identity(self) -> LabelArray:
        """int64 [n]: the column `identity`."""
        return self["identity"]

    def take(self, rows: slice | np.ndarray) -> "Labels":
        """Return the labels of some of the items."""
        columns = {name: labels[rows] for name, labels in self.columns.items()}
        time = None if self.time is None else self.time[rows]
        return Labels(len(np.arange(self.size)[rows]), columns, self.names, time)

    def where(self, selection: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Select the items whose label is, in each column of `selection`, one of the names there: bool [n].

        The name `1` also matches `market1501:1`, the name of a label that is qualified by its data set.
        """
        selected = np.ones(self.size, bool)
        for column, names in selection.items():
            known = enumerate(self.names.get(column, ()))
            numbers = [n for n, name in known if name in names or name.partition(":")[2] in names]
            selected &= np.isin(self[column], numbers)
        return selected

    def name(self, column: str, number: int) -> str:
        """Return the data set's name of a label, or the number itself where it has none."""
        return self.names[column][number] if column in self.names else str(number)

    def groups(self, columns: Sequence[str]) -> np.ndarray:
        """Number the items, int64 [n]: equal where all of the columns are equal; -1 where one of them is unknown."""
        return compound(self, self, columns)[0]


def compound(query: Labels, gallery: Labels, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Combine the labels of several columns into one number, equal where all of them are equal.

    Returns:
        int64 [Q] and [G]; -1 where one of the labels is unknown.
    """
    query_codes = np.zeros(len(query), np.int64)
    gallery_codes = np.zeros(len(gallery), np.int64)
    query_known = np.ones(len(query), bool)
    gallery_known = np.ones(len(gallery), bool)
    for column in columns:
        query_labels = query[column]
        gallery_labels = gallery[column]
        size = 1 + max(int(query_labels.max(initial=-1)), int(gallery_labels.max(initial=-1)))
        query_codes = query_codes * size + query_labels
        gallery_codes = gallery_codes * size + gallery_labels
        query_known &= query_labels >= 0
        gallery_known &= gallery_labels >= 0
    return np.where(query_known, query_codes, -1), np.where(gallery_known, gallery_codes, -1)
