"""The labels of a training set and their numbers: the closed encoding, in which a label that is not known is -1."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resight.data.sightings import SightingTable

UNKNOWN = -1
"""The number of a label that is missing, or was never seen in training."""


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a training set, in the order of their numbers."""

    identities: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("rgb",)

    @classmethod
    def of(cls, table: SightingTable) -> "Vocabulary":
        """The distinct labels of a table, sorted, so that a seed means the same on every machine."""
        return cls(
            tuple(table.values("identity")),
            tuple(table.values("camera")),
            tuple(table.values("view")),
            table.modalities,
        )

    @property
    def counts(self) -> dict[str, int]:
        """Number of known labels of each kind of side information."""
        return {"camera": len(self.cameras), "view": len(self.views), "modality": len(self.modalities)}


def label_numbers(labels: Sequence[str | None], known: Sequence[str]) -> Tensor:
    """int64 [N]: the number of each label in `known`; `UNKNOWN` for None and for a label that is not there."""
    number = {label: n for n, label in enumerate(known)}
    return torch.tensor(
        [UNKNOWN if label is None else number.get(label, UNKNOWN) for label in labels], dtype=torch.int64
    )
