"""Position embeddings of another grid."""

from typing import Any, Protocol, cast

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from resight.errors import CheckpointError


class HasPositions(Protocol):
    """A transformer with learned positions: [1, prefix + N, D], or [1, N, D] with `no_embed_class`."""

    pos_embed: nn.Parameter
    patch_embed: nn.Module
    prefix: int
    no_embed_class: bool


def resize_positions(positions: Tensor, backbone: HasPositions, source: str = "the file") -> Tensor:
    """Resize a position embedding to the backbone's grid, bilinearly: [1, prefix + n, D] -> [1, prefix + N, D].

    Its own grid is square, or twice as high as wide, as in the pre-training on persons. It is returned unchanged where
    it already has the backbone's size.

    Args:
        positions: of the file.
        backbone: has the grid that is needed.
        source: where the positions come from, for error messages.

    Raises:
        CheckpointError: it is no position embedding, or its grid is neither square nor twice as high as wide.
    """
    needed = backbone.pos_embed
    if positions.shape == needed.shape or positions.ndim != 3 or not positions.is_floating_point():
        return positions  # `fit` names a shape or type that does not fit
    prefix = 0 if backbone.no_embed_class else backbone.prefix
    patches = positions.shape[1] - prefix
    grid = guess_grid(patches)
    if grid is None:
        raise CheckpointError(
            f"{source}: the position embedding has {patches} patches, which is no square grid and none twice as high "
            f"as wide, and {needed.shape[1] - prefix} are needed"
        )
    new_grid = list(cast(Any, backbone.patch_embed).grid_size)
    return resample_abs_pos_embed(
        positions.float(), new_grid, list(grid), num_prefix_tokens=prefix, interpolation="bilinear", antialias=False
    )


def guess_grid(patches: int) -> tuple[int, int] | None:
    """Return rows and columns of a square grid, or of one twice as high as wide; None where it can be neither."""
    for ratio in (1, 2):
        columns = round((patches / ratio) ** 0.5)
        if columns > 0 and ratio * columns * columns == patches:
            return ratio * columns, columns
    return None
