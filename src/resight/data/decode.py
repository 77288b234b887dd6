"""Decode images of any form to arrays of pixels. Nothing here imports torch.

Files may come from anyone. The header is read before any pixel is decoded: a picture of more than 100 megapixels, or as
many as the environment variable `RESIGHT_MAX_MEGAPIXELS` says, is refused, and so is a format that is not in
`FORMATS`. Whatever is wrong with a file, the only error is a `PictureError` of one sentence.

The first frame of an animation is used. Transparent pixels are laid over black, CMYK and palettes are converted to
RGB, and the orientation in EXIF data is ignored. Of colours with 16 bits in each channel the upper 8 bits are used. One
channel of more than 8 bits needs a rule, `resight.config.scaling.ScalingRule`.
"""

import io
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import Any, Final

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from resight.config.scaling import ScalingRule
from resight.data.picture_file import printable, read_file, require_size, size_before_opening
from resight.data.picture_notes import PictureNotes
from resight.data.pixels import array_pixels, rgb_pixels
from resight.errors import PictureError, ResightError

ArrayPicture = str | Path | bytes | np.ndarray | Image.Image
"""An image: a file, the bytes of one, a Pillow image, or an array: uint8 [h, w, 3] in RGB, or one channel of integers
or floating-point numbers, [h, w] or [h, w, 1]."""
_JPEG: Final = b"\xff\xd8\xff"
_LARGE_IMAGE: Final = 80_000_000  # pixels; Pillow's own limit is 89 million
_pillow_limit_lock = RLock()
_PLUGINS: Final = {
    "JPEG": "Jpeg",  # with MPO
    "PNG": "Png",
    "BMP": "Bmp",
    "GIF": "Gif",
    "TIFF": "Tiff",
    "WEBP": "WebP",
    "PPM": "Ppm",  # with PBM, PGM and PFM
    "AVIF": "Avif",
}


def _available_formats() -> tuple[str, ...]:
    for plugin in _PLUGINS.values():
        try:
            import_module(f"PIL.{plugin}ImagePlugin")  # registers the format
        except ImportError:  # Pillow reads AVIF since 11.3
            continue
    return tuple(name for name in _PLUGINS if name in Image.OPEN)


FORMATS: Final = _available_formats()
"""The only formats that Pillow may open, as in `Image.open(file, formats=FORMATS)`: for others it starts programs."""


def decode_array(
    source: str | Path | bytes,
    name: str | None = None,
    rule: ScalingRule | None = None,
    notes: PictureNotes | None = None,
) -> np.ndarray:
    """Decode an image to RGB.

    Args:
        source: a file, or the bytes of a file.
        name: of the image in error texts; None for the file's path.
        rule: how one channel of more than 8 bits becomes 8; None refuses such an image.
        notes: count what is left out or converted; None counts nothing.

    Returns:
        uint8 [h, w, 3].

    Raises:
        PictureError: the file does not exist, is no regular file, is empty, truncated or corrupt, or is no image of a
            known format; or the image has too many pixels, or one channel of more than 8 bits without a rule.
        ConfigError: `RESIGHT_MAX_MEGAPIXELS` is no positive number.
    """
    data, name = _content(source, name)
    header = _jpeg_header(data, name)
    if header is not None:
        pixels = _try_simplejpeg(simplejpeg.decode_jpeg, data, name, "RGB")
        if pixels is not None:
            if notes is not None and header[2] in ("CMYK", "YCCK"):
                notes.add("cmyk", name)
            return pixels
    with (
        _reporting(name, len(data)),
        _opened(data, name) as image,  # Pillow
        _pillow_allows(image.width * image.height),
    ):
        return rgb_pixels(image, name, rule, notes)


def image_size(source: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """Read an image's width and height in pixels from its header, so that a caller can limit the memory in use.

    Args:
        source: a file, or the bytes of a file.
        name: of the image in error texts; None for the file's path.

    Raises:
        PictureError: as `decode_array`, as far as the header shows it.
        ConfigError: `RESIGHT_MAX_MEGAPIXELS` is no positive number.
    """
    data, name = _content(source, name)
    header = _jpeg_header(data, name)
    if header is not None:
        return header[:2]
    with _reporting(name, len(data)), _opened(data, name) as image:
        return image.size


def as_array(picture: ArrayPicture, rule: ScalingRule | None = None) -> np.ndarray:
    """Return an image of any form as uint8 [h, w, 3].

    An array or a Pillow image is decoded already, and may have any number of pixels.

    Args:
        picture: of any form.
        rule: how one channel of more than 8 bits becomes 8; None refuses such an image.

    Raises:
        PictureError: the image cannot be decoded, or has another type, dtype or shape.
        ConfigError: `RESIGHT_MAX_MEGAPIXELS` is no positive number.
    """
    if isinstance(picture, str | Path | bytes):
        return decode_array(picture, rule=rule)
    if isinstance(picture, np.ndarray):
        return array_pixels(picture, rule)
    if not isinstance(picture, Image.Image):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PictureError(f"an image is a file, its bytes, an array or a Pillow image, not {type(picture).__name__}")
    if not (picture.width and picture.height):
        raise PictureError(f"a Pillow image must have pixels, and this one has {picture.width} x {picture.height}")
    with _reporting("the picture"):
        return rgb_pixels(picture, "the picture", rule)


def _content(source: str | Path | bytes, name: str | None) -> tuple[bytes, str]:
    """The bytes of an image, and its name in error texts."""
    printable_name = printable(name or ("the picture" if isinstance(source, bytes) else source))
    data = source if isinstance(source, bytes) else read_file(Path(source), printable_name)
    if not data:
        raise PictureError(f"{printable_name} is empty (0 bytes)")
    return data, printable_name


def _jpeg_header(data: bytes, name: str) -> tuple[int, int, str] | None:
    """Width, height and colour space; None for a kind of JPEG that simplejpeg cannot decode, and other formats."""
    if not data.startswith(_JPEG):
        return None
    header = _try_simplejpeg(simplejpeg.decode_jpeg_header, data, name)
    if header is None:
        return None
    height, width, colours = header[:3]
    require_size(width, height, name)
    return width, height, colours


def _try_simplejpeg(function: Callable[..., Any], data: bytes, name: str, *arguments: str) -> Any:
    try:
        return function(data, *arguments, strict=True)
    except Exception as error:
        if "premature" in str(error).lower():
            raise PictureError(f"{name} is cut short ({len(data)} bytes)") from error
        return None


@contextmanager
def _reporting(name: str, size: int | None = None) -> Generator[None]:
    """Raise any error of the block as a `PictureError`: on corrupt bytes Pillow raises errors of many types."""
    try:
        yield
    except ResightError:
        raise
    except Exception as error:
        if size is not None and "truncated" in str(error).lower():
            raise PictureError(f"{name} is cut short ({size} bytes)") from error
        raise PictureError(f"{name} is corrupt: {printable(str(error) or type(error).__name__)}") from error


@contextmanager
def _opened(data: bytes, name: str) -> Generator[ImageFile.ImageFile]:
    """Open an image with Pillow, which reads the header, and check its size.

    As `Image.open` with `formats=FORMATS`, but without its own limit.
    """
    early_size = size_before_opening(data)
    if early_size is not None:
        require_size(*early_size, name)
    with _pillow_allows(0 if early_size is None else early_size[0] * early_size[1]):
        image = _open_first(data)
    if image is None:
        raise PictureError(f"{name} is no picture that can be read (it starts with {data[:12]!r})")
    with image:
        require_size(*image.size, name)
        yield image


def _open_first(data: bytes) -> ImageFile.ImageFile | None:
    for file_format in FORMATS:
        factory, accepts = Image.OPEN[file_format]
        try:
            if accepts is None or accepts(data[:16]) is True:  # a text says why the format is not available
                return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Image.open: not of this format
            continue
    return None


@contextmanager
def _pillow_allows(pixels: int) -> Generator[None]:
    """Raise Pillow's own limit during the block, for one large image at a time, whose size we have checked."""
    if pixels < _LARGE_IMAGE:
        yield
        return
    with _pillow_limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, pixels)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
