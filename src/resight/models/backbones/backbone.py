"""What every backbone has in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

TOKEN_OPTIONS = frozenset(
    ("sie", "sie_weight", "sie_dropout", "jpm", "jpm_shift", "jpm_groups", "jpm_parts", "jpm_rearrange")
)


class Backbone(nn.Module, ABC):
    """Maps images to one or several features, and says how these make the embedding.

    A subclass is made from the model's section, the size of the images and the number of labels of each kind of side
    information: `Subclass(settings, size, counts)`.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    """The fields of the section `Model` that it uses, besides those of every model (backbone, head*, feature)."""
    widths: tuple[int, ...]
    """The length of each feature, D; each has a BNNeck and a head of its own."""
    has_blocks: ClassVar[bool] = False
    """Whether it is a transformer whose blocks can be recomputed (`gradient_checkpointing`)."""
    depth: int = 0
    """The number n of blocks or layers, for layer-wise decay; the names of blocks are `blocks.I.` with I from 0."""
    layers: Mapping[str, int] = MappingProxyType({})
    """For layer-wise decay, the layer of each parameter, 0 to `depth`, where the names do not tell it."""
    token_width: int | None = None
    """The width of the tokens of `features_and_tokens`; None for a backbone without tokens."""
    gradient_checkpointing: bool = False
    """Whether training stores only each block's input and recomputes the block for the backward pass."""

    @property
    def embedding_width(self) -> int:
        """The length of `combine`'s result, E."""
        return sum(self.widths)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the result for an image depends, in training, on the others of its batch."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())  # pyright: ignore[reportPrivateUsage]

    @abstractmethod
    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the features of images [R, 3, H, W]: a list of [R, D], as long as `widths`.

        Args:
            images: preprocessed.
            side_info: labels, int64 [R] by kind.
        """

    def features_and_tokens(
        self, images: Tensor, side_info: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute `forward`'s features, and the tokens that enter the last block, [R, T, W], the class token first.

        They are None for a backbone without tokens.
        """
        return self(images, side_info), None

    def combine(self, features: Sequence[Tensor]) -> Tensor:
        """Make the embedding [R, E] from the features [R, D], all before or all after their necks."""
        return torch.cat(list(features), 1)

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Adapt the tensors of a pre-trained backbone to this one: names, grid of positions, copied branches.

        Args:
            tensors: by name.
            source: where the tensors come from, for error messages.

        Returns:
            tensors by the names of `state_dict`, complete where the file is.

        Raises:
            CheckpointError: a tensor cannot be adapted.
        """
        return dict(tensors)
