"""Decode, resize and crop images."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resight.config.scaling import ScalingRule
from resight.data.decode import ArrayPicture, as_array, decode_array
from resight.data.picture_notes import PictureNotes
from resight.errors import PictureError

Picture = ArrayPicture | Tensor
"""An image: a file, the bytes of one, a Pillow image, or pixels: an array uint8 [h, w, 3] or a tensor uint8 [3, h, w]
in RGB, or one channel of integers or floating-point numbers, [h, w], [h, w, 1] (an array) or [1, h, w] (a tensor)."""

_THUMBNAIL: Final = (96, 192)  # maximum width and height, in pixels


def decode(
    source: str | Path | bytes,
    name: str | None = None,
    rule: ScalingRule | None = None,
    notes: PictureNotes | None = None,
) -> Tensor:
    """Decode an image to RGB.

    Args:
        source: a file, or the bytes of a file.
        name: of the image in error texts; None for the file's path.
        rule: how one channel of more than 8 bits becomes 8; None refuses such an image.
        notes: count what is left out or converted; None counts nothing.

    Returns:
        uint8 [3, h, w].

    Raises:
        PictureError: as `resight.data.decode.decode_array`.
    """
    return _tensor(decode_array(source, name, rule, notes))


def resize(picture: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 [3, h, w] to [3, H, W] with antialiasing; the result is within 1 grey level of Pillow's.

    Args:
        picture: uint8 [3, h, w].
        size: H and W, in pixels.
        interpolation: `bilinear` or `bicubic`.
    """
    # Importing torchvision takes two seconds, and many programs decode images without resizing them.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    return functional.resize(picture, list(size), InterpolationMode(interpolation), antialias=True)


def thumbnail(pixels: np.ndarray) -> bytes:
    """Encode uint8 [h, w, 3] as a JPEG of at most 96 x 192 pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail(_THUMBNAIL)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def corrupt(
    paths: list[Path],
    progress: Callable[[int], None] = lambda count: None,
    rules: Mapping[Path, ScalingRule] | None = None,
    notes: PictureNotes | None = None,
) -> list[tuple[Path, str]]:
    """Decode every image, and return those that cannot be decoded, each with the reason, in order.

    Args:
        paths: image files.
        progress: called with the number of images decoded so far.
        rules: by path, how one channel of more than 8 bits becomes 8; such images without a rule are returned too.
        notes: count what is left out or converted; None counts nothing.
    """
    rule_of_path = rules or {}

    def reason_of(path: Path) -> str | None:
        try:
            decode(path, None, rule_of_path.get(path), notes)
        except PictureError as error:
            return str(error)
        return None

    failures: list[tuple[Path, str]] = []
    with ThreadPoolExecutor() as pool:
        for count, (path, reason) in enumerate(zip(paths, pool.map(reason_of, paths), strict=True), start=1):
            if reason is not None:
                failures.append((path, reason))
            progress(count)
    return failures


def edges(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Round boxes outwards to whole pixels, and clip them to the frame.

    Args:
        boxes: [N, 4], left, top, right and bottom, in pixels.
        height: of the frame, in pixels.
        width: of the frame, in pixels.

    Returns:
        int64 [N, 4], and bool [N]: whether any part of the box is inside the frame.
    """
    limits = np.array([width, height, width, height])
    rounded = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:4])], axis=1)
    clipped = rounded.clip(0, limits).astype(np.int64)
    return clipped, (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])


def as_tensor(picture: Picture, rule: ScalingRule | None = None) -> Tensor:
    """Return an image of any form as uint8 [3, h, w].

    Args:
        picture: of any form.
        rule: how one channel of more than 8 bits becomes 8; None refuses such an image.

    Raises:
        PictureError: the image cannot be decoded, or has another type, dtype or shape.
    """
    if not isinstance(picture, Tensor):
        return _tensor(as_array(picture, rule))
    if picture.dtype == torch.uint8 and picture.ndim == 3 and picture.shape[0] == 3 and picture.numel():
        return picture.cpu()
    is_grey = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[0] == 1)
    if not is_grey or picture.is_complex() or picture.dtype == torch.bool or not picture.numel():
        raise PictureError(
            f"a tensor must be uint8 [3, h, w] in RGB, or grey [h, w], not {picture.dtype} {list(picture.shape)}"
        )
    values = picture.detach().float() if picture.dtype == torch.bfloat16 else picture.detach()  # numpy has no bfloat16
    return _tensor(as_array(values.cpu().reshape(values.shape[-2:]).numpy(), rule))


def _tensor(pixels: np.ndarray) -> Tensor:
    """[h, w, 3] -> [3, h, w], of the same memory where torch can use it."""
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
