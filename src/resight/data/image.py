"""Decode, resize and crop images."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from resight.data.decode import ArrayPicture, as_array, decode_array
from resight.errors import PictureError

Picture = ArrayPicture | Tensor
"""An image: a file, the bytes of one, an array uint8 [h, w, 3] in RGB, a tensor uint8 [3, h, w], or a Pillow image."""

_THUMBNAIL: Final = (96, 192)  # maximum width and height, in pixels


def decode(source: str | Path | bytes, name: str | None = None) -> Tensor:
    """Decode an image to RGB.

    Args:
        source: a file, or the bytes of a file.
        name: of the image in error texts; None for the file's path.

    Returns:
        uint8 [3, h, w].

    Raises:
        PictureError: as `resight.data.decode.decode_array`.
    """
    return _tensor(decode_array(source, name))


def resize(picture: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 [3, h, w] to [3, H, W] with antialiasing; the result is within 1 grey level of Pillow's.

    Args:
        picture: uint8 [3, h, w].
        size: H and W, in pixels.
        interpolation: `bilinear` or `bicubic`.
    """
    return functional.resize(picture, list(size), InterpolationMode(interpolation), antialias=True)


def thumbnail(pixels: np.ndarray) -> bytes:
    """Encode uint8 [h, w, 3] as a JPEG of at most 96 x 192 pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail(_THUMBNAIL)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def corrupt(paths: list[Path], progress: Callable[[int], None] = lambda count: None) -> list[tuple[Path, str]]:
    """Decode every image, and return those that cannot be decoded, each with the reason, in order.

    Args:
        paths: image files.
        progress: called with the number of images decoded so far.
    """

    def reason_of(path: Path) -> str | None:
        try:
            decode(path)
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


def as_tensor(picture: Picture) -> Tensor:
    """Return an image of any form as uint8 [3, h, w].

    Raises:
        PictureError: the image cannot be decoded, or has another type, dtype or shape.
    """
    if not isinstance(picture, Tensor):
        return _tensor(as_array(picture))
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel():
        raise PictureError(f"a tensor must be uint8 [3, h, w] in RGB, not {picture.dtype} {list(picture.shape)}")
    return picture.cpu()


def _tensor(pixels: np.ndarray) -> Tensor:
    """[h, w, 3] -> [3, h, w], of the same memory where torch can use it."""
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)
