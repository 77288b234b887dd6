"""The parts of the Swin transformer (Liu et al. 2021) as mmdetection has them.

They differ from timm's: the window and the shift stay as they are where the maps are smaller than a window, maps that a
window does not divide are padded with zeros inside the attention, and merged patches are ordered by channel first.

B batch, H x W positions, L = H W, C channels, h heads, w the window's side, K = w w, n windows.
"""

from typing import Final

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

_MASKED: Final = -100.0  # is added to the attention of positions that are not neighbours


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
        self.drop = nn.Dropout(dropout)
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
        # Windows are small, so the weights are formed: [B n, h, K, K]. (Fused attention with a bias is not exported.)
        scale = (channels // self.heads) ** -0.5
        weights = ((q * scale) @ k.transpose(-2, -1) + bias).softmax(-1)
        attended = self.drop(weights).to(v.dtype) @ v
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

    def forward(self, x: Tensor) -> Tensor:
        """Transform maps [B, H, W, C]."""
        for block in self.blocks:
            x = block(x)
        return x
