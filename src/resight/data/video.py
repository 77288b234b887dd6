"""Crops of boxes from the frames of a video, with torchcodec and the system's FFmpeg."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from resight.data.boxes import Box
from resight.data.image import edges
from resight.errors import PictureError, require_extra

_FRAMES: Final = 8  # decoded at a time: 50 MB at 1920 x 1080


class Video:
    """An open video file.

    Args:
        path: the file.

    Raises:
        PictureError: the file cannot be decoded, or FFmpeg is not installed.
        ConfigError: torchcodec is not installed.
    """

    def __init__(self, path: Path) -> None:
        decoders = require_extra("torchcodec.decoders", "video")
        if not path.is_file():
            raise PictureError(f"there is no video at {path}")
        try:
            self._decoder: Any = decoders.VideoDecoder(str(path))
        except (RuntimeError, OSError, ValueError) as error:
            if "libtorchcodec" in str(error):  # loading it needs FFmpeg's libraries
                raise PictureError(
                    "video needs FFmpeg's libraries, and torchcodec found none that it can use: install ffmpeg (Debian "
                    "and Ubuntu: apt install ffmpeg; macOS: brew install ffmpeg), version 4 or newer"
                ) from error
            raise PictureError(f"{path} is no video that FFmpeg can decode: {_first_line(error)}") from error
        self.path = path
        self.frames: int = len(self._decoder)

    def crops(self, boxes: Sequence[Box]) -> Iterator[tuple[Box, float, Tensor | str]]:
        """Iterate over boxes, the times of their frames in seconds, and their crops: uint8 [3, h, w] or an error text.

        Args:
            boxes: in the order of their frames.
        """
        frames = {frame: list(group) for frame, group in groupby(boxes, lambda box: box.frame)}
        numbers = [n for n in frames if n < self.frames]
        for start in range(0, len(numbers), _FRAMES):
            part = numbers[start : start + _FRAMES]
            try:
                decoded = self._decoder.get_frames_at(part)
            except RuntimeError as error:
                reason = f"{self.path}, frames {part[0]} to {part[-1]}, cannot be decoded: {_first_line(error)}"
                yield from ((box, 0.0, reason) for n in part for box in frames[n])
                continue
            for n, pixels, seconds in zip(part, decoded.data, decoded.pts_seconds.tolist(), strict=True):
                yield from (
                    (box, seconds, crop) for box, crop in zip(frames[n], self._crop(pixels, frames[n]), strict=True)
                )
        for n in frames.keys() - set(numbers):
            reason = f"{self.path} has no frame {n}, only {self.frames} of them"
            yield from ((box, 0.0, reason) for box in frames[n])

    def _crop(self, pixels: Tensor, boxes: Sequence[Box]) -> Iterator[Tensor | str]:
        corners = np.array([[box.left, box.top, box.right, box.bottom] for box in boxes])
        clipped, inside = edges(corners, pixels.shape[1], pixels.shape[2])
        for box, (left, top, right, bottom), is_inside in zip(boxes, clipped.tolist(), inside, strict=True):
            if is_inside:
                yield pixels[:, top:bottom, left:right].clone()  # a copy, so that the frame is released
            else:
                corner_text = f"{box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g}"
                yield f"{self.path}, frame {box.frame}: the box {corner_text} is outside the frame"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
