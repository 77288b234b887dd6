"""Supervised contrastive loss (Khosla et al. 2020, equation 2) between the images of different modalities."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_modal_contrast(features: Tensor, identity: Tensor, modality: Tensor, temperature: float) -> Tensor:
    """Compare each row with all rows of other modalities, and average over the rows.

    For an anchor, the loss is the mean of -log(softmax(cosines / temperature)) over the rows of its identity, where the
    softmax is over all rows of other modalities. A row without its identity in another modality is no anchor.

    The features are standardized over the batch first: a network's features have a large mean in common, beside which
    their cosines hardly differ. The computation is in float32, also under autocast.

    Args:
        features: [B, D].
        identity: int64 [B].
        modality: int64 [B].
        temperature: of the softmax.

    Returns:
        float32 scalar; 0 where no row is an anchor.
    """
    with torch.autocast(features.device.type, enabled=False):
        # Compute all cosines between the batch's standardized features: [B, B].
        standardized = F.normalize(F.batch_norm(features.float(), None, None, training=True))
        logits = standardized @ standardized.T / temperature

        # Mark the pairs of different modalities, and those of one identity among them: bool [B, B].
        is_candidate = modality[:, None] != modality
        is_positive = is_candidate & (identity[:, None] == identity)
        is_anchor = is_positive.any(1)  # [B]

        # Take the probability of each candidate, and average over the positives and then over the anchors: a scalar.
        negligible = torch.finfo(logits.dtype).min
        log_probability = logits.masked_fill(~is_candidate, negligible).log_softmax(1)
        positives = (log_probability * is_positive).sum(1) / is_positive.sum(1).clamp_min(1)  # [B]
        return -positives[is_anchor].sum() / is_anchor.sum().clamp_min(1)
