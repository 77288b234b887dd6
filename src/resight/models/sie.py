"""Side information embedding, SIE (He et al. 2021, section 3.3)."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import UnknownSideInfo


class SIE(nn.Module):
    """A learned vector for each combination of the chosen labels, such as camera x view, or modality alone.

    For a label that is unknown (-1), or that training did not have, the vector is the mean over all labels of that
    kind; where `unknown` is "off", the image gets no side information at all.

    Args:
        counts: number of known labels of each kind, in the order that rows are numbered: the row of (camera, view) is
            camera * views + view.
        width: length of a token, D.
        weight: factor of the vectors before they are added to the tokens.
        dropout: probability in training that all labels of an image count as unknown, so that the vectors of unknown
            labels are trained.
    """

    def __init__(self, counts: Mapping[str, int], width: int, weight: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.counts = dict(counts)
        self.weight = weight
        self.dropout = dropout
        self.unknown: UnknownSideInfo = "mean"
        """The side information of an image with an unknown label in evaluation mode."""
        rows = 1
        for count in counts.values():
            rows *= count
        self.table = nn.Parameter(torch.empty(rows, width))  # [rows, D]
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, labels: Mapping[str, Tensor]) -> Tensor:
        """Look up the vectors of labels, int64 [B] by kind: [B, 1, D], to be added to every token."""
        table = self.table.view(*self.counts.values(), -1)  # [cameras, views, D]
        row = torch.zeros((), dtype=torch.int64, device=table.device)
        all_known: Tensor | bool = True
        # Draw the images whose labels count as unknown: bool [B], on the CPU.
        dropped = None
        if self.training and self.dropout:
            dropped = torch.rand(len(next(iter(labels.values())))) < self.dropout
        for axis, (kind, count) in enumerate(self.counts.items()):
            # Append the mean over each kind of label as its last entry: [cameras + 1, views + 1, D].
            table = torch.cat([table, table.mean(axis, keepdim=True)], axis)
            # Number the rows of that table, with the last entry for unknown labels: int64 [B].
            label = labels[kind]
            unknown = (label < 0) | (label >= count)
            if dropped is not None:
                unknown = unknown | dropped.to(label.device)
            all_known = all_known & ~unknown
            row = row * (count + 1) + torch.where(unknown, count, label)
        # Look up the rows: [B, 1, D].
        vectors = self.weight * F.embedding(row, table.flatten(0, -2))[:, None]
        if self.unknown == "off" and not self.training and isinstance(all_known, Tensor):
            vectors = vectors * all_known[:, None, None]
        return vectors


def used_counts(kinds: Sequence[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of the chosen kinds that have two labels or more, in the order that rows are numbered."""
    return {kind: counts[kind] for kind in ("camera", "view", "modality") if kind in kinds and counts[kind] > 1}


@contextmanager
def evaluation_mode(model: nn.Module, unknown: UnknownSideInfo) -> Generator[None]:
    """Put a model into evaluation mode, with an answer to unknown side information; leave it as it was."""
    training = [module for module in model.modules() if module.training]
    tables = [module for module in model.modules() if isinstance(module, SIE)]
    before: list[UnknownSideInfo] = [table.unknown for table in tables]
    try:
        if training:
            model.eval()
        for table in tables:
            table.unknown = unknown
        yield
    finally:
        for module in training:
            module.training = True
        for table, stated in zip(tables, before, strict=True):
            table.unknown = stated
