"""Which plain vision transformer the tensors of a checkpoint are of, and the size of its images."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.plain import LEGACY_SMALL
from resight.models.backbones.positions import guess_grid
from resight.models.convert.family import FamilyOptions, require_shape

NAMES: Final = {  # by width, depth and size of a patch
    (192, 12, 16): "vit_tiny_patch16_224",
    (384, 12, 16): "vit_small_patch16_224",
    (768, 12, 16): "vit_base_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
    (768, 8, 16): LEGACY_SMALL,
    (384, 12, 14): "vit_small_patch14_dinov2",
    (768, 12, 14): "vit_base_patch14_dinov2",
    (1024, 24, 14): "vit_large_patch14_dinov2",
}
_SIZES: Final = ((256, 128), (384, 128), (224, 224), (256, 256), (384, 384), (224, 112))
_STRIDES: Final = (12, 11, 14, 8)


@dataclass
class PlainFacts:
    """What the tensors of a plain vision transformer tell."""

    backbone: str
    size: tuple[int, int]
    stride: int | None
    assumed: list[str]


def describe_plain(
    names: Mapping[str, Tensor], options: FamilyOptions, prefix_tokens: int, backbone: str | None = None
) -> PlainFacts:
    """Find name, image size and stride of a plain vision transformer.

    Args:
        names: its tensors by timm's names.
        options: `backbone`, `size` and `stride` are used.
        prefix_tokens: positions before that of the first patch.
        backbone: its name, where it is known.

    Raises:
        CheckpointError: the tensors do not tell it.
        ConfigError: an option does not fit the tensors.
    """
    name = options.get("backbone") or backbone or vit_name(names)
    projection = names.get("patch_embed.proj.weight")
    patch = 16
    if projection is not None and projection.ndim == 4:
        patch = projection.shape[-1] * (2 if "patch_embed.conv.0.weight" in names else 1)
    patches = require_shape(names, "pos_embed", 3)[1] - prefix_tokens
    size, stride, assumed = find_size(patches, patch, options)
    return PlainFacts(name, size, None if stride == patch else stride, assumed)


def vit_name(names: Mapping[str, Tensor]) -> str:
    """Return the timm name of the plain vision transformer that has these tensors.

    Raises:
        CheckpointError: none of the known ones has; says what to give.
    """
    width = require_shape(names, "blocks.0.norm1.weight", 1)[0]
    patch = require_shape(names, "patch_embed.proj.weight", 4)[-1]
    patch *= 2 if "patch_embed.conv.0.weight" in names else 1
    depth = len({match[1] for match in (re.match(r"blocks\.(\d+)\.", name) for name in names) if match})
    name = NAMES.get((width, depth, patch))
    if name is None:
        raise ConfigError(
            f"no known vision transformer has width {width}, depth {depth} and patches of {patch} pixels: give its "
            "timm name with --backbone NAME"
        )
    if "reg_token" in names:
        return name.replace("patch14", "patch14_reg4")
    return name


def find_size(patches: int, patch: int, options: FamilyOptions) -> tuple[tuple[int, int], int, list[str]]:
    """Find the size of the images and the stride of the patches.

    Args:
        patches: number of positions of patches.
        patch: size of a patch in pixels.
        options: `size` and `stride` are used where they are stated.

    Returns:
        height and width, the stride in pixels, and what was assumed. Positions are resized where a stated size gives
        another number of patches.

    Raises:
        CheckpointError: the number of patches fits no size that is known.
    """
    size, stride = options.get("size"), options.get("stride")
    sizes = _SIZES if size is None else (size,)
    strides = (patch, *(known for known in _STRIDES if known < patch)) if stride is None else (stride,)
    for tried in sizes:
        for step in strides:
            if count_patches(tried, patch, step) == patches:
                return tried, step, _assumed_size(tried, step, options)
    if size is not None:
        step = stride or patch
        needed = count_patches(size, patch, step)
        if needed < 1:
            raise ConfigError(f"--size {size[0]} {size[1]} is smaller than a patch ({patch} pixels)")
        return size, step, [f"the positions of {patches} patches are resized to {needed}, bilinearly"]
    grid = guess_grid(patches) if stride in (None, patch) else None
    if grid is None:
        raise CheckpointError(f"the {patches} patches of the checkpoint fit no usual image size: give --size H W")
    guessed = (grid[0] * patch, grid[1] * patch)
    return guessed, patch, _assumed_size(guessed, patch, options)


def count_patches(size: tuple[int, int], patch: int, stride: int) -> int:
    """The number of patches of an image; 0 where it is smaller than a patch."""
    if min(size) < patch:
        return 0
    return ((size[0] - patch) // stride + 1) * ((size[1] - patch) // stride + 1)


def _assumed_size(size: tuple[int, int], stride: int, options: FamilyOptions) -> list[str]:
    if "size" in options and "stride" in options:
        return []
    return [f"images of {size[0]}x{size[1]} and a stride of {stride}, which give the checkpoint's patches"]


def require_names(tensors: Mapping[str, Tensor], names: Sequence[str], family: str) -> None:
    """Check that tensors exist.

    Raises:
        CheckpointError: one is missing; lists the names.
    """
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(f"a checkpoint of {family} has {', '.join(missing)}, and this one does not")


def without_base(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the backbone by timm's names: without `base.` or `backbone.`, where these are used."""
    for prefix in ("base.", "backbone."):
        if any(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return dict(tensors)


def base_prefix(tensors: Mapping[str, Tensor]) -> str:
    """The prefix of the backbone's names: `base.`, `backbone.`, or none."""
    return next((p for p in ("base.", "backbone.") if any(name.startswith(p) for name in tensors)), "")
