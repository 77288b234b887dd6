"""One picture: from bytes to a uint8 tensor of the wanted size."""

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
"""A file, what a file holds, uint8 [h, w, 3] in RGB, uint8 [3, h, w], or a picture of Pillow's."""

_JPEG: Final = b"\xff\xd8\xff"


def decode(source: Path | bytes, name: str | None = None) -> Tensor:
    """Decodes a picture to RGB.

    Args:
        source: a file, or what a file holds.
        name: what an error calls the picture; the file's path where None.

    Returns:
        uint8 [3, h, w].

    Raises:
        PictureError: the file is missing, empty, cut short, or no picture.
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
    """Resizes uint8 [3, h, w] to [3, H, W] with antialiasing, within 1 grey level of Pillow's."""
    return functional.resize(picture, list(size), InterpolationMode(interpolation), antialias=True)


def corrupt(paths: list[Path], progress: Callable[[int], None] = lambda done: None) -> list[tuple[Path, str]]:
    """Decodes every picture once and returns those that cannot be, each with the reason, in order.

    Args:
        paths: files.
        progress: is told how many are done.
    """

    def fault(path: Path) -> str | None:
        try:
            decode(path)
        except PictureError as error:
            return str(error)
        return None

    found: list[tuple[Path, str]] = []
    with ThreadPoolExecutor() as pool:
        for done, (path, reason) in enumerate(zip(paths, pool.map(fault, paths), strict=True), start=1):
            if reason is not None:
                found.append((path, reason))
            progress(done)
    return found


def _decode_jpeg(data: bytes, name: str) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as error:
        if "premature" in str(error).lower():
            raise PictureError(f"{name} is cut short ({len(data)} bytes)") from error
    return _decode_other(data, name)  # an oddity that Pillow may take, such as CMYK


def _decode_other(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is no picture that can be read (it starts with {data[:12]!r})") from error
    except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if "truncated" in str(error).lower():
            raise PictureError(f"{name} is cut short ({len(data)} bytes)") from error
        raise PictureError(f"{name} is damaged: {error}") from error


def edges(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels of boxes [N, 4] (left, top, right, bottom), cut at the edge of a frame of height x width.

    Returns:
        int64 [N, 4], and bool [N]: whether anything of the box lies in the frame.
    """
    limits = np.array([width, height, width, height])
    whole = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:4])], axis=1).clip(0, limits).astype(np.int64)
    return whole, (whole[:, 2] > whole[:, 0]) & (whole[:, 3] > whole[:, 1])


def as_tensor(picture: Picture) -> Tensor:
    """A picture of any form as uint8 [3, h, w].

    Raises:
        PictureError: it cannot be decoded, or is of another form.
    """
    if isinstance(picture, str | Path):
        return decode(Path(picture))
    if isinstance(picture, bytes):
        return decode(picture)
    if isinstance(picture, Image.Image):
        held = io.BytesIO()
        picture.convert("RGB").save(held, "PPM")
        return decode(held.getvalue())
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise PictureError(f"an array must be uint8 [h, w, 3] in RGB, not {picture.dtype} {list(picture.shape)}")
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel():
        raise PictureError(f"a tensor must be uint8 [3, h, w] in RGB, not {picture.dtype} {list(picture.shape)}")
    return picture.cpu()
