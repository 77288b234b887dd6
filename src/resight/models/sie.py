"""Side information embedding, SIE (He et al. 2021, section 3.3)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import UnknownSideInfo


class SIE(nn.Module):
    """A learned vector for each combination of the chosen labels, such as camera x view, or modality alone.

    A label that is unknown (-1), or was never seen in training, is answered with the mean over that label's vectors; or
    the picture is given no side information at all, where `unknown` is off.

    Args:
        counts: number of known labels of each kind, in the order that rows are numbered: the row of (camera, view) is
            camera * views + view.
        width: D.
        weight: what the vectors are multiplied by before they are added to the tokens.
        dropout: probability that a picture's labels count as unknown in training, so that their answer is trained.
    """

    def __init__(self, counts: Mapping[str, int], width: int, weight: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.counts, self.weight, self.dropout = dict(counts), weight, dropout
        self.unknown: UnknownSideInfo = "mean"
        """How a picture with an unknown label is answered once training is over."""
        rows = 1
        for count in counts.values():
            rows *= count
        self.table = nn.Parameter(torch.empty(rows, width))  # [rows, D]
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, labels: Mapping[str, Tensor]) -> Tensor:
        """int64 [B] by kind -> [B, 1, D], to be added to every token."""
        table = self.table.view(*self.counts.values(), -1)
        row = torch.zeros((), dtype=torch.int64, device=table.device)
        told: Tensor | bool = True
        hidden = torch.rand(len(next(iter(labels.values())))) < self.dropout if self.training and self.dropout else None
        for axis, (kind, count) in enumerate(self.counts.items()):
            table = torch.cat([table, table.mean(axis, keepdim=True)], axis)  # the last row of an axis: unknown
            label = labels[kind]
            strange = (label < 0) | (label >= count)
            if hidden is not None:
                strange = strange | hidden.to(label.device)
            told = told & ~strange
            row = row * (count + 1) + torch.where(strange, count, label)
        found = self.weight * F.embedding(row, table.flatten(0, -2))[:, None]
        if self.unknown == "off" and not self.training and isinstance(told, Tensor):
            found = found * told[:, None, None]
        return found
