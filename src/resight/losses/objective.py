"""How the losses of the branches add up to what is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.sections import Loss
from resight.losses.center import CenterLoss
from resight.losses.triplet import batch_hard_triplet


@dataclass(frozen=True)
class Objective:
    """A batch's losses, float32 scalars."""

    total: Tensor
    id: Tensor
    triplet: Tensor
    center: Tensor


def objective(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    identity: Tensor,
    settings: Loss,
    center: CenterLoss | None = None,
    modality: Tensor | None = None,
) -> Objective:
    """Identity, triplet and center loss over the global branch and the parts.

    With parts, identity and triplet loss are each 0.5 x the global branch's + 0.5 x the mean of the parts'
    (He et al. 2021, equation 5, as released). The center loss is on the global feature.

    Args:
        features: [B, D] before BNNeck; the global branch first, then the parts.
        logits: [B, C] of the same branches.
        identity: int64 [B].
        settings: weights and forms.
        center: the centers, where `settings.center_weight` is not 0.
        modality: int64 [B], for triplets within a modality.
    """
    identity_loss = _balance(
        [F.cross_entropy(x.float(), identity, label_smoothing=settings.label_smoothing) for x in logits]
    )
    group = modality if settings.triplet_within == "modality" else None
    triplet = _balance(
        [batch_hard_triplet(f, identity, settings.triplet_margin, settings.triplet_normalize, group) for f in features]
    )
    pulled = center(features[0], identity) if center is not None else torch.zeros_like(identity_loss)
    total = settings.id_weight * identity_loss + settings.triplet_weight * triplet + settings.center_weight * pulled
    return Objective(total, identity_loss, triplet, pulled)


def _balance(branches: list[Tensor]) -> Tensor:
    if len(branches) == 1:
        return branches[0]
    return 0.5 * branches[0] + 0.5 * torch.stack(branches[1:]).mean()
