"""A backbone for each modality."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from resight.models.backbones.backbone import Backbone


class PerModality(Backbone):
    """Backbones of one kind, one for each modality; an image passes that of its modality alone.

    An image of unknown modality passes the first one.

    Args:
        make: makes a backbone.
        modalities: M.
    """

    def __init__(self, make: Callable[[], Backbone], modalities: int) -> None:
        super().__init__()
        nets = [make() for _ in range(modalities)]
        self.nets = nn.ModuleList(nets)
        self.widths = nets[0].widths
        self.depth = nets[0].depth
        self.layers = {
            f"nets.{number}.{name}": layer for number in range(modalities) for name, layer in nets[0].layers.items()
        }
        self.token_width = nets[0].token_width

    @property
    def first(self) -> Backbone:
        """The first backbone; a module must be registered once, or its weights would be stored twice."""
        return cast(Backbone, self.nets[0])

    @property
    def embedding_width(self) -> int:
        """The length of an embedding, E."""
        return self.first.embedding_width

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the features of images [R, 3, H, W], each by the backbone of its modality."""
        return self.features_and_tokens(images, side_info)[0]

    def features_and_tokens(
        self, images: Tensor, side_info: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute features, and the tokens that enter the last block of each image's backbone."""
        modality = side_info["modality"].clamp_min(0)
        parts = [(modality == number).nonzero()[:, 0] for number in range(len(self.nets))]
        results = [
            cast(Backbone, net).features_and_tokens(
                images[rows], {kind: labels[rows] for kind, labels in side_info.items()}
            )
            for net, rows in zip(self.nets, parts, strict=True)
            if len(rows)
        ]
        # Put the rows of all backbones back into the order of the images.
        order = torch.cat(parts).argsort()
        features = [torch.cat(branch)[order] for branch in zip(*(features for features, _ in results), strict=True)]
        tokens = [tokens for _, tokens in results if tokens is not None]
        return features, torch.cat(tokens)[order] if tokens else None

    def combine(self, features: Sequence[Tensor]) -> Tensor:
        """Make the embedding [R, E] from the features [R, D]."""
        return self.first.combine(features)

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Give every backbone the tensors of a pre-trained one."""
        adapted = self.first.adapt(tensors, source)
        return {f"nets.{number}.{name}": tensor for number in range(len(self.nets)) for name, tensor in adapted.items()}
