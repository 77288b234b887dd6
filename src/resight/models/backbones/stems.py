"""The convolutional stem of TransReID-SSL (Luo et al. 2021), and the normalisation that it shares with IBN networks."""

from typing import Any

import torch
from torch import Tensor, nn


class IBN(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the others (Pan et al. 2018).

    Args:
        channels: of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = channels // 2
        self.IN = nn.InstanceNorm2d(self.split, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.split)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]."""
        return torch.cat([self.IN(x[:, : self.split].contiguous()), self.BN(x[:, self.split :].contiguous())], 1)


class ICSPatchEmbed(nn.Module):
    """Patches from three convolutions with IBN at half of the resolution (ICS, Luo et al. 2021, section 3.3).

    The arguments have timm's names; patches do not overlap.

    Args:
        img_size: height and width in pixels.
        patch_size: P in pixels.
        in_chans: channels of the image.
        embed_dim: D.
    """

    def __init__(self, img_size: tuple[int, int], patch_size: int, in_chans: int, embed_dim: int, **_timm: Any) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size[0] // patch_size, img_size[1] // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.conv = nn.Sequential(
            nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False),
            IBN(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            IBN(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.proj = nn.Conv2d(64, embed_dim, patch_size // 2, patch_size // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the patches of images [B, 3, H, W], row by row of the grid: [B, N, D]."""
        return self.proj(self.conv(images)).flatten(2).transpose(1, 2)
