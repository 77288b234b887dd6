"""Fusion of a sighting's modalities inside the network.

A modality that is absent is masked: it takes no part in weights or attention, and nothing stands in for it. A sighting
with one modality has exactly the features of that image; with `concat` in the part of that modality, and zeros in the
others. So sightings with any modalities can be compared with one another; with `concat`, if they share a modality.

Images of different modalities have features with different means, which say nothing of the identity. So every modality
has statistics of its own in the BNNeck (`ModalityNeck`), and what is fused after it has a mean of 0 whichever
modalities are present: a zero in the place of an absent modality is its mean.

N sightings, M modalities, R images that are present, T tokens of an image, D width of a feature, A of the attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import LearnedFusion
from resight.errors import ConfigError
from resight.models.backbones.backbone import Backbone

_HEADS: Final = 4
_GATE_WIDTH: Final = 64


@dataclass(frozen=True)
class Fused:
    """What a fusion computes of N sightings."""

    kind: LearnedFusion
    images: list[Tensor]
    """Float32 [N, M, D] for each branch: the features of each modality, after the attention; 0 where it is absent."""
    weights: Tensor
    """Float32 [N, M]: the share of each modality in the features; 0 where it is absent, and the sum is 1."""

    @property
    def features(self) -> list[Tensor]:
        """The features of the sightings: float32 [N, D] for each branch; [N, M D] for `concat`."""
        return [self.combine(images) for images in self.images]

    def combine(self, images: Tensor) -> Tensor:
        """Make one feature [N, D] of those of a sighting's modalities, float32 [N, M, D]; [N, M D] for `concat`."""
        if self.kind == "concat":
            return (images * (self.weights > 0)[..., None]).flatten(1)
        return (images * self.weights[..., None]).sum(1)


class Fusion(nn.Module):
    """Fuses the features of a sighting's images.

    - `mean`: the mean over the modalities that are present.
    - `gate`: a weighted mean; the weights come from each image's feature and its mean patch token.
    - `attention`: the class token of each modality attends to the class and patch tokens of the others (a cross-modal
      transformer layer), and the results are averaged with weights as in `gate`.
    - `concat`: the features side by side, M times as wide, with a head of its own; images have a head for each
      modality, since nothing is compared across modalities.

    Gate and attention start as the mean.

    Args:
        kind: as above.
        widths: D of each branch; weights and attention come from the first one.
        tokens: width of the backbone's tokens; None for a backbone without tokens.
        modalities: M.

    Raises:
        ConfigError: the attention needs tokens.
    """

    def __init__(self, kind: LearnedFusion, widths: Sequence[int], tokens: int | None, modalities: int) -> None:
        super().__init__()
        if kind == "attention" and tokens is None:
            raise ConfigError("model.fusion attention needs a backbone with tokens, such as a vision transformer")
        self.kind: LearnedFusion = kind
        self.widths = tuple(width * modalities if kind == "concat" else width for width in widths)
        """Of the fused features."""
        self.attention = None
        if kind == "attention" and tokens is not None:
            self.attention = CrossModalAttention(widths[0], tokens, modalities)
        self.gate = _Gate(widths[0], tokens, modalities) if kind in ("gate", "attention") else None

    @property
    def shares_heads(self) -> bool:
        """Whether fused features have the width of an image's, and go through the same heads."""
        return self.kind != "concat"

    def forward(self, features: Sequence[Tensor], tokens: Tensor | None, rows: Tensor) -> Fused:
        """Fuse the features of images into those of sightings.

        Args:
            features: float32 [R, D] of each branch.
            tokens: [R, T, width], what enters the backbone's last block; None where it has none.
            rows: int64 [N, M], the image of each modality, or -1 where it is absent.
        """
        with torch.autocast(features[0].device.type, enabled=False):
            return self._fuse([feature.float() for feature in features], tokens, rows)

    def _fuse(self, features: Sequence[Tensor], tokens: Tensor | None, rows: Tensor) -> Fused:
        present = rows >= 0  # [N, M]
        image = rows.clamp_min(0)
        # Gather the features of each sighting's images: [N, M, D] for each branch.
        each = [feature[image] * present[..., None] for feature in features]
        if self.attention is not None and tokens is not None:
            each[0] = each[0] + self.attention(features[0], tokens, rows)
        # Weigh the modalities that are present: [N, M].
        logits = present.float() if self.gate is None else self.gate(features[0], tokens, rows)
        weights = logits.masked_fill(~present, -torch.inf).softmax(1)
        return Fused(self.kind, each, weights)


class FusedBackbone(nn.Module):
    """A backbone and a fusion as one module, so that DDP and FSDP see both.

    Args:
        backbone: of the model.
        fusion: of the model.
    """

    def __init__(self, backbone: Backbone, fusion: Fusion) -> None:
        super().__init__()
        self.backbone = backbone
        self.fusion = fusion

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor], rows: Tensor) -> list[Tensor]:
        """Compute the features of images, float32 [R, D] of each branch; those of sightings, float32 [N, M, D] of each
        branch; and the shares of the modalities, float32 [N, M]."""
        features, tokens = self.backbone.features_and_tokens(images, side_info)
        features = [feature.float() for feature in features]
        fused = self.fusion(features, tokens, rows)
        return [*features, *fused.images, fused.weights]


class _Gate(nn.Module):
    """A logit for each modality of each sighting, from its image alone."""

    def __init__(self, width: int, tokens: int | None, modalities: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.token_norm = None if tokens is None else nn.LayerNorm(tokens)
        self.hidden = nn.Linear(width + (tokens or 0), _GATE_WIDTH)
        self.logit = nn.Linear(_GATE_WIDTH, modalities)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def forward(self, feature: Tensor, tokens: Tensor | None, rows: Tensor) -> Tensor:
        """Compute logits [N, M] from features [R, D], tokens [R, T, width] and the images of sightings [N, M]."""
        x = self.norm(feature)
        if self.token_norm is not None and tokens is not None:
            x = torch.cat([x, self.token_norm(tokens[:, 1:].float().mean(1))], 1)
        # A logit of each image as each modality, [R, M], gathered to [N, M, M], of which the diagonal is its own.
        logits = self.logit(F.gelu(self.hidden(x)))[rows.clamp_min(0)]
        return (logits * torch.eye(rows.shape[1], device=rows.device)).sum(2)


class CrossModalAttention(nn.Module):
    """What the class token of each modality learns from the tokens of the sighting's other modalities.

    Besides them, every class token can attend to a learned key whose value is 0. So what a modality learns is 0 where
    no other one is present.

    Args:
        width: D.
        tokens: width of a token.
        modalities: M.
    """

    def __init__(self, width: int, tokens: int, modalities: int) -> None:
        super().__init__()
        inner = max(_HEADS, width // 4 // _HEADS * _HEADS)  # A
        self.query_norm = nn.LayerNorm(width)
        self.token_norm = nn.LayerNorm(tokens)
        self.query = nn.Linear(width, inner)
        self.key_value = nn.Linear(tokens, 2 * inner)
        self.modality = nn.Parameter(torch.zeros(modalities, inner))
        self.null_key = nn.Parameter(torch.zeros(inner))
        self.out = nn.Linear(inner, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        nn.init.trunc_normal_(self.modality, std=0.02)
        nn.init.zeros_(self.out.weight)
        last = self.mlp[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, feature: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
        """Compute [N, M, D], to be added to the features of each modality.

        Args:
            feature: float32 [R, D].
            tokens: [R, T, width].
            rows: int64 [N, M], the image of each modality, or -1 where it is absent.
        """
        sightings, modalities = rows.shape
        image, present = rows.clamp_min(0), rows >= 0
        # Queries of each modality [N, M, A]; keys and values of each image's tokens, computed once: [R, T, 2 A].
        query = self.query(self.query_norm(feature))[image] + self.modality
        key, value = self.key_value(self.token_norm(tokens.float()))[image].chunk(2, -1)  # [N, M, T, A]
        key = (key + self.modality[:, None]).flatten(1, 2)  # [N, M T, A]
        # Append the key that is always present, with a value of 0: [N, M T + 1, A].
        key = torch.cat([key, self.null_key.expand(sightings, 1, -1)], 1)
        value = torch.cat([value.flatten(1, 2), torch.zeros_like(key[:, :1])], 1)
        # A class token sees the present images of the other modalities: bool [N, 1, M, M T + 1].
        others = present[:, None] & ~torch.eye(modalities, dtype=torch.bool, device=rows.device)  # [N, M, M]
        seen = F.pad(others.repeat_interleave(tokens.shape[1], 2), (0, 1), value=True)[:, None]
        # Attend: [N, heads, M, A / heads], joined to [N, M, D].
        split = [x.unflatten(-1, (_HEADS, -1)).transpose(1, 2) for x in (query, key, value)]
        attended = F.scaled_dot_product_attention(*split, attn_mask=seen).transpose(1, 2).flatten(2)
        learned = self.out(attended)
        learned = learned + self.mlp(self.mlp_norm(feature[image] + learned))
        return learned * others.any(2)[..., None]
