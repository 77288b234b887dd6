"""The margin heads' formulas: cosines [B, C] and identities [B] to logits [B, C].

Each lowers the logit of a picture's own identity, so that training must pull further than a plain softmax would.
`scale` is s and `margin` is m of the papers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def arcface(cosine: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """s cos(theta + m) for the own identity, s cos(theta) for others (Deng et al. 2019, equation 3).

    Beyond theta = pi - m, where the cosine would rise again, it goes on as s (cos(theta) - m sin(m)). The square root
    is kept off zero, so that cos = +-1 has a finite gradient.
    """
    sine = (1 - cosine.square()).clamp_min(1e-12).sqrt()
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    moved = torch.where(cosine > -math.cos(margin), moved, cosine - margin * math.sin(margin))
    return scale * torch.where(_own(cosine, identity), moved, cosine)


def cosface(cosine: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """s (cos(theta) - m) for the own identity, s cos(theta) for others (Wang et al. 2018a, equation 4)."""
    return scale * torch.where(_own(cosine, identity), cosine - margin, cosine)


def circle(cosine: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """Circle loss with class-level labels (Sun et al. 2020, equation 7): each cosine is paced by its distance from
    its optimum, 1 + m for the own identity and -m for others. The paces carry no gradient."""
    detached = cosine.detach()
    own = F.relu(1 + margin - detached) * (cosine - (1 - margin))
    others = F.relu(detached + margin) * (cosine - margin)
    return scale * torch.where(_own(cosine, identity), own, others)


MARGINS = {"arcface": arcface, "cosface": cosface, "am-softmax": cosface, "circle": circle}
"""By head name. AM-Softmax (Wang et al. 2018b, equation 6) is CosFace's formula under its other name."""


def _own(cosine: Tensor, identity: Tensor) -> Tensor:
    return F.one_hot(identity, cosine.shape[1]).bool()
