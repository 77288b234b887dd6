"""BNNeck and the classifier heads."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import HeadName
from resight.losses.margins import MARGINS


class BNNeck(nn.BatchNorm1d):
    """Batch normalisation between the feature of the triplet loss and the classifier (Luo et al. 2019, section 3.5).

    Its bias is fixed at 0.

    Args:
        width: length of a feature, D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.bias.requires_grad_(False)

    def of_batch(self, features: Tensor) -> Tensor:
        """Normalize features [B, D] by the batch's statistics, as in training; the running ones do not change."""
        return F.batch_norm(features, None, None, self.weight, self.bias, training=True, eps=self.eps)


class Head(nn.Module):
    """The classifier of identities: a linear map without bias, or cosines with a margin.

    Args:
        name: softmax, or a margin head.
        width: length of a feature, D.
        classes: number of identities, C.
        scale: of a margin head's logits.
        margin: of a margin head (radians for ArcFace).
    """

    def __init__(self, name: HeadName, width: int, classes: int, scale: float, margin: float) -> None:
        super().__init__()
        self.name = name
        self.scale = scale
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(classes, width))  # [C, D]
        if name == "softmax":
            nn.init.normal_(self.weight, std=0.001)
        else:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor, identity: Tensor | None) -> Tensor:
        """Compute logits [B, C] of features [B, D]; a margin head lowers those of `identity`, int64 [B], if any."""
        if self.name == "softmax":
            return F.linear(features, self.weight)
        cosine = F.linear(F.normalize(features), F.normalize(self.weight))  # [B, C]
        if identity is None:
            return self.scale * cosine
        return MARGINS[self.name](cosine, identity, self.scale, self.margin)
