"""Losses between the embeddings of a student and those of its teacher, for the same images."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.distillation import Distillation
from resight.losses.triplet import distances


@dataclass(frozen=True)
class DistillationLoss:
    """The distillation losses of a batch, float32 scalars; `total` is weighted, the others are not."""

    total: Tensor
    embedding: Tensor
    distance: Tensor
    similarity: Tensor

    @property
    def figures(self) -> dict[str, Tensor]:
        """The losses by name: `distillation` is weighted, the others are not."""
        parts = {f"distillation_{name}": getattr(self, name) for name in ("embedding", "distance", "similarity")}
        return {"distillation": self.total} | parts


def distillation_loss(student: Tensor, projected: Tensor, teacher: Tensor, settings: Distillation) -> DistillationLoss:
    """Compute the embedding loss and the relation losses of a batch, and their weighted sum, in float32.

    The embedding and similarity losses compare embeddings from which the batch's mean is taken off. The embeddings of a
    re-ID model often share a direction: cosines of all pairs near 1, of which a student would learn that direction and
    nothing else.

    Args:
        student: [B, D], the student's embeddings, of any length.
        projected: [B, E], the same embeddings, mapped to the width of the teacher's.
        teacher: [B, E], the teacher's embeddings, without gradient.
        settings: the weights.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, projected, teacher = (F.normalize(x.float()) for x in (student, projected, teacher))
        embedding = (1 - (centered(projected) * centered(teacher)).sum(1)).mean()
        distance = distance_loss(student, teacher)
        similarity = similarity_loss(centered(student), centered(teacher))
    total = (
        settings.embedding_weight * embedding
        + settings.distance_weight * distance
        + settings.similarity_weight * similarity
    )
    return DistillationLoss(total, embedding, distance, similarity)


def centered(embeddings: Tensor) -> Tensor:
    """Take the batch's mean off embeddings, float32 [B, D], and give them unit length."""
    return F.normalize(embeddings - embeddings.mean(0))


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the distances of all pairs of a batch, each divided by the batch's mean distance, by the Huber loss with
    its corner at 1 (Park et al. 2019, equations 4 to 6).

    Args:
        student: float32 [B, D].
        teacher: float32 [B, E].
    """
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the mean squared difference of the inner products of all pairs of a batch.

    Args:
        student: float32 [B, D], of unit length.
        teacher: float32 [B, E], of unit length.
    """
    pairs = _pairs(student)
    return F.mse_loss((student @ student.T)[pairs], (teacher @ teacher.T)[pairs])


def _relative_distances(embeddings: Tensor) -> Tensor:
    """The distance of each ordered pair of different rows, divided by their mean: [B (B - 1)]."""
    distance = distances(embeddings, embeddings)[_pairs(embeddings)]
    return distance / distance.mean()


def _pairs(embeddings: Tensor) -> Tensor:
    """Bool [B, B]: the pairs of different rows."""
    return ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
