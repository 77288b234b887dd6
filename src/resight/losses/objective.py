"""The training objective: the weighted sum of the branches' losses."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.sections import Loss
from resight.losses.center import CenterLoss
from resight.losses.cross_modal import cross_modal_contrast
from resight.losses.triplet import batch_hard_triplet


@dataclass(frozen=True)
class Objective:
    """The losses of a batch, float32 scalars; `total` is weighted, the others are not."""

    total: Tensor
    id: Tensor
    triplet: Tensor
    center: Tensor
    cross_modal: Tensor


def objective(
    features: Sequence[Tensor],
    logits: Sequence[Tensor],
    identity: Tensor,
    settings: Loss,
    center: CenterLoss | None = None,
    modality: Tensor | None = None,
) -> Objective:
    """Compute the losses over the global branch and JPM's parts, and their weighted sum.

    With parts, identity, triplet and cross-modal loss are each 0.5 x the global branch's + 0.5 x the mean of the parts'
    (He et al. 2021, equation 5, as released). The center loss applies to the global feature.

    Args:
        features: [B, D] each, before BNNeck; the global branch first, then the parts.
        logits: [B, C] each, of the same branches.
        identity: int64 [B].
        settings: weights and variants of the losses.
        center: the center loss, where `settings.center_weight` is not 0.
        modality: int64 [B], for triplets within a modality and for the cross-modal loss; None for fused features.
    """
    # Identity loss: cross-entropy of each branch's logits, then one scalar.
    identity_losses = [F.cross_entropy(x.float(), identity, label_smoothing=settings.label_smoothing) for x in logits]
    identity_loss = _balance(identity_losses)

    # Triplet loss: of each branch's features, then one scalar.
    group = modality if settings.triplet_within == "modality" else None
    triplet_losses = [
        batch_hard_triplet(x, identity, settings.triplet_margin, settings.triplet_normalize, group) for x in features
    ]
    triplet_loss = _balance(triplet_losses)

    # Center loss: of the global feature, one scalar.
    center_loss = center(features[0], identity) if center is not None else torch.zeros_like(identity_loss)

    # Cross-modal loss: of each branch's features, then one scalar.
    cross_modal_loss = torch.zeros_like(identity_loss)
    if settings.cross_modal_weight and modality is not None:
        temperature = settings.cross_modal_temperature
        cross_modal_loss = _balance([cross_modal_contrast(x, identity, modality, temperature) for x in features])

    # Weighted sum: one scalar.
    total = (
        settings.id_weight * identity_loss
        + settings.triplet_weight * triplet_loss
        + settings.center_weight * center_loss
        + settings.cross_modal_weight * cross_modal_loss
    )
    return Objective(total, identity_loss, triplet_loss, center_loss, cross_modal_loss)


def add(images: Objective, fused: Objective, weight: float) -> Objective:
    """Add the losses of images and those of their sightings' fused features, whose share of the total has a weight."""
    sums = {field.name: getattr(images, field.name) + getattr(fused, field.name) for field in fields(Objective)}
    return Objective(**sums | {"total": images.total + weight * fused.total})


def _balance(branches: list[Tensor]) -> Tensor:
    """Average the losses of the branches, with one half of the weight on the global branch."""
    if len(branches) == 1:
        return branches[0]
    return 0.5 * branches[0] + 0.5 * torch.stack(branches[1:]).mean()
