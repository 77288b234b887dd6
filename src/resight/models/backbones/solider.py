"""The Swin transformer of SOLIDER (Chen et al. 2023): a semantic weight scales and shifts the map after each stage."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import Model
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.layers import number_blocks
from resight.models.backbones.swin import PatchMerging, SwinStage

PATCH: Final = 4


@dataclass(frozen=True)
class SwinLayout:
    """The structure of a Swin transformer."""

    width: int
    """Channels of the first stage; each later one has twice as many."""
    depths: tuple[int, ...]
    """Number of blocks in each stage."""
    heads: tuple[int, ...]
    """Number of attention heads in each stage."""
    window: int = 7
    """Side of a window in positions."""


SOLIDER_SWINS: Final[Mapping[str, SwinLayout]] = {
    "solider_swin_tiny": SwinLayout(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "solider_swin_small": SwinLayout(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "solider_swin_base": SwinLayout(128, (2, 2, 18, 2), (4, 8, 16, 32)),
}


class Semantic(nn.Module):
    """Scales and shifts each channel of a map by linear functions of the semantic weight.

    Args:
        width: channels, C.
        weight: the semantic weight s, from 0 to 1.
    """

    def __init__(self, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.scale = nn.Linear(2, width)
        self.shift = nn.Linear(2, width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute x * softplus(scale [s, 1 - s]) + shift [s, 1 - s] for maps [B, H, W, C]."""
        weights = x.new_tensor([self.weight, 1 - self.weight])
        return x * F.softplus(self.scale(weights)) + self.shift(weights)


class SoliderSwin(Backbone):
    """SOLIDER's Swin transformer: the mean of the last stage's normalised map."""

    options = frozenset(("semantic_weight", "drop_path", "dropout", "attention_dropout"))

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        layout = SOLIDER_SWINS[settings.backbone]
        widths = [layout.width * 2**stage for stage in range(len(layout.depths))]
        self.widths = (widths[-1],)
        self.patch_embed = nn.Conv2d(3, layout.width, PATCH, PATCH)
        self.patch_norm = nn.LayerNorm(layout.width)
        rates = torch.linspace(0, settings.drop_path, sum(layout.depths), device="cpu").tolist()
        dropouts = (settings.dropout, settings.attention_dropout)
        self.stages = nn.ModuleList()
        for width, heads, depth in zip(widths, layout.heads, layout.depths, strict=True):
            self.stages.append(SwinStage(width, heads, layout.window, rates[:depth], dropouts))
            rates = rates[depth:]
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.semantic = nn.ModuleList(Semantic(2 * width, settings.semantic_weight) for width in widths[:-1])
        self.map_norm = nn.LayerNorm(widths[-1])
        self.drop = nn.Dropout(settings.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                    nn.init.zeros_(module.bias)
        self.layers = number_blocks(self, r"stages\.\d\.blocks\.\d+\.")
        self.depth = max(self.layers.values())
        # A merge and a semantic weight are of the layer of the block before them.
        for name in self.layers:
            match = re.match(r"(?:merges|semantic)\.(\d)\.", name)
            if match is not None:
                self.layers[name] = sum(layout.depths[: int(match[1]) + 1])

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the feature of images [R, 3, H, W], in a list: [R, D]. Side information is ignored."""
        # Embed patches of 4 x 4 pixels: [R, H / 4, W / 4, C].
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        x = self.drop(self.patch_norm(self.patch_embed(images).permute(0, 2, 3, 1)))
        # Stages, each but the last followed by a merge and the semantic weight: [R, H / 32, W / 32, 8 C].
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index < len(self.merges):
                x = self.semantic[index](self.merges[index](x))
        # Normalise, and take the mean over positions: [R, 8 C].
        return [self.map_norm(x).mean((1, 2))]
