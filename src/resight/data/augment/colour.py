"""Random changes of colour, on uint8 images before normalization."""

import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.sections import Augmentation

_KNOTS = 6  # of a curve
_GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's


def draw(count: int, height: int, width: int, settings: Augmentation, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the changes of `count` images. A change that is off draws no number, so that other draws stay the same.

    Returns:
        `factors` float32 [count, 3], of brightness, contrast and saturation; `grey` bool [count], the entire image;
        `patch` int64 [count, 4], a box that becomes grey: top, left, height and width in pixels.
    """
    factors, grey = torch.ones(count, 3), torch.zeros(count, dtype=torch.bool)
    patch = torch.zeros(count, 4, dtype=torch.int64)
    if settings.jitter:
        factors = 1 + settings.jitter * (2 * torch.rand(count, 3, generator=generator) - 1)
    if settings.grey:
        grey = torch.rand(count, generator=generator) < settings.grey
    if settings.grey_patch:
        side = torch.sqrt(0.02 + 0.38 * torch.rand(count, generator=generator))  # fraction: 2 % to 40 % of the area
        tall = (side * height).long()
        wide = (side * width).long()
        position = torch.rand(2, count, generator=generator)
        top = (position[0] * (height - tall + 1)).long()
        left = (position[1] * (width - wide + 1)).long()
        patched = torch.rand(count, generator=generator) < settings.grey_patch
        patch = torch.stack([top, left, tall, wide], 1) * patched[:, None]
    return {"factors": factors, "grey": grey, "patch": patch}


def recolour(images: Tensor, factors: Tensor, grey: Tensor, patch: Tensor) -> Tensor:
    """Apply drawn changes, in place.

    Args:
        images: uint8 [R, 3, H, W].
        factors: float32 [R, 3], of brightness, then contrast about the mean grey, then saturation.
        grey: bool [R].
        patch: int64 [R, 4].
    """
    for image, factor, all_grey, (top, left, tall, wide) in zip(
        images, factors.tolist(), grey.tolist(), patch.tolist(), strict=True
    ):
        if factor != [1.0, 1.0, 1.0]:
            image.copy_(_jitter(image.float(), *factor))
        if all_grey:
            image.copy_(_grey(image.float()))
        elif tall:
            box = image[:, top : top + tall, left : left + wide]
            box.copy_(_grey(box.float()))
    return images


def draw_curves(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw a curve for each channel of an image: straight lines between levels drawn at six equally spaced places.

    Half of the images have one curve for all channels, so that grey stays grey.

    Returns:
        uint8 [count, 3, 256], the new level of each level; the same level for an image that is not changed.
    """
    knots = torch.randint(0, 256, (count, 3, _KNOTS), generator=generator).float()
    changed, is_grey = torch.rand(2, count, generator=generator)
    knots = torch.where((is_grey < 0.5).view(-1, 1, 1), knots[:, :1], knots)
    curves = F.interpolate(knots, size=256, mode="linear", align_corners=True).round()
    return torch.where((changed < probability).view(-1, 1, 1), curves, torch.arange(256.0)).to(torch.uint8)


def apply_curves(images: Tensor, curves: Tensor) -> Tensor:
    """Map the levels of images.

    Args:
        images: uint8 [R, 3, H, W].
        curves: uint8 [R, 3, 256].
    """
    return curves.gather(2, images.flatten(2).long()).view_as(images)


def _jitter(x: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    x = (x * brightness).clamp_(0, 255)
    x = (contrast * x + (1 - contrast) * _grey(x).mean()).clamp_(0, 255)
    return (saturation * x + (1 - saturation) * _grey(x)).clamp_(0, 255).round_()


def _grey(x: Tensor) -> Tensor:
    """float [3, h, w] to [1, h, w], in whole grey levels."""
    red, green, blue = _GREY
    return (red * x[0] + green * x[1] + blue * x[2]).round_()[None]
