"""The plain vision transformer with TransReID's branches, and what published models add to it.

It maps images [R, 3, H, W] and side information to a list of features [R, D]: the global one, then JPM's parts, the
part tokens of PASS or CLIP's projection.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.backbone import TOKEN_OPTIONS, Backbone
from resight.models.backbones.plain import plain_vit
from resight.models.backbones.positions import resize_positions
from resight.models.blocks import Block
from resight.models.jpm import JPM
from resight.models.pooling import Pool
from resight.models.sie import SIE, used_counts


class ViT(Backbone):
    """Overlapping patches, side information, transformer blocks, and the global and local branch over the last one.

    Args:
        settings: the model's section of the configuration.
        size: height and width of the images in pixels.
        counts: number of known labels of each kind of side information; a kind with fewer than two is not used.

    Raises:
        ConfigError: the options exclude each other, or the images give too few patches.
    """

    options: ClassVar[frozenset[str]] = TOKEN_OPTIONS | {
        *("stride", "stem", "pooling", "gem_power", "sie_tokens", "part_tokens", "part_fusion", "part_necks"),
        *("projection", "drop_path", "dropout", "attention_dropout"),
    }
    has_blocks = True

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        _require_compatible(settings)
        net = plain_vit(settings, size)
        self.width = net.embed_dim
        self.token_width = self.width
        self.depth = len(net.blocks)
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
        sie_counts = used_counts(settings.sie, counts)
        self.sie = SIE(sie_counts, self.width, settings.sie_weight, settings.sie_dropout) if sie_counts else None
        self.sie_tokens = settings.sie_tokens
        self.part_tokens = settings.part_tokens
        self.part_fusion = settings.part_fusion
        self.part_necks = settings.part_necks
        self.jpm = self._make_jpm(settings, size) if settings.jpm else None
        self.pool = Pool(settings.pooling or "token", settings.gem_power)
        self.projection = nn.Linear(self.width, settings.projection, bias=False) if settings.projection else None
        self.widths = self._feature_widths()

    def _make_jpm(self, settings: Model, size: tuple[int, int]) -> JPM:
        patches = cast(Any, self.patch_embed).num_patches
        if patches < settings.jpm_parts:
            raise ConfigError(
                f"jpm_parts {settings.jpm_parts} needs at least as many patches; images of {size[0]}x{size[1]} "
                f"give {patches}"
            )
        return JPM(
            cast(Block, self.blocks[-1]),
            self.norm,
            settings.jpm_parts,
            settings.jpm_shift,
            settings.jpm_groups,
            settings.jpm_rearrange,
            self.prefix,
        )

    def _feature_widths(self) -> tuple[int, ...]:
        if self.part_tokens and self.part_necks:
            return (self.width,) * (1 + self.part_tokens)
        if self.part_tokens:
            return (self._fused_width(),)
        local = (self.width,) * (0 if self.jpm is None else self.jpm.parts)
        projected = () if self.projection is None else (self.projection.out_features,)
        return (self.pool.width(self.width), *local, *projected)

    def _fused_width(self) -> int:
        return self.width * {"concat": 2, "mean": 1, "all": 1 + self.part_tokens}[self.part_fusion]

    @property
    def embedding_width(self) -> int:
        """The length of an embedding: D, (1 + parts) D with JPM, or what the fusion of part tokens gives."""
        return self._fused_width() if self.part_tokens else sum(self.widths)

    def compile_blocks(self) -> None:
        """Use torch.compile for every block in training."""
        for module in self.modules():
            if isinstance(module, Block):
                module.compiled = True

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

        # Add the side information, [R, 1, D], to every token, or to the class token alone: [R, T, D].
        if self.sie is not None:
            vectors = self.sie(side_info)
            x = x + vectors if self.sie_tokens == "all" else torch.cat([x[:, :1] + vectors, x[:, 1:]], 1)
        return self.norm_pre(self.pos_drop(x))

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the features of images [R, 3, H, W]: the global one, [R, D], then each local one's, [R, D]."""
        return self.features_and_tokens(images, side_info)[0]

    def features_and_tokens(
        self, images: Tensor, side_info: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute the features, and the tokens [R, T, D] that enter the last block."""
        x = self.tokens(images, side_info)  # [R, T, D]

        # All blocks but the last: [R, T, D].
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks[:-1]:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)

        # Global branch, the last block for the tokens that are used: [R, D].
        queries = 1 + self.part_tokens if self.pool.name == "token" else None
        last = self.norm(self.blocks[-1](x, queries=queries))  # [R, Q, D]
        if self.part_tokens:
            features = list(last.unbind(1))
            return features if self.part_necks else [self._fuse(features)], x
        token = last[:, 0]
        features = [token if queries is not None else self.pool(token, last[:, self.prefix :])]

        # Local branch: [R, D] for each part. Projection: [R, P].
        if self.jpm is not None:
            features += self.jpm(x)
        if self.projection is not None:
            features.append(self.projection(features[0]))
        return features, x

    def combine(self, features: Sequence[Tensor]) -> Tensor:
        """Make the embedding [R, E]: part tokens fused, JPM's parts divided by their number (the reference's test
        feature), else concatenated."""
        if self.part_tokens and self.part_necks:
            return self._fuse(features)
        if self.jpm is not None:
            return torch.cat([features[0], *(feature / self.jpm.parts for feature in features[1:])], 1)
        return torch.cat(list(features), 1)

    def _fuse(self, features: Sequence[Tensor]) -> Tensor:
        """Fuse the features of class and part tokens, [R, D] each."""
        if self.part_fusion == "all":
            return torch.cat(list(features), 1)
        parts = torch.stack(list(features[1:])).mean(0)
        return (features[0] + parts) / 2 if self.part_fusion == "mean" else torch.cat([features[0], parts], 1)

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Rename the last norm, resize the positions bilinearly as the reference does, and copy the last block to JPM.

        SIE and the projection keep their values where the file has none.

        Raises:
            CheckpointError: the positions cannot be resized.
        """
        adapted = dict(tensors)
        if "fc_norm.weight" in adapted and "norm.weight" not in adapted:
            adapted |= {"norm.weight": adapted["fc_norm.weight"], "norm.bias": adapted["fc_norm.bias"]}
        if "pos_embed" in adapted and ("reg_token" in adapted) == (self.reg_token is not None):
            adapted["pos_embed"] = resize_positions(adapted["pos_embed"], self, source)
        # What a file of another task does not have keeps its value, or is a copy.
        expected = self.state_dict()
        last = f"blocks.{self.depth - 1}."
        for name in expected.keys() - adapted.keys():
            copied = name.replace("jpm.block.", last).replace("jpm.norm.", "norm.")
            if copied in adapted:
                adapted[name] = adapted[copied]
            elif name.startswith(("sie.", "projection.")):
                adapted[name] = expected[name]
        return adapted


def _require_compatible(settings: Model) -> None:
    """Check the options that exclude each other."""
    pooled = settings.pooling not in (None, "token")
    branches = {
        "jpm": settings.jpm,
        "part_tokens": settings.part_tokens,
        "projection": settings.projection,
        f"pooling {settings.pooling}": pooled,
    }
    used = [name for name, is_used in branches.items() if is_used]
    if len(used) > 1:
        raise ConfigError(f"{used[0]} and {used[1]} exclude each other: use one of them")
    if not settings.part_tokens and (settings.part_fusion != "concat" or not settings.part_necks):
        raise ConfigError("part_fusion and part_necks need part_tokens")
    if settings.gem_power != 3.0 and "gem" not in (settings.pooling or ""):
        raise ConfigError("gem_power needs the pooling gem or token-gem")
