"""The vocabulary of a training set: its labels and their numbers. An unknown label has the number -1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resight.data.sightings import SightingTable

UNKNOWN = -1
"""The number of a label that is missing, or not in the training set."""


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a training set, in the order of their numbers."""

    identities: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("rgb",)

    @classmethod
    def of(cls, table: SightingTable) -> "Vocabulary":
        """Return the vocabulary of a table: its distinct labels, sorted."""
        return cls(
            tuple(table.values("identity")),
            tuple(table.values("camera")),
            tuple(table.values("view")),
            table.modalities,
        )

    @property
    def counts(self) -> dict[str, int]:
        """The number of labels of each kind of side information."""
        return {"camera": len(self.cameras), "view": len(self.views), "modality": len(self.modalities)}


def label_numbers(labels: Sequence[str | None], known: Sequence[str]) -> Tensor:
    """Return int64 [N], the position of each label in `known`; `UNKNOWN` for None and for other labels."""
    number = {label: n for n, label in enumerate(known)}
    return torch.tensor(
        [UNKNOWN if label is None else number.get(label, UNKNOWN) for label in labels], dtype=torch.int64
    )
