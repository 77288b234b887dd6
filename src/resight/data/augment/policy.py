"""AutoAugment and AugMix of torchvision, on uint8 images before normalization."""

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor
from torchvision.transforms import v2

from resight.config.sections import Augmentation

_NONE, _AUTOAUGMENT, _AUGMIX = range(3)


def draw_policies(count: int, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw the policies of images: int64 [count, 2], the policy of each image and its seed.

    If no policy is on, no number is drawn, so that other draws stay the same.
    """
    policies = torch.zeros(count, 2, dtype=torch.int64)
    for policy, probability in ((_AUTOAUGMENT, settings.autoaugment), (_AUGMIX, settings.augmix)):
        if probability:
            applies = torch.rand(count, generator=generator) < probability
            policies[:, 0] = torch.where(applies, policy, policies[:, 0])
    if settings.autoaugment or settings.augmix:
        policies[:, 1] = torch.randint(2**31, (count,), generator=generator)
    return policies


def apply_policies(images: Tensor, drawn: Tensor) -> Tensor:
    """Apply the drawn policies in place; torch's global random state does not change.

    Args:
        images: uint8 [R, 3, H, W].
        drawn: int64 [R, 2], as `draw_policies` returns it.
    """
    policies = _policies()
    for image, (policy, seed) in zip(images, drawn.tolist(), strict=True):
        if policy != _NONE:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                image.copy_(policies[policy](image))
    return images


@cache
def _policies() -> dict[int, Callable[[Tensor], Tensor]]:
    """AutoAugment as learned on ImageNet (Cubuk et al. 2019), and AugMix (Hendrycks et al. 2020)."""
    policies = {_AUTOAUGMENT: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET), _AUGMIX: v2.AugMix()}
    return cast("dict[int, Callable[[Tensor], Tensor]]", policies)
