"""Learned and mixed policies of augmentation, torchvision's, on uint8 pictures before they are normalised."""

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor
from torchvision.transforms import v2

from resight.config.sections import Augmentation

_NONE, _AUTOAUGMENT, _AUGMIX = range(3)


def draw_policies(count: int, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """int64 [count, 2]: which policy each picture goes through, and the seed of what that draws; nothing is drawn where
    none is on, so that it changes no other draw."""
    drawn = torch.zeros(count, 2, dtype=torch.int64)
    for which, probability in ((_AUTOAUGMENT, settings.autoaugment), (_AUGMIX, settings.augmix)):
        if probability:
            chosen = torch.rand(count, generator=generator) < probability
            drawn[:, 0] = torch.where(chosen, which, drawn[:, 0])
    if settings.autoaugment or settings.augmix:
        drawn[:, 1] = torch.randint(2**31, (count,), generator=generator)
    return drawn


def apply_policies(images: Tensor, drawn: Tensor) -> Tensor:
    """Each of uint8 [R, 3, H, W] through the policy drawn for it, [R, 2]; torch's own draws stay as they were."""
    policies = _policies()
    for picture, (which, seed) in zip(images, drawn.tolist(), strict=True):
        if which != _NONE:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                picture.copy_(policies[which](picture))
    return images


@cache
def _policies() -> dict[int, Callable[[Tensor], Tensor]]:
    """AutoAugment as learned on ImageNet (Cubuk et al. 2019), and AugMix (Hendrycks et al. 2020)."""
    policies = {_AUTOAUGMENT: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET), _AUGMIX: v2.AugMix()}
    return cast("dict[int, Callable[[Tensor], Tensor]]", policies)
