"""Crops of boxes from the frames of a video, with torchcodec and the system's FFmpeg."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from resight.data.boxes import Box
from resight.data.image import edges
from resight.data.picture_file import printable, require_file, require_size
from resight.errors import PictureError, require_extra

_FRAMES: Final = 8  # decoded at a time, or fewer: 50 MB at 1920 x 1080
_PIXELS: Final = _FRAMES * 1920 * 1080  # of all frames that are decoded at a time
_SOURCE_LINE: Final = re.compile(r"^\w+, \S+\.cpp:\d+, ")  # with which torchcodec's errors begin


class Video:
    """An open video file.

    Args:
        path: the file.

    Raises:
        PictureError: the file cannot be decoded, has frames of more pixels than the limit for pictures, or states an
            impossible number of frames, frame rate or time; or FFmpeg is not installed.
        ConfigError: torchcodec is not installed.
    """

    def __init__(self, path: Path) -> None:
        decoders = require_extra("torchcodec.decoders", "video")
        self.path = path
        self._name = printable(path)
        if not os.path.exists(path):
            raise PictureError(f"there is no video at {self._name}")
        size = require_file(path, self._name).st_size
        try:
            self._decoder: Any = decoders.VideoDecoder(str(path.absolute()))
            self.frames: int = len(self._decoder)
        except Exception as error:  # an impossible number in the header raises errors of many types
            if "libtorchcodec" in str(error):  # loading it needs FFmpeg's libraries
                raise PictureError(
                    "video needs FFmpeg's libraries, and torchcodec found none that it can use: install ffmpeg (Debian "
                    "and Ubuntu: apt install ffmpeg; macOS: brew install ffmpeg), version 4 or newer"
                ) from error
            raise PictureError(f"{self._name} is no video that FFmpeg can decode: {_reason(error)}") from error
        self._at_a_time = _frames_at_a_time(self._decoder.metadata, self.frames, size, self._name)

    def crops(self, boxes: Sequence[Box]) -> Iterator[tuple[Box, float, Tensor | str]]:
        """Iterate over boxes, the times of their frames in seconds, and their crops: uint8 [3, h, w] or an error text.

        Args:
            boxes: in the order of their frames.
        """
        frames = {frame: list(group) for frame, group in groupby(boxes, lambda box: box.frame)}
        numbers = [n for n in frames if 0 <= n < self.frames]
        for start in range(0, len(numbers), self._at_a_time):
            part = numbers[start : start + self._at_a_time]
            try:
                decoded = self._decoder.get_frames_at(part)
            except Exception as error:
                reason = f"{self._name}, frames {part[0]} to {part[-1]}, cannot be decoded: {_reason(error)}"
                yield from ((box, 0.0, reason) for n in part for box in frames[n])
                continue
            for n, pixels, seconds in zip(part, decoded.data, decoded.pts_seconds.tolist(), strict=True):
                if not math.isfinite(seconds):
                    reason = f"{self._name}, frame {n}, has no time: the file states {seconds} seconds"
                    yield from ((box, 0.0, reason) for box in frames[n])
                    continue
                yield from (
                    (box, seconds, crop) for box, crop in zip(frames[n], self._crop(pixels, frames[n]), strict=True)
                )
        for n in frames.keys() - set(numbers):
            reason = f"{self._name} has no frame {n}, only {self.frames} of them"
            yield from ((box, 0.0, reason) for box in frames[n])

    def _crop(self, pixels: Tensor, boxes: Sequence[Box]) -> Iterator[Tensor | str]:
        corners = np.array([[box.left, box.top, box.right, box.bottom] for box in boxes])
        clipped, inside = edges(corners, pixels.shape[1], pixels.shape[2])
        for box, (left, top, right, bottom), is_inside in zip(boxes, clipped.tolist(), inside, strict=True):
            if is_inside:
                yield pixels[:, top:bottom, left:right].clone()  # a copy, so that the frame is released
            else:
                corner_text = f"{box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g}"
                yield f"{self._name}, frame {box.frame}: the box {corner_text} is outside the frame"


def _frames_at_a_time(metadata: Any, frames: int, size: int, name: str) -> int:
    """The number of frames to decode at a time, after a check of what the header of a file of `size` bytes states."""
    if not 0 < frames <= size:  # a frame has at least one byte
        raise PictureError(f"{name} cannot be decoded: it states {frames} frames in {size} bytes")
    figures = {
        "a frame rate": metadata.average_fps,
        "a start": metadata.begin_stream_seconds,
        "an end": metadata.end_stream_seconds,
    }
    for kind, figure in figures.items():
        if figure is not None and not math.isfinite(figure):
            raise PictureError(f"{name} cannot be decoded: it states {kind} of {figure}")
    width, height = metadata.width or 1, metadata.height or 1
    require_size(width, height, f"a frame of {name}")
    return min(_FRAMES, max(1, _PIXELS // (width * height)))


def _reason(error: Exception) -> str:
    """The first line of an error of torchcodec, without the place in its source."""
    line = printable(_SOURCE_LINE.sub("", (str(error).strip().splitlines() or [""])[0]))
    if "best video stream is unknown" in line:
        return "it has no video stream"
    if isinstance(error, RuntimeError | OSError):
        return line
    return f"a number in its header is not possible ({type(error).__name__} {line})"
