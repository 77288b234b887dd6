"""BNNeck and the classifier heads."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import HeadName
from resight.losses.margins import MARGINS


class BNNeck(nn.BatchNorm1d):
    """Batch normalisation between the feature that triplets see and the one that identities are told by
    (Luo et al. 2019, section 3.5); its bias stays at 0."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.bias.requires_grad_(False)


class Head(nn.Module):
    """Tells identities apart: a linear map without bias, or cosines with a margin.

    Args:
        name: softmax, or a margin head.
        width: D.
        classes: C.
        scale: of a margin head's logits.
        margin: of a margin head.
    """

    def __init__(self, name: HeadName, width: int, classes: int, scale: float, margin: float) -> None:
        super().__init__()
        self.name, self.scale, self.margin = name, scale, margin
        self.weight = nn.Parameter(torch.empty(classes, width))  # [C, D]
        if name == "softmax":
            nn.init.normal_(self.weight, std=0.001)
        else:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor, identity: Tensor | None) -> Tensor:
        """[B, D] -> logits [B, C]; where identities [B] are given, a margin head makes their logits harder to raise."""
        if self.name == "softmax":
            return F.linear(features, self.weight)
        cosine = F.linear(F.normalize(features), F.normalize(self.weight))
        if identity is None:
            return self.scale * cosine
        return MARGINS[self.name](cosine, identity, self.scale, self.margin)
