"""The complete model (He et al. 2021, figure 3): backbone -> features -> BNNeck -> head, with one neck and one head for
each branch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.build import build_backbone
from resight.models.fusion import Fused, Fusion
from resight.models.heads import BNNeck, Head, ModalityHead, ModalityNeck
from resight.models.meta import on_meta


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
        self.necks = nn.ModuleList(BNNeck(width) for width in self.backbone.widths)
        self.heads = _heads(settings, self.backbone.widths, classes)
        self.fusion: Fusion | None = None
        """Of the modalities of a sighting, inside the network; None where each image is embedded alone."""
        self.modalities = counts["modality"]
        if settings.fusion is not None:
            widths = self.backbone.widths
            self.fusion = Fusion(settings.fusion, widths, self.backbone.token_width, self.modalities)
            self.necks = nn.ModuleList(ModalityNeck(width, self.modalities) for width in widths)
            if not self.fusion.shares_heads:
                of_modality = (_heads(settings, widths, classes) for _ in range(self.modalities))
                self.heads = nn.ModuleList(ModalityHead(heads) for heads in zip(*of_modality, strict=True))
                self.fused_heads = _heads(settings, self.fusion.widths, classes)

    @property
    def width(self) -> int:
        """The length of an embedding, E: D, or (1 + parts) D with JPM, or what the backbone makes of its features."""
        return self.backbone.embedding_width

    @property
    def fused_width(self) -> int:
        """The length of a sighting's embedding: E, or M E where the network concatenates M modalities."""
        return self.width * (1 if self.fusion is None or self.fusion.shares_heads else self.modalities)

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
        return Outputs(features, self.classify(features, identity, side_info.get("modality")))

    def classify(
        self, features: Sequence[Tensor], identity: Tensor | None, modality: Tensor | None = None
    ) -> list[Tensor]:
        """Compute each branch's logits, [R, C], from its features, float32 [R, D], through its BNNeck and head.

        A network with a fusion needs the modality of each image, int64 [R].
        """
        with torch.autocast(features[0].device.type, enabled=False):
            normalized = self._normalize(features, modality)
            return [
                _logits(head, feature, identity, modality) for feature, head in zip(normalized, self.heads, strict=True)
            ]

    def classify_fused(
        self,
        features: Sequence[Tensor],
        modality: Tensor,
        fused: Fused,
        present: Tensor,
        identity: tuple[Tensor, Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the logits of images, [R, C] of each branch, and of the sightings they belong to, [N, C].

        The statistics of a modality in the BNNeck are over its images' features before and after the attention.

        Args:
            features: of the images, float32 [R, D] of each branch.
            modality: of the images, int64 [R].
            fused: of the sightings.
            present: bool [N, M], whether a sighting has the modality.
            identity: of the images, int64 [R], and of the sightings, int64 [N].
        """
        images, sightings = list[Tensor](), list[Tensor]()
        sighting, number = present.nonzero(as_tuple=True)
        fused_heads = self.heads if self.fusion is None or self.fusion.shares_heads else self.fused_heads
        with torch.autocast(features[0].device.type, enabled=False):
            for feature, of_sightings, neck, head, fused_head in zip(
                features, fused.images, self.necks, self.heads, fused_heads, strict=True
            ):
                every = torch.cat([feature, of_sightings[sighting, number]])
                normalized = neck(every, torch.cat([modality, number]))
                images.append(_logits(head, normalized[: len(feature)], identity[0], modality))
                # Back to the sightings, [N, M, D], and fuse.
                scattered = torch.zeros_like(of_sightings).index_put((sighting, number), normalized[len(feature) :])
                sightings.append(fused_head(fused.combine(scattered), identity[1]))
        return images, sightings

    def fuse(self, images: Tensor, side_info: Mapping[str, Tensor], rows: Tensor) -> Fused:
        """Compute the fused features of N sightings, and the share of each modality in them.

        Args:
            images: [R, 3, H, W], preprocessed.
            side_info: labels, int64 [R] by kind.
            rows: int64 [N, M], the image of each modality of each sighting, or -1 where it is absent.

        Raises:
            ConfigError: the network has no fusion.
        """
        if self.fusion is None:
            raise ConfigError("the network embeds each image alone: it was built without model.fusion")
        return self.fusion(*self.backbone.features_and_tokens(images, side_info), rows)

    def embed(self, images: Tensor, side_info: Mapping[str, Tensor], rows: Tensor | None = None) -> Tensor:
        """Compute embeddings, float32 [R, E], or with `rows` of sightings, [N, E]; not yet of unit length.

        `Backbone.combine` makes them from the branches' features; with JPM these are concatenated, each part's divided
        by the number of parts (the reference's test feature).

        Args:
            images: [R, 3, H, W], preprocessed.
            side_info: labels, int64 [R] by kind.
            rows: int64 [N, M], for a network with a fusion: the image of each modality of each sighting, or -1 where
                it is absent. None embeds each image alone.
        """
        # Backbone: float32 [R, D] for each branch; fusion: float32 [N, D]. Through BNNecks, where embeddings are taken
        # after them.
        if rows is None:
            features = [feature.float() for feature in self.backbone(images, side_info)]
            if self.feature == "after":
                with torch.autocast(images.device.type, enabled=False):
                    features = self._normalize(features, side_info.get("modality"))
        else:
            fused = self.fuse(images, side_info, rows)
            with torch.autocast(images.device.type, enabled=False):
                features = self._normalize_fused(fused) if self.feature == "after" else fused.features
        # Combine the branches: [R, E].
        return self.backbone.combine(features)

    def combine(self, features: Sequence[Tensor]) -> Tensor:
        """Make embeddings [B, E] from a training batch's features, float32 [B, D] of each branch, as `embed` does.

        Where embeddings are taken after BNNeck, its statistics are the batch's; the running ones do not change.
        """
        if self.feature == "after":
            with torch.autocast(features[0].device.type, enabled=False):
                branches = zip(features, self.necks, strict=True)
                features = [cast(BNNeck, neck).of_batch(feature) for feature, neck in branches]
        return self.backbone.combine(features)

    def _normalize(self, features: Sequence[Tensor], modality: Tensor | None) -> list[Tensor]:
        """Normalize the features of images, float32 [R, D] of each branch, by their BNNecks."""
        of_modality = () if self.fusion is None else (modality,)
        return [neck(feature, *of_modality) for neck, feature in zip(self.necks, features, strict=True)]

    def _normalize_fused(self, fused: Fused) -> list[Tensor]:
        """Compute the features of sightings after BNNeck, by running statistics: float32 [N, D] of each branch."""
        necks = (cast(ModalityNeck, neck) for neck in self.necks)
        return [fused.combine(neck.of_sightings(x)) for neck, x in zip(necks, fused.images, strict=True)]


def _heads(settings: Model, widths: Sequence[int], classes: int) -> nn.ModuleList:
    return nn.ModuleList(
        Head(settings.head, width, classes, settings.head_scale, settings.head_margin) for width in widths
    )


def _logits(head: nn.Module, features: Tensor, identity: Tensor | None, modality: Tensor | None) -> Tensor:
    """The logits of images, [R, C], by a head of all modalities or by those of each."""
    return head(features, identity, modality) if isinstance(head, ModalityHead) else head(features, identity)


def build_empty(settings: Model, size: tuple[int, int], classes: int, counts: Mapping[str, int]) -> TransReID:
    """Build a network for `weights.fit`, which gives it its weights: on the meta device, where it takes no memory,
    unless it has tables that are computed.

    The arguments are those of `TransReID`.

    Raises:
        ConfigError: the settings exclude each other.
    """
    with on_meta():
        model = TransReID(settings, size, classes, counts)
    stored = model.state_dict().keys()
    if all(name in stored for name, _ in model.named_buffers()):
        return model
    # Tables that no file stores, such as rotary positions, are computed when the network is built.
    with torch.random.fork_rng(devices=[]):
        return TransReID(settings, size, classes, counts)
