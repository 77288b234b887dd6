"""CLIP's ResNets (Radford et al. 2021) as CLIP-ReID uses them: the last stage has stride 1, and there are two features.

They have a stem of three convolutions, average pools in place of strides, and attention that pools the last maps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.sections import Model
from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.backbone import Backbone
from resight.models.backbones.layers import number_blocks
from resight.models.backbones.positions import guess_grid

_HEAD_WIDTH: Final = 64
_POSITIONS: Final = "attnpool.positional_embedding"


@dataclass(frozen=True)
class ClipResNetLayout:
    """The structure of a CLIP ResNet."""

    blocks: tuple[int, int, int, int]
    """Number of blocks in each stage."""
    stem: int
    """Channels of the stem; the last stage has 32 times as many."""
    projected: int
    """Width of the attention pool's output."""


CLIP_RESNETS: Final[Mapping[str, ClipResNetLayout]] = {
    "clip_rn50": ClipResNetLayout((3, 4, 6, 3), 64, 1024),
    "clip_rn101": ClipResNetLayout((3, 4, 23, 3), 64, 512),
    "clip_rn50x4": ClipResNetLayout((4, 6, 10, 6), 80, 640),
    "clip_rn50x16": ClipResNetLayout((6, 8, 18, 8), 96, 768),
}


class ClipBlock(nn.Module):
    """A bottleneck whose stride is an average pool before the last convolution, and before the shortcut's."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.stride = stride
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, C, H, W]."""
        shortcut = x if self.downsample is None else self.downsample(self._reduce(x))
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(self._reduce(x))) + shortcut)

    def _reduce(self, x: Tensor) -> Tensor:
        return x if self.stride == 1 else F.avg_pool2d(x, self.stride)


class AttentionPool(nn.Module):
    """One query, the mean of all positions, attends to itself and the N positions.

    Args:
        positions: N.
        width: channels of the maps, D.
        outputs: width of the output.
    """

    def __init__(self, positions: int, width: int, outputs: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(1 + positions, width) / width**0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, outputs)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(projection.weight, std=width**-0.5)
            nn.init.zeros_(projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Pool maps [B, D, H, W] of N positions: [B, outputs]."""
        # The mean before the positions, row by row, with the position embedding: [B, 1 + N, D].
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding.to(x.dtype)
        # Attend from the mean alone, in heads of 64: [B, h, 1, 64].
        query = self._heads(self.q_proj(tokens[:, :1]))
        attended = F.scaled_dot_product_attention(
            query, self._heads(self.k_proj(tokens)), self._heads(self.v_proj(tokens))
        )
        # Join the heads and project: [B, outputs].
        return self.c_proj(attended.transpose(1, 2).flatten(1))

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, _HEAD_WIDTH)).transpose(1, 2)


class ClipResNet(Backbone):
    """The image encoder of CLIP-ReID with a ResNet: two features, the mean of the last maps and the attention pool.

    Raises:
        ConfigError: the images are smaller than the stride of the network.
    """

    def __init__(self, settings: Model, size: tuple[int, int], counts: Mapping[str, int]) -> None:
        super().__init__()
        layout = CLIP_RESNETS[settings.backbone]
        stem = layout.stem
        self.widths = (32 * stem, layout.projected)
        self.grid = clip_grid(size)
        if min(self.grid) < 1:
            raise ConfigError(
                f"images of {size[0]}x{size[1]} are too small for {settings.backbone}: 16 pixels at least"
            )
        self.conv1 = nn.Conv2d(3, stem // 2, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem // 2)
        self.conv2 = nn.Conv2d(stem // 2, stem // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem // 2)
        self.conv3 = nn.Conv2d(stem // 2, stem, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(stem)
        inputs = stem
        for stage, count in enumerate(layout.blocks):
            blocks: list[nn.Module] = []
            for index in range(count):
                blocks.append(ClipBlock(inputs, stem * 2**stage, 2 if index == 0 and stage in (1, 2) else 1))
                inputs = 4 * stem * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool(self.grid[0] * self.grid[1], 32 * stem, layout.projected)
        self.layers = number_blocks(self, r"layer\d\.\d+\.")
        self.depth = max(self.layers.values())

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the features of images [R, 3, H, W]: the mean, [R, D], and the attention pool's, [R, outputs]."""
        # Stem: [R, C, H / 4, W / 4].
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        # Stages: [R, D, H / 16, W / 16].
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return [x.mean((2, 3)), self.attnpool(x)]

    def adapt(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Resize the positions of the attention pool, bilinearly, where the images have another size."""
        adapted = dict(tensors)
        positions = adapted.get(_POSITIONS)
        needed = self.attnpool.positional_embedding.shape
        if positions is not None and positions.shape != needed and positions.ndim == 2:
            grid = guess_grid(len(positions) - 1)
            if grid is None:
                raise CheckpointError(
                    f"{source}: the attention pool has {len(positions) - 1} positions, which is neither a square grid "
                    f"nor one twice as high as wide, and {needed[0] - 1} are needed"
                )
            adapted[_POSITIONS] = resample_abs_pos_embed(
                positions.float()[None], list(self.grid), list(grid), 1, interpolation="bilinear", antialias=False
            )[0]
        return adapted


def clip_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of the last maps for images of that height and width in pixels."""
    return tuple(_cells(pixels) for pixels in size)  # pyright: ignore[reportReturnType]


def _cells(pixels: int) -> int:
    """The stem's stride rounds up, the three pools round down."""
    return (pixels + 1) // 2 // 2 // 2 // 2
