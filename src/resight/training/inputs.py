"""What a step of training gives the network, and what it computes from that.

B images of the whole batch, R of this process; N sightings of this process; M modalities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from resight.losses.distillation import DistillationLoss
from resight.losses.objective import Objective
from resight.models.transreid import Outputs

SideInfo = Mapping[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """What this process's part of a batch gives the network."""

    images: Tensor
    """Float32 [R, 3, H, W]."""
    side_info: SideInfo
    """int64 [R] by kind of side information."""
    identity: Tensor
    """int64 [R]."""
    rows: Tensor | None = None
    """int64 [N, M], the image of each modality of each sighting, or -1; None where the network does not fuse."""

    def parts(self, size: int | None) -> list[tuple[slice, slice]]:
        """Divide the images, and the sightings where they are fused, into micro-batches of at most `size` images."""
        count = len(self.images)
        size = size or count
        if self.rows is None:
            return [(slice(start, min(start + size, count)), slice(0, 0)) for start in range(0, count, size)]
        parts: list[tuple[slice, slice]] = []
        first_image = first_sighting = end = 0
        for sighting, images in enumerate((self.rows >= 0).sum(1).tolist()):
            if end + images - first_image > size and end > first_image:
                parts.append((slice(first_image, end), slice(first_sighting, sighting)))
                first_image, first_sighting = end, sighting
            end += images
        return [*parts, (slice(first_image, end), slice(first_sighting, len(self.rows)))]

    def of(self, images: slice, sightings: slice) -> tuple[Any, ...]:
        """Return the arguments of the network for some of the images, and for their sightings where they are fused."""
        side_info = {kind: labels[images] for kind, labels in self.side_info.items()}
        if self.rows is None:
            return self.images[images], side_info
        rows = self.rows[sightings]
        return self.images[images], side_info, torch.where(rows < 0, rows, rows - images.start)


@dataclass(frozen=True)
class Learned:
    """What a step computed, of the whole batch."""

    loss: Objective
    outputs: Outputs
    identity: Tensor
    """int64 of each row of the outputs."""
    distillation: DistillationLoss | None = None
    """The losses against the teacher, which the total has too; None without a teacher."""

    def distilled(self, loss: DistillationLoss) -> "Learned":
        """Add the loss against the teacher."""
        return replace(self, loss=replace(self.loss, total=self.loss.total + loss.total), distillation=loss)

    def figures(self) -> dict[str, Tensor]:
        """Return scalars of the whole batch: the total loss, its parts without the center loss, and the accuracy."""
        loss = self.loss
        accuracy = (self.outputs.logits[0].argmax(1) == self.identity).float().mean()
        values = {"loss": loss.total, "id": loss.id, "triplet": loss.triplet, "accuracy": accuracy}
        return values | ({} if self.distillation is None else self.distillation.figures)
