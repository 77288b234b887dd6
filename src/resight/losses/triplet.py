"""Batch-hard triplet loss (Hermans et al. 2017, equation 5)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances [A, B], float32, between rows of [A, D] and [B, D]; kept off zero for the gradient's sake."""
    a, b = a.float(), b.float()
    squared = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return squared.clamp_min(1e-12).sqrt()


def batch_hard_triplet(
    features: Tensor,
    identity: Tensor,
    margin: float | None = None,
    normalize: bool = False,
    group: Tensor | None = None,
) -> Tensor:
    """For each row its farthest positive against its nearest negative, averaged over the rows.

    Always float32: under autocast too, since float16 overflows once a squared norm passes 65,504.

    Args:
        features: [B, D]; the hardest positive may be any row of the same identity.
        identity: int64 [B].
        margin: None for the soft margin log(1 + exp(d_ap - d_an)), or the hinge's margin.
        normalise: whether distances are taken between features of unit length.
        group: int64 [B]; where given, a row is compared only with rows of its own group, such as its modality.

    Returns:
        float32 scalar.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = F.normalize(features.float()) if normalize else features.float()
        distance = distances(features, features)  # [B, B]
        same = identity[:, None] == identity
        apart = torch.zeros_like(same) if group is None else group[:, None] != group
        positive = distance.masked_fill(~same | apart, -torch.inf).amax(1)  # [B]
        negative = distance.masked_fill(same | apart, torch.inf).amin(1)  # [B]
        if margin is None:
            return F.softplus(positive - negative).mean()
        return F.relu(positive - negative + margin).mean()
