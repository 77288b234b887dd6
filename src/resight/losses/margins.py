"""The formulas of the margin heads: cosines [B, C] and identities int64 [B] to logits [B, C].

Each lowers the logit of an image's identity, so that training must separate identities further than by a plain softmax.
`scale` is s and `margin` is m in the papers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def arcface(cosine: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """Compute s cos(theta + m) for the image's identity, s cos(theta) for others (Deng et al. 2019, equation 3).

    Beyond theta = pi - m, where cos(theta + m) would rise again, the logit is s (cos(theta) - m sin(m)). The argument
    of the square root has a lower bound above zero, so that cos = +-1 has a finite gradient.
    """
    sine = (1 - cosine.square()).clamp_min(1e-12).sqrt()
    with_margin = cosine * math.cos(margin) - sine * math.sin(margin)  # cos(theta + m)
    with_margin = torch.where(cosine > -math.cos(margin), with_margin, cosine - margin * math.sin(margin))
    return scale * torch.where(_is_target(cosine, identity), with_margin, cosine)


def cosface(cosine: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """Compute s (cos(theta) - m) for the image's identity, s cos(theta) for others (Wang et al. 2018a, equation 4)."""
    return scale * torch.where(_is_target(cosine, identity), cosine - margin, cosine)


def circle(cosine: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """Compute the logits of circle loss with class-level labels (Sun et al. 2020, equation 7).

    Each cosine is weighted by its distance from its optimum, 1 + m for the image's identity and -m for others. The
    weights carry no gradient.
    """
    detached = cosine.detach()
    target = F.relu(1 + margin - detached) * (cosine - (1 - margin))
    others = F.relu(detached + margin) * (cosine - margin)
    return scale * torch.where(_is_target(cosine, identity), target, others)


MARGINS = {"arcface": arcface, "cosface": cosface, "am-softmax": cosface, "circle": circle}
"""By name of the head. AM-Softmax (Wang et al. 2018b, equation 6) is another name of CosFace's formula."""


def _is_target(cosine: Tensor, identity: Tensor) -> Tensor:
    """Mark each row's identity: bool [B, C]."""
    return F.one_hot(identity, cosine.shape[1]).bool()
