"""Batch-hard triplet loss (Hermans et al. 2017, equation 5)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Compute Euclidean distances, float32 [A, B], between the rows of [A, D] and [B, D].

    They are at least 1e-6, because the square root has no finite gradient at 0.
    """
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
    """Compare each row's farthest positive with its nearest negative, and average over the rows.

    The computation is in float32, also under autocast: float16 overflows where a squared norm exceeds 65,504.

    Args:
        features: [B, D]; each row is an anchor, and its positives are all rows of the same identity.
        identity: int64 [B].
        margin: None for the soft margin log(1 + exp(d_ap - d_an)), or the margin of the hinge.
        normalize: whether distances are between features of unit length.
        group: int64 [B], such as the modality: a row is compared only with rows of the same group. None: with all rows.

    Returns:
        float32 scalar.
    """
    with torch.autocast(features.device.type, enabled=False):
        # Compute all distances between the batch's features: [B, B].
        features = F.normalize(features.float()) if normalize else features.float()
        distance = distances(features, features)

        # Mark the pairs of one identity, and the pairs of different groups: bool [B, B].
        same_identity = identity[:, None] == identity
        other_group = torch.zeros_like(same_identity) if group is None else group[:, None] != group

        # Take each anchor's farthest positive and nearest negative: [B].
        positive_distance = distance.masked_fill(~same_identity | other_group, -torch.inf).amax(1)
        negative_distance = distance.masked_fill(same_identity | other_group, torch.inf).amin(1)

        # Compare them and average over the anchors: a scalar.
        if margin is None:
            return F.softplus(positive_distance - negative_distance).mean()
        return F.relu(positive_distance - negative_distance + margin).mean()
