"""timm's plain vision transformers, built from our patch embedding and blocks."""

from functools import cache, partial
from typing import Any, Final, cast

import timm
from timm.layers.attention import Attention as TimmAttention
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.stems import ICSPatchEmbed
from resight.models.blocks import Block, OverlapPatchEmbed
from resight.models.meta import on_meta

LEGACY_SMALL: Final = "legacy_vit_small"
COMMON: Final = (
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
    *(f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *(f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large")),
)


def plain_vit(settings: Model, size: tuple[int, int]) -> VisionTransformer:
    """Build a timm vision transformer, with random weights, from our patch embedding and blocks.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.

    Raises:
        ConfigError: the images are smaller than a patch, or the options exclude each other.
    """
    options: dict[str, Any] = {
        "img_size": size,
        "num_classes": 0,
        "global_pool": "token",
        "drop_path_rate": settings.drop_path,
        "pos_drop_rate": settings.dropout,
        "proj_drop_rate": settings.dropout,
        "attn_drop_rate": settings.attention_dropout,
    }
    ours: dict[str, Any] = {"embed_layer": _patch_embed(settings), "block_fn": Block}
    if settings.part_tokens:
        # The part tokens are timm's register tokens with positions of their own.
        ours |= {"reg_tokens": settings.part_tokens, "no_embed_class": False}
    if settings.backbone == LEGACY_SMALL:
        net = VisionTransformer(embed_dim=768, depth=8, num_heads=8, mlp_ratio=3.0, qkv_bias=False, **ours, **options)
        for block in net.blocks:
            # As in the reference, the scale is that of the full width, not of a head.
            cast(Any, block).attn.weights.scale = 768**-0.5
        return net
    net = cast(Any, empty_net(settings.backbone))
    patch = net.patch_embed.patch_size[0]
    if min(size) < patch:
        raise ConfigError(
            f"images of {size[0]}x{size[1]} are smaller than a patch of {settings.backbone} ({patch} pixels)"
        )
    if settings.part_tokens and net.reg_token is not None:
        raise ConfigError(
            f"part_tokens needs a vision transformer without register tokens; {settings.backbone} has them"
        )
    return cast(VisionTransformer, timm.create_model(settings.backbone, **ours, **options))


def _patch_embed(settings: Model) -> Any:
    if settings.stem == "patch":
        return partial(OverlapPatchEmbed, stride=settings.stride)
    if settings.stride is not None:
        raise ConfigError("stride needs the stem patch: the patches of the stem ics do not overlap")
    return ICSPatchEmbed


@cache
def empty_net(name: str) -> nn.Module:
    """Build a timm network of that name without memory, to look at its parts."""
    with on_meta():
        return timm.create_model(name, num_classes=0)


def is_plain(name: str) -> bool:
    """Return whether a name is of a plain vision transformer: class token, learned positions, pre-norm blocks."""
    if name == LEGACY_SMALL:
        return True
    net = empty_net(name)
    blocks = getattr(net, "blocks", None)
    return (
        isinstance(net, VisionTransformer)
        and type(blocks[0]) is TimmBlock  # pyright: ignore[reportOptionalSubscript]
        and type(blocks[0].attn) is TimmAttention  # pyright: ignore[reportOptionalSubscript]
        and net.cls_token is not None
        and net.pos_embed is not None
    )
