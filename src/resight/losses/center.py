"""Center loss (Wen et al. 2016, equation 2): each feature is drawn to its identity's learned center."""

import torch
from torch import Tensor, nn


class CenterLoss(nn.Module):
    """Mean over the batch of the squared distance between a feature and its identity's center.

    The centers move by an SGD of their own, whose gradient must be taken back from the loss's weight
    (`rescale_gradient`), so that the weight slows only the features and not the centers.

    Args:
        classes: C.
        width: D.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, width))  # [C, D]

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        """Features [B, D] and identities [B] to a float32 scalar."""
        return (features.float() - self.centers[identity]).square().sum(1).mean()

    def rescale_gradient(self, weight: float) -> None:
        """Divides the centers' gradient by the weight that the loss was added with."""
        if self.centers.grad is not None:
            self.centers.grad.div_(weight)
