"""Center loss (Wen et al. 2016, equation 2): pulls each feature towards the learned center of its identity."""

import torch
from torch import Tensor, nn


class CenterLoss(nn.Module):
    """Mean over the batch of the squared distance between a feature and its identity's center.

    The centers have an SGD optimizer of their own. The loss's weight must be divided out of their gradient
    (`rescale_gradient`), so that it applies to the features only.

    Args:
        classes: number of identities, C.
        width: length of a feature, D.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, width))  # [C, D]

    def forward(self, features: Tensor, identity: Tensor) -> Tensor:
        """Compute the loss, a float32 scalar, of features [B, D] and identities int64 [B]."""
        return (features.float() - self.centers[identity]).square().sum(1).mean()

    def rescale_gradient(self, weight: float) -> None:
        """Divide the centers' gradient by the weight that the loss was multiplied by."""
        if self.centers.grad is not None:
            self.centers.grad.div_(weight)
