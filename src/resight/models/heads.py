"""BNNeck, for one and for several modalities, and the classifier heads."""

from collections.abc import Iterable
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import HeadName
from resight.losses.margins import MARGINS

_MOMENTUM: Final = 0.1  # of running statistics, and the number added to the variance: torch's defaults
_EPS: Final = 1e-5


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


class ModalityNeck(nn.Module):
    """A BNNeck with statistics and a scale for each modality.

    Images of different modalities have different means. With statistics over all of them, most of the variance would be
    between modalities, and little of a normalized feature would be left for the identity.

    Args:
        width: length of a feature, D.
        modalities: M.
    """

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        self.running_mean: Tensor
        self.running_var: Tensor
        self.weight = nn.Parameter(torch.ones(modalities, width))
        self.register_buffer("running_mean", torch.zeros(modalities, width))
        self.register_buffer("running_var", torch.ones(modalities, width))

    def forward(self, features: Tensor, modality: Tensor) -> Tensor:
        """Normalize features [R, D] of images by the statistics of their modality, int64 [R].

        In training these are the batch's; a modality with a single image has the running ones. An unknown modality, -1,
        has the mean of all scales and shifts.
        """
        if not self.training:
            scale, shift = (torch.cat([x, x.mean(0, keepdim=True)]) for x in self._scale_and_shift())
            return features * scale[modality] + shift[modality]
        normalized = torch.zeros_like(features)
        for number, (mean, var, weight) in enumerate(
            zip(self.running_mean, self.running_var, self.weight, strict=True)
        ):
            rows = (modality == number).nonzero()[:, 0]
            if len(rows):
                part = F.batch_norm(features[rows], mean, var, weight, None, len(rows) > 1, _MOMENTUM, _EPS)
                normalized = normalized.index_copy(0, rows, part)
        return normalized

    def of_sightings(self, features: Tensor) -> Tensor:
        """Normalize the features of sightings, [N, M, D], by the running statistics of each modality."""
        scale, shift = self._scale_and_shift()
        return features * scale + shift

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.running_var + _EPS).rsqrt()  # [M, D]
        return scale, -self.running_mean * scale


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


class ModalityHead(nn.Module):
    """A classifier of images for each modality.

    One classifier for all would ask an identity's images to have the same features in every modality, though they may
    show different things: what is red in colour need not be warm in thermal.

    Args:
        heads: of each modality.
    """

    def __init__(self, heads: Iterable[Head]) -> None:
        super().__init__()
        self.of_modality = nn.ModuleList(heads)

    def forward(self, features: Tensor, identity: Tensor | None, modality: Tensor) -> Tensor:
        """Compute logits [R, C] of images' features [R, D] by their modality, int64 [R]; of an unknown one, -1, zeros.

        `identity` is that of `Head.forward`.
        """
        heads = [cast(Head, head) for head in self.of_modality]
        logits = features.new_zeros(len(features), len(heads[0].weight))
        for number, head in enumerate(heads):
            rows = (modality == number).nonzero()[:, 0]
            logits = logits.index_copy(0, rows, head(features[rows], None if identity is None else identity[rows]))
        return logits
