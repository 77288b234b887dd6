"""Position embeddings of another grid."""

from typing import Any, Final, Protocol, cast

from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from resight.errors import CheckpointError

SIZES: Final = ((256, 128), (384, 128), (224, 224), (256, 256), (384, 384), (224, 112))
"""Usual sizes of images, in pixels."""
STRIDES: Final = (12, 11, 14, 8)
"""Usual strides of overlapping patches, in pixels."""


class HasPositions(Protocol):
    """A transformer with learned positions: [1, N, D], or with those of class token and registers before them."""

    @property
    def pos_embed(self) -> Tensor:
        """The positions, a parameter."""
        ...

    @property
    def patch_embed(self) -> nn.Module:
        """Has the grid, `grid_size`."""
        ...


def resize_positions(
    positions: Tensor, transformer: HasPositions, source: str = "the file", grid: tuple[int, int] | None = None
) -> Tensor:
    """Resize a position embedding to a transformer's grid, bilinearly: [1, prefix + n, D] -> [1, prefix + N, D].

    It is returned unchanged where it already has that size.

    Args:
        positions: of the file.
        transformer: has the grid that is needed.
        source: where the positions come from, for error messages.
        grid: rows and columns of the file's patches. None: those of a usual size of images, a square, or a grid that is
            twice as high as wide, as in the pre-training on persons.

    Raises:
        CheckpointError: the number of its patches does not fit the grid, or is that of no known one.
    """
    needed = transformer.pos_embed
    if positions.shape == needed.shape or positions.ndim != 3 or not positions.is_floating_point():
        return positions  # `fit` names a shape or type that does not fit
    new_grid = list(cast(Any, transformer.patch_embed).grid_size)
    prefix = needed.shape[1] - new_grid[0] * new_grid[1]
    patches = positions.shape[1] - prefix
    grid = grid or guess_grid(patches)
    if grid is None:
        raise CheckpointError(
            f"{source}: the position embedding has {patches} patches, which is no square grid and none twice as high "
            f"as wide, and {needed.shape[1] - prefix} are needed"
        )
    return resample_abs_pos_embed(
        positions.float(), new_grid, list(grid), num_prefix_tokens=prefix, interpolation="bilinear", antialias=False
    )


def guess_grid(patches: int, patch: int = 16) -> tuple[int, int] | None:
    """Return rows and columns of the grid of a usual size of images, of a square, or of one twice as high as wide.

    Args:
        patches: their number.
        patch: size of a patch in pixels.

    Returns:
        None where the number is that of no such grid.
    """
    for stride in (patch, *(stride for stride in STRIDES if stride < patch)):
        for size in SIZES:
            rows, columns = ((pixels - patch) // stride + 1 for pixels in size)
            if rows * columns == patches:
                return rows, columns
    for ratio in (1, 2):
        columns = round((max(patches, 0) / ratio) ** 0.5)
        if columns and ratio * columns * columns == patches:
            return ratio * columns, columns
    return None
