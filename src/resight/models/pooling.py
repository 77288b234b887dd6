"""Pooling of patches or of a feature map to one feature."""

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalised mean over positions (Radenovic et al. 2018): the mean of x^p, to the power 1 / p.

    Args:
        power: p; 1 is the mean, and the limit of large p the maximum.
        trained: whether p is a weight of the model, [1]; else it is no tensor of the state dict.
        smallest: value that smaller ones count as.
    """

    def __init__(self, power: float = 3.0, trained: bool = False, smallest: float = 1e-6) -> None:
        super().__init__()
        self.smallest = smallest
        self.p = nn.Parameter(torch.full((1,), power)) if trained else power

    def forward(self, x: Tensor) -> Tensor:
        """Compute the generalised mean of [B, N, D] over N: [B, D]."""
        return x.clamp(min=self.smallest).pow(self.p).mean(1).pow(1 / self.p)


def max_then_mean(x: Tensor, window: int = 4) -> Tensor:
    """Compute the maximum of every `window` consecutive patches, and the mean of these: [B, N, D] -> [B, D].

    The last N % window patches are left out.
    """
    groups = x.shape[1] // window
    return x[:, : groups * window].unflatten(1, (groups, window)).amax(2).mean(1)


class Pool(nn.Module):
    """Pools a class token and patches to one feature, by the name in the section `Model`.

    Args:
        name: a value of `Model.pooling`.
        gem_power: p of the poolings with a generalised mean.
        trained: whether p is a weight of the model.
    """

    def __init__(self, name: str, gem_power: float, trained: bool = False) -> None:
        super().__init__()
        self.name = name
        self.gem = GeM(gem_power, trained) if "gem" in name else None

    def width(self, token_width: int) -> int:
        """The length of the feature that tokens of that width give."""
        return 2 * token_width if self.name == "mean-max" else token_width

    def forward(self, token: Tensor | None, patches: Tensor) -> Tensor:
        """Pool the class token [B, D], where the backbone has one, and the patches [B, N, D]: [B, D] or [B, 2 D]."""
        if self.name == "mean":
            return patches.mean(1)
        if self.name == "max":
            return patches.amax(1)
        if self.name == "mean-max":
            return torch.cat([patches.mean(1), patches.amax(1)], 1)
        if self.name == "max4-mean":
            return max_then_mean(patches)
        if self.gem is None:
            assert token is not None
            return token
        pooled = self.gem(patches)
        return pooled if token is None or self.name == "gem" else token + pooled
