"""The random part of the way into the network, for a whole batch at once, on any device.

Every number is drawn on the CPU from the given generator, so that a seed means the same on every device.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from resight.config.sections import Augmentation
from resight.data.augment.colour import draw, recolour
from resight.data.augment.policy import apply_policies, draw_policies

_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [R, 3, H, W] to float32: channel means taken off values in [0, 1], then over the standard deviations."""
    scale = torch.tensor(std, device=images.device).mul(255).reciprocal().view(3, 1, 1)
    shift = (torch.tensor(mean, device=images.device) / torch.tensor(std, device=images.device)).view(3, 1, 1)
    if images.device.type != "cpu":
        return images * scale - shift
    out = torch.empty(images.shape)
    for picture, own in zip(images, out, strict=True):  # one after another, each within the cache
        own.copy_(picture).mul_(scale).sub_(shift)
    return out


def augment(
    images: Tensor,
    settings: Augmentation,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    generator: torch.Generator,
    share: tuple[slice, int] | None = None,
) -> Tensor:
    """Flip, pad and crop, go through a policy, change colours, normalise, erase.

    Args:
        pictures: uint8 [B, M, 3, H, W].
        settings: probabilities and sizes.
        mean: of each channel.
        std: of each channel.
        generator: a CPU generator.
        share: where these sightings lie in a larger batch, and how many that holds; each is then drawn as in it.

    Returns:
        float32 [B, M, 3, H, W].
    """
    part, b = share or (slice(0, len(images)), len(images))
    m, (height, width) = images.shape[1], images.shape[-2:]
    draws, repeats = (b, m) if settings.share_draws else (b * m, 1)
    flip = torch.rand(draws, generator=generator) < settings.flip
    offset = torch.randint(0, 2 * settings.pad + 1, (draws, 2), generator=generator)
    box = boxes(draws, height, width, settings.erase, generator)
    colours = draw(draws, height, width, settings, generator)
    policies = draw_policies(draws, settings, generator)
    flip, offset, box = (t.repeat_interleave(repeats, 0) for t in (flip, offset, box))
    noise = torch.randn(_noise(box), generator=generator)
    own = slice(part.start * m, part.stop * m)
    noise = noise[_noise(box[: own.start]) :][: _noise(box[own])].to(images.device)
    flip, offset, box = (t[own].to(images.device) for t in (flip, offset, box))
    moved = flip_and_crop(images.flatten(0, 1), flip, offset, settings.pad)
    if settings.autoaugment or settings.augmix:
        moved = apply_policies(moved, policies.repeat_interleave(repeats, 0)[own])
    if settings.jitter or settings.grey or settings.grey_patch:
        moved = recolour(moved, **{name: t.repeat_interleave(repeats, 0)[own] for name, t in colours.items()})
    return erase(normalize(moved, mean, std), box, noise).unflatten(0, images.shape[:2])


def _noise(box: Tensor) -> int:
    """Numbers that fill some boxes."""
    return int(3 * box[:, 2:].prod(1).sum())


def flip_and_crop(images: Tensor, flip: Tensor, offset: Tensor, pad: int) -> Tensor:
    """Mirrors where `flip` [R], pads with black, and cuts [H, W] out at `offset` [R, 2] (row, column, 0 to 2 pad)."""
    if images.device.type == "cpu":
        return _flip_and_crop_each(images, flip, offset, pad)
    return _flip_and_crop_together(images, flip, offset, pad)


def _flip_and_crop_each(images: Tensor, flip: Tensor, offset: Tensor, pad: int) -> Tensor:
    """By copying rectangles: the fastest on a CPU."""
    height, width = images.shape[-2:]
    out = torch.zeros_like(images)
    for picture, own, mirror, (row, column) in zip(images, out, flip.tolist(), offset.tolist(), strict=True):
        down, right = row - pad, column - pad  # how far the cut lies from the picture
        turned = picture.flip(-1) if mirror else picture
        seen = turned[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
        top, left = max(-down, 0), max(-right, 0)
        own[:, top : top + seen.shape[1], left : left + seen.shape[2]] = seen
    return out


def _flip_and_crop_together(images: Tensor, flip: Tensor, offset: Tensor, pad: int) -> Tensor:
    """By one gather: the fastest on a GPU."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + offset[:, :1]  # [R, H]
    columns = torch.arange(width, device=images.device) + offset[:, 1:]  # [R, W]
    columns = torch.where(flip[:, None], width + 2 * pad - 1 - columns, columns)
    padded = F.pad(images, (pad, pad, pad, pad))
    index = torch.arange(len(images), device=images.device)[:, None, None]
    cut = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]  # [R, H, W, 3]
    return cut.permute(0, 3, 1, 2)


def boxes(count: int, height: int, width: int, probability: float, generator: torch.Generator) -> Tensor:
    """Boxes to erase (Zhong et al. 2020, algorithm 1): int64 [count, 4] as top, left, height, width; 0 where none.

    A box is the first of up to 100 tries whose drawn area and aspect fit inside the picture.
    """
    tries = 100
    area = torch.empty(count, tries).uniform_(*_AREA, generator=generator) * height * width
    log_aspect = torch.empty(count, tries).uniform_(*map(math.log, _ASPECT), generator=generator)
    tall = (area * log_aspect.exp()).sqrt().round().long()
    wide = (area / log_aspect.exp()).sqrt().round().long()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide, fits = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0], fits.gather(1, first)[:, 0]
    place = torch.rand(2, count, generator=generator)
    top, left = (place[0] * (height - tall + 1)).long(), (place[1] * (width - wide + 1)).long()
    chosen = fits & (torch.rand(count, generator=generator) < probability)
    return torch.stack([top, left, tall, wide], 1) * chosen[:, None]


def erase(images: Tensor, box: Tensor, noise: Tensor) -> Tensor:
    """Fills each box [R, 4] of float [R, 3, H, W] with noise, box by box; on a CPU where the pictures lie."""
    if images.device.type != "cpu":
        return _erase_together(images, box, noise)
    used = 0
    for picture, (top, left, tall, wide) in zip(images, box.tolist(), strict=True):
        size = 3 * tall * wide
        picture[:, top : top + tall, left : left + wide] = noise[used : used + size].view(3, tall, wide)
        used += size
    return images


def _erase_together(images: Tensor, box: Tensor, noise: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    top, left, tall, wide = box[:, :, None].unbind(1)  # each [R, 1]
    rows, columns = torch.arange(height, device=box.device), torch.arange(width, device=box.device)
    in_rows = (rows >= top) & (rows < top + tall)  # [R, H]
    in_columns = (columns >= left) & (columns < left + wide)  # [R, W]
    inside = (in_rows[:, :, None] & in_columns[:, None, :])[:, None].expand_as(images)
    return images.masked_scatter(inside, noise)
