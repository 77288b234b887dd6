"""Decode, resize and crop images."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from resight.errors import PictureError

Picture = str | Path | bytes | np.ndarray | Tensor | Image.Image
"""An image: a file, the bytes of one, an array uint8 [h, w, 3] in RGB, a tensor uint8 [3, h, w], or a Pillow image."""

_JPEG: Final = b"\xff\xd8\xff"


def decode(source: Path | bytes, name: str | None = None) -> Tensor:
    """Decode an image to RGB.

    Args:
        source: a file, or the bytes of a file.
        name: of the image in error texts; None for the file's path.

    Returns:
        uint8 [3, h, w].

    Raises:
        PictureError: the file does not exist, is empty or truncated, or is no image.
    """
    name = name or (str(source) if isinstance(source, Path) else "the picture")
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror}") from error
    if not data:
        raise PictureError(f"{name} is empty (0 bytes)")
    pixels = _decode_jpeg(data, name) if data.startswith(_JPEG) else _decode_other(data, name)
    return torch.from_numpy(pixels).permute(2, 0, 1)  # [h, w, 3] -> [3, h, w]


def resize(picture: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize uint8 [3, h, w] to [3, H, W] with antialiasing; the result is within 1 grey level of Pillow's.

    Args:
        picture: uint8 [3, h, w].
        size: H and W, in pixels.
        interpolation: `bilinear` or `bicubic`.
    """
    return functional.resize(picture, list(size), InterpolationMode(interpolation), antialias=True)


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


def _decode_jpeg(data: bytes, name: str) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:
        if "premature" in str(error).lower():
            raise PictureError(f"{name} is cut short ({len(data)} bytes)") from error
    return _decode_other(data, name)  # Pillow decodes more kinds of JPEG, such as CMYK


def _decode_other(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is no picture that can be read (it starts with {data[:12]!r})") from error
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if "truncated" in str(error).lower():
            raise PictureError(f"{name} is cut short ({len(data)} bytes)") from error
        raise PictureError(f"{name} is corrupt: {error}") from error


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
    if isinstance(picture, str | Path):
        return decode(Path(picture))
    if isinstance(picture, bytes):
        return decode(picture)
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "PPM")
        return decode(buffer.getvalue())
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise PictureError(f"an array must be uint8 [h, w, 3] in RGB, not {picture.dtype} {list(picture.shape)}")
        return torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1)
    if not isinstance(picture, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PictureError(
            f"an image is a file, its bytes, an array, a tensor or a Pillow image, not {type(picture).__name__}"
        )
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel():
        raise PictureError(f"a tensor must be uint8 [3, h, w] in RGB, not {picture.dtype} {list(picture.shape)}")
    return picture.cpu()
