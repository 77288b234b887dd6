"""Pooling of feature maps to vectors."""

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """The generalised mean over positions (Radenovic et al. 2018): (mean of x^p)^(1 / p).

    Args:
        exponent: p; 1 gives the mean, and the maximum is approached as p grows.
        trained: whether p is a parameter, else it is a constant without a tensor in the weights.
    """

    EPSILON = 1e-6
    """Smaller values count as this one."""

    def __init__(self, exponent: float = 3.0, trained: bool = True) -> None:
        super().__init__()
        if trained:
            self.p = nn.Parameter(torch.full((1,), exponent))
        else:
            self.p = exponent

    def forward(self, x: Tensor) -> Tensor:
        """Pool maps [B, C, H, W]: [B, C]."""
        with torch.autocast(x.device.type, enabled=False):  # powers need float32
            return x.float().clamp(min=self.EPSILON).pow(self.p).mean((2, 3)).pow(1 / self.p)


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool maps [B, C, H, W]: [B, C]."""
        return x.mean((2, 3))
