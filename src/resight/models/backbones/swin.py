"""The Swin transformer (Liu et al. 2021) as SOLIDER uses it (Chen et al. 2023), with a semantic weight.

It differs from timm's: the window and the shift stay as they are where the maps are smaller than a window, maps that a
window does not divide are padded with zeros inside the attention, merged patches are ordered by channel first, and the
map after each stage is scaled and shifted according to the semantic weight.

B batch, H x W positions, L = H W, C channels, h heads, w the window's side, K = w w, n windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PATCH: Final = 4
_MASKED: Final = -100.0  # is added to the attention of positions that are not neighbours


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


class WindowAttention(nn.Module):
    """Multi-head attention within windows, shifted or not, with a learned bias for each relative position.

    Args:
        width: channels, C.
        heads: number of heads, h.
        window: side of a window, w.
        shift: how far the windows are shifted, down and to the right.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, heads: int, window: int, shift: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shift = shift
        self.dropout = dropout
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within the windows of maps [B, H, W, C]."""
        b, height, width, channels = x.shape
        w = self.window
        # Pad with zeros, below and to the right, to multiples of the window, and shift.
        x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
        rows, columns = x.shape[1] // w, x.shape[2] // w
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        # Divide into windows: [B n, K, C].
        windows = x.view(b, rows, w, columns, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        attended = self._attend(windows, b, rows, columns)
        # Put the windows together, shift back and remove the padding: [B, H, W, C].
        x = attended.view(b, rows, columns, w, w, channels).transpose(2, 3).reshape(b, rows * w, columns * w, channels)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width].contiguous()

    def _attend(self, windows: Tensor, b: int, rows: int, columns: int) -> Tensor:
        """Attend within windows [B n, K, C]."""
        count, positions, channels = windows.shape
        # Project to queries, keys and values: [B n, h, K, d] each.
        q, k, v = self.qkv(windows).view(count, positions, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        # The bias of relative positions, and the mask of shifted windows: [1 or B n, h, K, K].
        bias = self._bias()[None]
        if self.shift:
            mask = shift_mask(rows, columns, self.window, self.shift, windows.device)
            bias = (bias + mask[:, None]).repeat(b, 1, 1, 1)
        drop = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), drop)
        return self.proj(attended.transpose(1, 2).reshape(count, positions, channels))

    def _bias(self) -> Tensor:
        """The learned bias between the positions of a window: [h, K, K]."""
        table = self.relative_position_bias_table[relative_positions(self.window, self.qkv.weight.device)]
        return table.permute(2, 0, 1)


def relative_positions(window: int, device: torch.device) -> Tensor:
    """Return the row of the bias table for each pair of a window's positions, int64 [K, K]."""
    steps = torch.arange(window, device=device)
    row = steps.repeat_interleave(window)  # [K]
    column = steps.repeat(window)  # [K]
    down = row[:, None] - row[None] + window - 1
    right = column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(rows: int, columns: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Return what is added to the attention in shifted windows, [n, K, K]: 0 between neighbours of the map, else -100.

    The windows of the last row and column mix positions from both ends of the map.
    """
    down = _ends(rows * window, window, shift, device)
    right = _ends(columns * window, window, shift, device)
    region = down[:, None] * 3 + right[None]  # [H, W]
    region = region.view(rows, window, columns, window).transpose(1, 2).reshape(rows * columns, window * window)
    return (region[:, None] != region[:, :, None]) * _MASKED


def _ends(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Number the three parts of an axis: before the last window, its first positions, and its shifted ones."""
    position = torch.arange(length, device=device)
    return (position >= length - window).long() + (position >= length - shift).long()


class SwinBlock(nn.Module):
    """A pre-norm block: attention within windows, then an MLP."""

    def __init__(
        self, width: int, heads: int, window: int, shift: int, drop_path: float, dropouts: tuple[float, float]
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shift, dropouts[1])
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropouts[0]), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropouts[0])
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, H, W, C]."""
        x = x + self.drop_path(self.drop(self.attn(self.norm1(x))))
        return x + self.drop_path(self.drop(self.mlp(self.norm2(x))))


class PatchMerging(nn.Module):
    """Joins 2 x 2 positions, ordered by channel, then row, then column, and projects them to twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Merge maps [B, H, W, C]: [B, H / 2, W / 2, 2 C], sizes rounded up with zeros."""
        b, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.view(b, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels).permute(0, 1, 3, 5, 2, 4)
        return self.reduction(self.norm(x.flatten(3)))


class SwinStage(nn.Module):
    """Some blocks; every second one has shifted windows."""

    def __init__(
        self, width: int, heads: int, window: int, drop_paths: list[float], dropouts: tuple[float, float]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, window // 2 * (index % 2), rate, dropouts)
            for index, rate in enumerate(drop_paths)
        )
        self.recompute = False

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, H, W, C]."""
        for block in self.blocks:
            x = cast(Tensor, checkpoint(block, x, use_reentrant=False)) if self.recompute else block(x)
        return x


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


class SoliderSwin(nn.Module):
    """SOLIDER's Swin transformer: the mean of the last stage's normalised map.

    Args:
        layout: its structure.
        semantic_weight: from 0 (appearance) to 1 (parts of the body).
        drop_path: drop-path rate of the last block; it grows linearly from 0 in the first one.
        dropout: after each projection.
        attention_dropout: of the attention weights.
    """

    features = 1

    def __init__(
        self,
        layout: SwinLayout,
        semantic_weight: float,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [layout.width * 2**stage for stage in range(len(layout.depths))]
        self.width = widths[-1]
        self.patch_embed = nn.Conv2d(3, layout.width, PATCH, PATCH)
        self.patch_norm = nn.LayerNorm(layout.width)
        rates = torch.linspace(0, drop_path, sum(layout.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for width, heads, depth in zip(widths, layout.heads, layout.depths, strict=True):
            stage_rates, rates = rates[:depth], rates[depth:]
            self.stages.append(SwinStage(width, heads, layout.window, stage_rates, (dropout, attention_dropout)))
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.semantic = nn.ModuleList(Semantic(2 * width, semantic_weight) for width in widths[:-1])
        self.norm = nn.LayerNorm(self.width)
        self.drop = nn.Dropout(dropout)
        self.gradient_checkpointing = False
        """Whether training stores only each block's input and recomputes the block for the backward pass."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor, side_info: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute the feature of images [R, 3, H, W], in a list: [R, D]. Side information is ignored."""
        # Embed patches of 4 x 4 pixels: [R, H / 4, W / 4, C].
        height, width = images.shape[2:]
        images = F.pad(images, (0, -width % PATCH, 0, -height % PATCH))
        x = self.drop(self.patch_norm(self.patch_embed(images).permute(0, 2, 3, 1)))
        # Stages, each but the last followed by a merge and the semantic weight: [R, H / 32, W / 32, 8 C].
        for index, stage in enumerate(self.stages):
            cast(SwinStage, stage).recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
            x = stage(x)
            if index < len(self.merges):
                x = self.semantic[index](self.merges[index](x))
        # Normalise, and take the mean over positions: [R, 8 C].
        return [self.norm(x).mean((1, 2))]
