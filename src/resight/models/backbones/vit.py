"""The plain vision transformer with TransReID's branches.

It maps images [R, 3, H, W] and side information to a list of features [R, D]: the global one, then JPM's parts.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, cast

import timm
import torch
from timm.layers.attention import Attention as TimmAttention
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resight.config.sections import Model
from resight.errors import ConfigError, unknown
from resight.models.backbones.resnet import RESNET
from resight.models.blocks import Block, OverlapPatchEmbed
from resight.models.jpm import JPM
from resight.models.sie import SIE

LEGACY_SMALL: Final = "legacy_vit_small"
COMMON: Final = (
    *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
    *(f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")),
    *(f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large")),
)


class ViT(nn.Module):
    """Overlapping patches, side information, transformer blocks, and the global and local branch over the last one.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.
        counts: number of known labels of each kind of side information; a kind with fewer than two is not used.

    Raises:
        ConfigError: the backbone is not a plain ViT, or the images give too few patches.
    """

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        net = plain_vit(settings, size)
        self.width = net.embed_dim
        self.prefix = net.num_prefix_tokens
        self.no_embed_class = net.no_embed_class
        self.patch_embed = net.patch_embed
        self.cls_token = net.cls_token
        self.reg_token = net.reg_token
        self.pos_embed = cast(nn.Parameter, net.pos_embed)
        self.pos_drop = net.pos_drop
        self.norm_pre = net.norm_pre
        self.blocks = nn.ModuleList(cast(list[Block], list(net.blocks)))
        self.norm = net.norm
        sie_counts = {
            kind: counts[kind] for kind in ("camera", "view", "modality") if kind in settings.sie and counts[kind] > 1
        }
        self.sie = SIE(sie_counts, self.width, settings.sie_weight, settings.sie_dropout) if sie_counts else None
        self.gradient_checkpointing = False
        """Whether training stores only each block's input and recomputes the block for the backward pass."""
        self.jpm: JPM | None = None
        if settings.jpm:
            if self.patch_embed.num_patches < settings.jpm_parts:
                raise ConfigError(
                    f"jpm_parts {settings.jpm_parts} needs at least as many patches; images of {size[0]}x{size[1]} "
                    f"give {self.patch_embed.num_patches}"
                )
            self.jpm = JPM(
                cast(Block, self.blocks[-1]),
                self.norm,
                settings.jpm_parts,
                settings.jpm_shift,
                settings.jpm_groups,
                settings.jpm_rearrange,
                self.prefix,
            )

    def compile_blocks(self) -> None:
        """Use torch.compile for every block in training."""
        for module in self.modules():
            if isinstance(module, Block):
                module.compiled = True

    @property
    def features(self) -> int:
        """The number of features of an image: 1, or 1 + parts."""
        return 1 + (self.jpm.parts if self.jpm is not None else 0)

    def tokens(self, images: Tensor, side_info: Mapping[str, Tensor]) -> Tensor:
        """Compute the tokens that enter the first block: class token, registers and patches of [R, 3, H, W].

        Returns:
            [R, T, D], with position and side information; T = 1 + N without registers.
        """
        # Embed the patches: [R, N, D].
        x = self.patch_embed(images)

        # Put the class token and registers before them and add positions: [R, T, D].
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        if self.no_embed_class:
            x = torch.cat([*prefix, x + self.pos_embed], 1)
        else:
            x = torch.cat([*prefix, x], 1) + self.pos_embed

        # Add the side information, [R, 1, D], to every token: [R, T, D].
        if self.sie is not None:
            x = x + self.sie(side_info)
        return self.norm_pre(self.pos_drop(x))

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the features of images [R, 3, H, W]: the global one, [R, D], then each part's, [R, D]."""
        x = self.tokens(images, side_info)  # [R, T, D]

        # All blocks but the last: [R, T, D].
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks[:-1]:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)

        # Global branch, the last block for the class token alone: [R, D]. Local branch: [R, D] for each part.
        features = [self.norm(self.blocks[-1](x, queries=1))[:, 0]]
        if self.jpm is not None:
            features += self.jpm(x)
        return features


def plain_vit(settings: Model, size: tuple[int, int]) -> VisionTransformer:
    """Build a timm vision transformer, with random weights, from our patch embedding and blocks.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.

    Raises:
        ConfigError: timm has no such model, it is not a plain ViT, or the images are smaller than a patch.
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
    ours: dict[str, Any] = {"embed_layer": partial(OverlapPatchEmbed, stride=settings.stride), "block_fn": Block}
    if settings.backbone == LEGACY_SMALL:
        net = VisionTransformer(embed_dim=768, depth=8, num_heads=8, mlp_ratio=3.0, qkv_bias=False, **ours, **options)
        for block in net.blocks:
            # As in the reference, the scale is that of the full width, not of a head.
            cast(Any, block).attn.weights.scale = 768**-0.5
        return net
    _check_plain(settings.backbone, size)
    return cast(VisionTransformer, timm.create_model(settings.backbone, **ours, **options))


def _check_plain(name: str, size: tuple[int, int]) -> None:
    if not timm.is_model(name):
        raise unknown("backbone", name, [RESNET, LEGACY_SMALL, *COMMON, "and every other plain ViT of timm"])
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0)
    blocks = getattr(net, "blocks", None)
    plain = (
        isinstance(net, VisionTransformer)
        and type(blocks[0]) is TimmBlock  # pyright: ignore[reportOptionalSubscript]
        and type(blocks[0].attn) is TimmAttention  # pyright: ignore[reportOptionalSubscript]
        and net.cls_token is not None
        and net.pos_embed is not None
    )
    if not plain:
        raise ConfigError(
            f"{name} is no plain vision transformer (class token, learned positions, pre-norm blocks); "
            f"use one such as vit_base_patch16_224, deit_small_patch16_224 or vit_small_patch14_dinov2, or {RESNET}"
        )
    patch = cast(Any, net).patch_embed.patch_size[0]
    if min(size) < patch:
        raise ConfigError(f"images of {size[0]}x{size[1]} are smaller than a patch of {name} ({patch} pixels)")
