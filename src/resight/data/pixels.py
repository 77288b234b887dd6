"""Pixels of any kind to RGB of 8 bits. Nothing here imports torch."""

from contextlib import suppress
from typing import Any, Final

import numpy as np
from PIL import Image

from resight.config.scaling import ScalingRule
from resight.data.picture_notes import PictureNotes
from resight.data.scaling import require_rule, scale
from resight.errors import PictureError

_KINDS: Final = {"F": "floating-point", "I": "16-bit or 32-bit"}
_PREVIEWS: Final = ("JPEG", "MPO")  # cameras store previews and depth maps behind the picture
_SAMPLE_FORMAT, _BITS = 339, 258  # tags of TIFF


def rgb_pixels(
    image: Image.Image, name: str, rule: ScalingRule | None = None, notes: PictureNotes | None = None
) -> np.ndarray:
    """Return the pixels of an image of any mode; its first frame is decoded where that has not happened yet.

    Args:
        image: of Pillow.
        name: of the image in error texts and notes.
        rule: how more than 8 bits become 8; None refuses such an image.
        notes: count what is left out or converted; None counts nothing.

    Returns:
        uint8 [h, w, 3].

    Raises:
        PictureError: the image has more than 8 bits, and there is no rule, or no pixel is finite.
    """
    if image.mode in _KINDS or image.mode.startswith("I;"):
        pixels = three_channels(scale(*_values(image, name, rule), name))
    else:
        image.load()
        pixels = _converted(image, name, notes)
    if notes is not None and _has_several_frames(image):
        notes.add("frames", name)
    return pixels


def array_pixels(array: np.ndarray, rule: ScalingRule | None) -> np.ndarray:
    """Return uint8 [h, w, 3] of an array: RGB as it is, and one channel, [h, w] or [h, w, 1], three times.

    Raises:
        PictureError: the array has another type or shape; or it has more than 8 bits, and there is no rule.
    """
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size:
        return array
    is_grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not is_grey or array.dtype.kind not in "uif" or not array.size:
        raise PictureError(
            f"an array must be uint8 [h, w, 3] in RGB, or grey [h, w], not {array.dtype} {list(array.shape)}"
        )
    grey = array.reshape(array.shape[:2])
    if grey.dtype == np.uint8:
        return three_channels(grey)
    return three_channels(scale(grey, require_rule(rule, str(array.dtype), "the array"), "the array"))


def three_channels(grey: np.ndarray) -> np.ndarray:
    """[h, w] -> [h, w, 3], three equal channels."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def _values(image: Image.Image, name: str, rule: ScalingRule | None) -> tuple[np.ndarray, ScalingRule]:
    """The values [h, w] of an image of more than 8 bits, as its file has them, and the rule."""
    rule = require_rule(rule, _KINDS.get(image.mode, "16-bit"), name)
    tags: Any = getattr(image, "tag_v2", {})
    is_unsigned = tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,)
    maximum = _pgm_maximum(image)
    values = np.asarray(image)
    if image.mode == "I" and is_unsigned:  # Pillow reads them as signed
        return values.view(np.uint32), rule
    if maximum is not None:  # Pillow multiplies them by 65535 / maximum
        return np.rint(values * (maximum / 65535)), rule
    return values, rule


def _pgm_maximum(image: Image.Image) -> int | None:
    """The greatest value that the header of a PGM states, before the image is decoded; None for other formats."""
    tile: Any = next(iter(getattr(image, "tile", ())), None)
    if image.format != "PPM" or image.mode != "I" or tile is None or not isinstance(tile.args, tuple):
        return None
    return int(tile.args[1])


def _converted(image: Image.Image, name: str, notes: PictureNotes | None) -> np.ndarray:
    if image.mode == "CMYK" and notes is not None:
        notes.add("cmyk", name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = image.getchannel("A")
        if opacity.getextrema() != (255, 255):
            if notes is not None:
                notes.add("transparency", name)
            black = Image.new("RGB", image.size)
            black.paste(image, mask=opacity)
            image = black
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _has_several_frames(image: Image.Image) -> bool:
    """Whether the file has more frames or pages than the one that is used; read from headers only."""
    if image.format in _PREVIEWS:
        return False
    with suppress(Exception):  # what follows the first frame may be corrupt, and is not used
        return bool(getattr(image, "is_animated", False))
    return False
