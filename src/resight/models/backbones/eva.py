"""timm's `Eva` transformers, whose attention has rotary positions: DINOv3, EVA-02 and others."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import timm
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.backbone import TOKEN_OPTIONS, Backbone
from resight.models.backbones.positions import resize_positions
from resight.models.backbones.timm_layers import map_shape, with_prefix
from resight.models.jpm import rearrange
from resight.models.pooling import Pool
from resight.models.sie import SIE, used_counts


class RotaryJPM(nn.Module):
    """JPM for blocks with rotary positions: each patch keeps its own position, and each part all prefix tokens.

    Args:
        block: the backbone's last block, which is copied.
        norm: the backbone's last norm, which is copied.
        settings: the fields `jpm_*` are used.
        prefix: number of tokens before the first patch.
    """

    def __init__(self, block: nn.Module, norm: nn.Module, settings: Model, prefix: int) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.norm = copy.deepcopy(norm)
        self.parts = settings.jpm_parts
        self.shift = settings.jpm_shift
        self.groups = settings.jpm_groups
        self.shuffled = settings.jpm_rearrange
        self.prefix = prefix

    def forward(self, tokens: Tensor, rope: Tensor | None) -> list[Tensor]:
        """Compute the local features from the tokens [B, T, D] that enter the last block: one [B, D] for each part.

        Args:
            tokens: [B, T, D].
            rope: rotary positions of the patches, [N, d] or [heads, N, d]; None where there are none.
        """
        prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        length = patches.shape[1] // self.parts
        if self.shuffled:
            patches = rearrange(patches, self.shift, self.groups)
            rope = None if rope is None else rearrange(rope.reshape(-1, *rope.shape[-2:]), self.shift, self.groups)
            rope = rope[0] if rope is not None and len(rope) == 1 else rope
        local = list[Tensor]()
        for start in range(0, length * self.parts, length):
            # The part's patches, [B, N / parts, D], after the prefix tokens, through the shared block: [B, D].
            part = torch.cat([prefix, patches[:, start : start + length]], 1)
            positions = None if rope is None else rope[..., start : start + length, :]
            local.append(self.norm(self.block(part, rope=positions))[:, 0])
        return local


class Eva(Backbone):
    """A transformer of timm's class `Eva`, with side information, JPM and a choice of pooling.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.
        counts: number of known labels of each kind of side information; a kind with fewer than two is not used.

    Raises:
        ConfigError: the options exclude each other, or the images give too few patches.
    """

    options: ClassVar[frozenset[str]] = TOKEN_OPTIONS | {
        *("pooling", "gem_power", "sie_tokens", "drop_path", "dropout", "attention_dropout"),
    }
    has_blocks = True

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        self.net = _create(settings, size)
        self.width = int(self.net.embed_dim)
        self.token_width = self.width
        self.depth = len(self.net.blocks)
        self.prefix = int(self.net.num_prefix_tokens)
        pooling = settings.pooling or ("mean" if self.net.cls_token is None else "token")
        if self.net.cls_token is None and ("token" in pooling or settings.jpm or settings.sie_tokens == "class"):
            raise ConfigError(f"{settings.backbone} has no class token: use another pooling, without JPM")
        if settings.jpm and pooling != "token":
            raise ConfigError(f"jpm and pooling {pooling} exclude each other: use one of them")
        if settings.gem_power != 3.0 and "gem" not in pooling:
            raise ConfigError("gem_power needs the pooling gem or token-gem")
        sie_counts = used_counts(settings.sie, counts)
        self.sie = SIE(sie_counts, self.width, settings.sie_weight, settings.sie_dropout) if sie_counts else None
        self.sie_tokens = settings.sie_tokens
        self.pool = Pool(pooling, settings.gem_power)
        self.jpm: RotaryJPM | None = None
        if settings.jpm:
            patches = self.net.patch_embed.num_patches
            if patches < settings.jpm_parts:
                raise ConfigError(f"jpm_parts {settings.jpm_parts} needs at least as many patches, not {patches}")
            self.jpm = RotaryJPM(self.net.blocks[-1], self.net.norm, settings, self.prefix)
        self.widths = (self.pool.width(self.width), *(self.width,) * (settings.jpm_parts if settings.jpm else 0))

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the features of images [R, 3, H, W]: the global one, [R, D], then each part's, [R, D]."""
        return self.features_and_tokens(images, side_info)[0]

    def features_and_tokens(
        self, images: Tensor, side_info: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute the features, and the tokens [R, T, D] that enter the last block."""
        # Patches with prefix tokens and learned positions, [R, T, D], and rotary positions.
        x, rope = self.net._pos_embed(self.net.patch_embed(images))
        if self.sie is not None:
            vectors = self.sie(side_info)  # [R, 1, D]
            x = x + vectors if self.sie_tokens == "all" else torch.cat([x[:, :1] + vectors, x[:, 1:]], 1)
        x = self.net.norm_pre(x)

        # All blocks: [R, T, D]. Positions can be of each block.
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        before = x
        for number, block in enumerate(self.net.blocks):
            before, positions = x, self._block_rope(rope, number)
            x = checkpoint(block, x, rope=positions, use_reentrant=False) if recompute else block(x, rope=positions)

        # Global branch: [R, D]. Local branch: [R, D] for each part.
        x = self.net.norm(x)
        token = None if self.net.cls_token is None else x[:, 0]
        features = [self.net.fc_norm(self.pool(token, x[:, self.prefix :]))]
        if self.jpm is not None:
            features += self.jpm(before, self._block_rope(rope, self.depth - 1))
        return features, before

    def _block_rope(self, rope: Tensor | None, number: int) -> Tensor | None:
        return rope[number] if rope is not None and getattr(self.net, "rope_mixed", False) else rope

    def combine(self, features: Sequence[Tensor]) -> Tensor:
        """Concatenate the features to the embedding [R, E], each of JPM's parts divided by their number."""
        parts = 1 if self.jpm is None else self.jpm.parts
        return torch.cat([features[0], *(feature / parts for feature in features[1:])], 1)

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Give the tensors of a timm file our names, resize learned positions, and copy the last block to JPM.

        Raises:
            CheckpointError: the positions cannot be resized.
        """
        expected = self.state_dict()
        adapted = with_prefix(tensors, self)
        if "net.pos_embed" in adapted and "net.pos_embed" in expected:
            adapted["net.pos_embed"] = resize_positions(adapted["net.pos_embed"], self.net, source)
        last = f"net.blocks.{self.depth - 1}."
        for name in expected.keys() - adapted.keys():
            copied = name.replace("jpm.block.", last).replace("jpm.norm.", "net.norm.")
            if copied in adapted:
                adapted[name] = adapted[copied]
            elif name.startswith("sie."):
                adapted[name] = expected[name]
        return adapted


def _create(settings: Model, size: tuple[int, int]) -> Any:
    """Create timm's network; the mean over patches is normalised after pooling, as timm does it."""
    global_pool = "avg" if settings.pooling == "mean" else "token"
    map_shape(settings.backbone, size, global_pool)  # refuses a size that it cannot take
    return timm.create_model(
        settings.backbone,
        num_classes=0,
        img_size=size,
        global_pool=global_pool,
        drop_path_rate=settings.drop_path,
        pos_drop_rate=settings.dropout,
        proj_drop_rate=settings.dropout,
        attn_drop_rate=settings.attention_dropout,
    )
