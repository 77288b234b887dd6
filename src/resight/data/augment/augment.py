"""Random augmentation of a batch, on any device.

All random numbers are drawn on the CPU from one generator, so that a seed gives the same images on every device.
B sightings, M modalities, H x W pixels, R = B x M images.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.sections import Augmentation
from resight.data.augment.colour import apply_curves, draw, draw_curves, recolour
from resight.data.augment.policy import apply_policies, draw_policies

_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalize images: scale to [0, 1], subtract the channel means, divide by the standard deviations.

    Args:
        images: uint8 [R, 3, H, W].
        mean: of each channel.
        std: of each channel.

    Returns:
        float32 [R, 3, H, W].
    """
    scale = torch.tensor(std, device=images.device).mul(255).reciprocal().view(3, 1, 1)
    shift = (torch.tensor(mean, device=images.device) / torch.tensor(std, device=images.device)).view(3, 1, 1)
    if images.device.type != "cpu":
        return images * scale - shift
    out = torch.empty(images.shape)
    for image, normalized in zip(images, out, strict=True):  # one at a time, which fits the processor's cache
        normalized.copy_(image).mul_(scale).sub_(shift)
    return out


def augment(
    images: Tensor,
    settings: Augmentation,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    generator: torch.Generator,
    local: tuple[slice, int] | None = None,
) -> Tensor:
    """Flip, pad and crop, apply a policy, change colours and levels, normalize, erase.

    Args:
        images: uint8 [B, M, 3, H, W].
        settings: probabilities and sizes.
        mean: of each channel.
        std: of each channel.
        generator: a CPU generator.
        local: these sightings' rows in a larger batch, and its size; the draws are then those of the larger batch.

    Returns:
        float32 [B, M, 3, H, W].
    """
    # Draw for the larger batch, one draw for each image or for each sighting
    rows, b = local or (slice(0, len(images)), len(images))
    m = images.shape[1]
    height, width = images.shape[-2:]
    draws, repeats = (b, m) if settings.share_draws else (b * m, 1)
    flip = torch.rand(draws, generator=generator) < settings.flip
    offset = torch.randint(0, 2 * settings.pad + 1, (draws, 2), generator=generator)
    box = boxes(draws, height, width, settings.erase, generator)
    colours = draw(draws, height, width, settings, generator)
    policies = draw_policies(draws, settings, generator)
    flip, offset, box = (t.repeat_interleave(repeats, 0) for t in (flip, offset, box))
    noise = torch.randn(_noise(box), generator=generator)
    pad = settings.pad + settings.misregistration
    if settings.misregistration:  # each image its own shift
        shift = torch.randint(0, 2 * settings.misregistration + 1, (b * m, 2), generator=generator)
        offset = offset + shift
    curves = draw_curves(b * m, settings.tone, generator) if settings.tone else None  # each image its own

    # Take the draws of these sightings
    selected = slice(rows.start * m, rows.stop * m)
    noise = noise[_noise(box[: selected.start]) :][: _noise(box[selected])].to(images.device)
    flip, offset, box = (t[selected].to(images.device) for t in (flip, offset, box))

    # Apply them to [R, 3, H, W]
    augmented = flip_and_crop(images.flatten(0, 1), flip, offset, pad)
    if settings.autoaugment or settings.augmix:
        augmented = apply_policies(augmented, policies.repeat_interleave(repeats, 0)[selected])
    if settings.jitter or settings.grey or settings.grey_patch:
        augmented = recolour(
            augmented, **{name: t.repeat_interleave(repeats, 0)[selected] for name, t in colours.items()}
        )
    if curves is not None:
        augmented = apply_curves(augmented, curves[selected].to(images.device))
    return erase(normalize(augmented, mean, std), box, noise).unflatten(0, images.shape[:2])


def drop_by_identity(
    present: Tensor, identity: Tensor, probability: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Draw which modalities remain, the same for all sightings of an identity, so that each image has its positives.

    Args:
        present: bool [B, M], on the CPU.
        identity: int64 [B].
        probability: of each of the M modalities, that an identity loses it.
        generator: a CPU generator; one number is drawn, so that a part of a batch loses what the whole batch loses.

    Returns:
        bool [B, M]; a sighting that would lose all modalities keeps those that it has.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator))
    draws = {n: np.random.default_rng((seed, n)).random(len(probability)) for n in set(identity.tolist())}
    is_dropped = torch.from_numpy(np.stack([draws[n] for n in identity.tolist()]) < np.array(probability))  # [B, M]
    remaining = present & ~is_dropped
    return torch.where(remaining.any(1, keepdim=True), remaining, present)


def drop_modalities(
    present: Tensor, probability: float, generator: torch.Generator, part: tuple[slice, int] | None = None
) -> Tensor:
    """Draw which modalities of each sighting remain.

    Args:
        present: bool [B, M], on the CPU.
        probability: that a sighting loses some of its modalities; how many is uniform from one to all but one.
        generator: a CPU generator.
        part: which sightings of a larger batch these are, and how many that has; it is drawn as for the larger one.

    Returns:
        bool [B, M]; every sighting that has a modality keeps at least one.
    """
    selected, total = part or (slice(None), len(present))
    count = present.sum(1)  # [B]
    is_dropped = torch.rand(total, generator=generator)[selected] < probability
    fraction = torch.rand(total, generator=generator)[selected]
    order = torch.rand((total, present.shape[1]), generator=generator)[selected].masked_fill(~present, 2)
    remaining = torch.where(is_dropped & (count > 1), 1 + (fraction * (count - 1)).long(), count)  # [B]
    rank = order.argsort(1).argsort(1)  # [B, M], those that are present first
    return rank < remaining[:, None]


def _noise(box: Tensor) -> int:
    """The number of values that fill the boxes."""
    return int(3 * box[:, 2:].prod(1).sum())


def flip_and_crop(images: Tensor, flip: Tensor, offset: Tensor, pad: int) -> Tensor:
    """Mirror images, pad them with black, and crop them to their former size.

    Args:
        images: uint8 [R, 3, H, W].
        flip: bool [R].
        offset: int64 [R, 2], row and column of the crop in the padded image, 0 to 2 x pad.
        pad: pixels on each side.
    """
    if images.device.type == "cpu":
        return _flip_and_crop_each(images, flip, offset, pad)
    return _flip_and_crop_gather(images, flip, offset, pad)


def _flip_and_crop_each(images: Tensor, flip: Tensor, offset: Tensor, pad: int) -> Tensor:
    """Copy rectangles, which is fastest on a CPU."""
    height, width = images.shape[-2:]
    out = torch.zeros_like(images)
    for image, cropped, mirror, (row, column) in zip(images, out, flip.tolist(), offset.tolist(), strict=True):
        down = row - pad  # from the image's corner to the crop's
        right = column - pad
        flipped = image.flip(-1) if mirror else image
        visible = flipped[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        top = max(-down, 0)
        left = max(-right, 0)
        cropped[:, top : top + visible.shape[1], left : left + visible.shape[2]] = visible
    return out


def _flip_and_crop_gather(images: Tensor, flip: Tensor, offset: Tensor, pad: int) -> Tensor:
    """Gather all pixels at once, which is fastest on a GPU."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + offset[:, :1]  # [R, H]
    columns = torch.arange(width, device=images.device) + offset[:, 1:]  # [R, W]
    columns = torch.where(flip[:, None], width + 2 * pad - 1 - columns, columns)
    padded = F.pad(images, (pad, pad, pad, pad))
    index = torch.arange(len(images), device=images.device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]  # [R, H, W, 3]
    return cropped.permute(0, 3, 1, 2)


def boxes(count: int, height: int, width: int, probability: float, generator: torch.Generator) -> Tensor:
    """Draw boxes to erase (Zhong et al. 2020, algorithm 1).

    A box is the first of at most 100 tries whose area and aspect fit inside the image.

    Returns:
        int64 [count, 4]: top, left, height and width in pixels; 0 for an image without a box.
    """
    tries = 100
    area = torch.empty(count, tries).uniform_(*_AREA, generator=generator) * height * width
    log_aspect = torch.empty(count, tries).uniform_(*map(math.log, _ASPECT), generator=generator)
    tall = (area * log_aspect.exp()).sqrt().round().long()
    wide = (area / log_aspect.exp()).sqrt().round().long()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide, fits = (values.gather(1, first)[:, 0] for values in (tall, wide, fits))  # each [count]
    position = torch.rand(2, count, generator=generator)
    top = (position[0] * (height - tall + 1)).long()
    left = (position[1] * (width - wide + 1)).long()
    erased = fits & (torch.rand(count, generator=generator) < probability)
    return torch.stack([top, left, tall, wide], 1) * erased[:, None]


def erase(images: Tensor, box: Tensor, noise: Tensor) -> Tensor:
    """Fill boxes of images with noise; on a CPU, in place.

    Args:
        images: float32 [R, 3, H, W].
        box: int64 [R, 4], as `boxes` returns it.
        noise: float32, the values of all boxes, one box after the other.
    """
    if images.device.type != "cpu":
        return _erase_scatter(images, box, noise)
    used = 0
    for image, (top, left, tall, wide) in zip(images, box.tolist(), strict=True):
        size = 3 * tall * wide
        image[:, top : top + tall, left : left + wide] = noise[used : used + size].view(3, tall, wide)
        used += size
    return images


def _erase_scatter(images: Tensor, box: Tensor, noise: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    top, left, tall, wide = box[:, :, None].unbind(1)  # each [R, 1]
    rows = torch.arange(height, device=box.device)
    columns = torch.arange(width, device=box.device)
    in_rows = (rows >= top) & (rows < top + tall)  # [R, H]
    in_columns = (columns >= left) & (columns < left + wide)  # [R, W]
    inside = (in_rows[:, :, None] & in_columns[:, None, :])[:, None].expand_as(images)
    return images.masked_scatter(inside, noise)
