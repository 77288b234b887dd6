"""The assembly (He et al. 2021, figure 3): backbone -> features -> BNNeck -> head, one neck and head a branch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resight.config.sections import Model
from resight.models.backbones.build import build_backbone
from resight.models.heads import BNNeck, Head


@dataclass(frozen=True)
class Outputs:
    """What training sees of a batch; the global branch first, then JPM's parts."""

    features: list[Tensor]
    """Before BNNeck, float32 [R, D] each."""
    logits: list[Tensor]
    """float32 [R, C] each."""


class TransReID(nn.Module):
    """TransReID, or the CNN baseline in its place.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the pictures.
        classes: identities.
        counts: known labels of each kind of side information.

    Raises:
        ConfigError: the settings do not go together.
    """

    def __init__(self, settings: Model, size: tuple[int, int], classes: int, counts: Mapping[str, int]) -> None:
        super().__init__()
        self.backbone = build_backbone(settings, size, counts)
        self.feature, self.parts = settings.feature, settings.jpm_parts
        width, branches = self.backbone.width, self.backbone.features
        self.necks = nn.ModuleList(BNNeck(width) for _ in range(branches))
        self.heads = nn.ModuleList(
            Head(settings.head, width, classes, settings.head_scale, settings.head_margin) for _ in range(branches)
        )

    @property
    def width(self) -> int:
        """Length of an embedding: D, or (1 + parts) D with JPM."""
        return self.backbone.width * self.backbone.features

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor], identity: Tensor | None = None) -> Outputs:
        """Normalised pictures [R, 3, H, W], side labels and identities int64 [R] -> features and logits.

        Necks and heads work in float32, whatever the backbone's precision.
        """
        features = [f.float() for f in self.backbone(images, side_info)]
        return Outputs(features, self.classify(features, identity))

    def classify(self, features: Sequence[Tensor], identity: Tensor | None) -> list[Tensor]:
        """Each branch's features, float32 [R, D], through its BNNeck and head: logits [R, C]."""
        with torch.autocast(features[0].device.type, enabled=False):
            return [head(neck(f), identity) for f, neck, head in zip(features, self.necks, self.heads, strict=True)]

    def embed(self, images: Tensor, side_info: Mapping[str, Tensor]) -> Tensor:
        """Normalised pictures [R, 3, H, W] -> float32 [R, D], not yet of unit length.

        The features lie side by side, each part's divided by the number of parts (the reference's test feature).
        """
        features = [f.float() for f in self.backbone(images, side_info)]
        if self.feature == "after":
            with torch.autocast(images.device.type, enabled=False):
                features = [neck(f) for f, neck in zip(features, self.necks, strict=True)]
        return torch.cat([features[0], *(f / self.parts for f in features[1:])], 1)
