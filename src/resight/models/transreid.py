"""The complete model (He et al. 2021, figure 3): backbone -> features -> BNNeck -> head, with one neck and one head for
each branch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resight.config.sections import Model
from resight.models.backbones.build import build_backbone
from resight.models.heads import BNNeck, Head


@dataclass(frozen=True)
class Outputs:
    """What training gets for a batch of R images; the global branch first, then JPM's parts."""

    features: list[Tensor]
    """Before BNNeck, float32 [R, D] each."""
    logits: list[Tensor]
    """float32 [R, C] each."""


class TransReID(nn.Module):
    """TransReID, or another backbone with the same necks and heads.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.
        classes: number of identities, C.
        counts: number of known labels of each kind of side information.

    Raises:
        ConfigError: the settings exclude each other.
    """

    def __init__(self, settings: Model, size: tuple[int, int], classes: int, counts: Mapping[str, int]) -> None:
        super().__init__()
        self.backbone = build_backbone(settings, size, counts)
        self.feature = settings.feature
        widths = self.backbone.widths
        self.necks = nn.ModuleList(BNNeck(width) for width in widths)
        self.heads = nn.ModuleList(
            Head(settings.head, width, classes, settings.head_scale, settings.head_margin) for width in widths
        )

    @property
    def width(self) -> int:
        """The length of an embedding, E: D, or (1 + parts) D with JPM, or what the backbone makes of its features."""
        return self.backbone.embedding_width

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor], identity: Tensor | None = None) -> Outputs:
        """Compute the features and logits of each branch.

        Necks and heads compute in float32, whatever the backbone's precision is.

        Args:
            images: [R, 3, H, W], preprocessed.
            side_info: labels, int64 [R] by kind.
            identity: int64 [R], for the margin of a margin head.
        """
        # Backbone: float32 [R, D] for each branch.
        features = [feature.float() for feature in self.backbone(images, side_info)]
        # Necks and heads: float32 [R, C] for each branch.
        return Outputs(features, self.classify(features, identity))

    def classify(self, features: Sequence[Tensor], identity: Tensor | None) -> list[Tensor]:
        """Compute each branch's logits, [R, C], from its features, float32 [R, D], through its BNNeck and head."""
        with torch.autocast(features[0].device.type, enabled=False):
            branches = zip(features, self.necks, self.heads, strict=True)
            return [head(neck(feature), identity) for feature, neck, head in branches]

    def embed(self, images: Tensor, side_info: Mapping[str, Tensor]) -> Tensor:
        """Compute embeddings, float32 [R, E], not yet of unit length.

        `Backbone.combine` makes them from the branches' features; with JPM these are concatenated, each part's divided
        by the number of parts (the reference's test feature).

        Args:
            images: [R, 3, H, W], preprocessed.
            side_info: labels, int64 [R] by kind.
        """
        # Backbone: float32 [R, D] for each branch.
        features = [feature.float() for feature in self.backbone(images, side_info)]
        # BNNecks, where embeddings are taken after them: float32 [R, D] for each branch.
        if self.feature == "after":
            with torch.autocast(images.device.type, enabled=False):
                features = [neck(feature) for feature, neck in zip(features, self.necks, strict=True)]
        # Combine the branches: [R, E].
        return self.backbone.combine(features)


def build_empty(settings: Model, size: tuple[int, int], classes: int, counts: Mapping[str, int]) -> TransReID:
    """Build a network for `weights.fit`, which gives it its weights: on the meta device, where it takes no memory,
    unless it has tables that are computed.

    The arguments are those of `TransReID`.

    Raises:
        ConfigError: the settings exclude each other.
    """
    with torch.device("meta"):
        model = TransReID(settings, size, classes, counts)
    stored = model.state_dict().keys()
    if all(name in stored for name, _ in model.named_buffers()):
        return model
    # Tables that no file stores, such as rotary positions, are computed when the network is built.
    with torch.random.fork_rng(devices=[]):
        return TransReID(settings, size, classes, counts)
