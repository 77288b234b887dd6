"""Boxes in the frames of a video, as trackers and detectors write them."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from resight.errors import ConfigError, DatasetError

_MAX_FRAME: Final = 10**9
_MAX_EDGE: Final = 1e9  # pixels
_FAULTS: Final = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Box:
    """An object in a frame of a video; edges in pixels from the upper left corner of the frame."""

    frame: int
    """From 0."""
    left: float
    top: float
    right: float
    bottom: float
    tracklet: str | None = None
    confidence: float | None = None
    identity: str | None = None


def read_boxes(path: Path, min_confidence: float | None = None) -> list[Box]:
    """Read boxes from a file, and return them in the order of their frames.

    Args:
        path: `.txt` or `.csv` in the format of MOTChallenge: one line for each box, with
            `frame,id,left,top,width,height,confidence`; frames are counted from 1, an unknown id is -1, and further
            columns are ignored. Or `.json`, a list of objects, or `.jsonl`, one object in each line, with `frame`,
            counted from 0; `box` (left, top, right, bottom) or `bbox` (left, top, width, height); and optionally
            `tracklet` (or `track_id`), `confidence` (or `score`) and `identity`.
        min_confidence: boxes with a lower confidence are left out; boxes without a confidence are not.

    Raises:
        ConfigError: the lowest confidence is no number.
        DatasetError: the file does not exist, has another format, or contains no box; or a box has no width or height,
            a number that is not finite, or a frame that is no whole number from 0.
    """
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the path
        raise DatasetError(f"the boxes {str(path)[:300]} cannot be read: {error}") from error
    if min_confidence is not None and not math.isfinite(min_confidence):
        raise ConfigError(f"the lowest confidence of a box must be a number, not {min_confidence}")
    read, entries = _entries(path, text)
    boxes = list[Box]()
    for where, entry in entries:
        try:
            box = read(entry)
        except _FAULTS as error:
            raise DatasetError(f"{path}, {where}, is no box: {_reason(error)}") from error
        if min_confidence is None or box.confidence is None or box.confidence >= min_confidence:
            boxes.append(box)
    if not boxes:
        raise DatasetError(f"{path} has no box" + ("" if min_confidence is None else " of that confidence"))
    return sorted(boxes, key=lambda box: box.frame)


def _entries(path: Path, text: str) -> tuple[Callable[[Any], Box], list[tuple[str, Any]]]:
    """The function that reads a box, and for each box its position in the file and its text or object."""
    if path.suffix == ".json":
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} is not valid JSON: {_reason(error)}") from error
        if not isinstance(entries, list):
            raise DatasetError(f"{path} must contain a list of boxes")
        return _object, [(f"entry {n}", entry) for n, entry in enumerate(entries, 1)]
    if path.suffix not in (".jsonl", ".txt", ".csv"):
        raise DatasetError(f"{path} must be .txt or .csv (MOTChallenge's format), .json or .jsonl")
    lines = [(f"line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return _line if path.suffix == ".jsonl" else _mot, lines


def _line(line: str) -> Box:
    return _object(json.loads(line))


def _mot(line: str) -> Box:
    cells = line.split(",")
    left, top, width, height = map(float, cells[2:6])
    track = _integer(cells[1])
    confidence = float(cells[6]) if len(cells) > 6 else None
    tracklet = None if track < 0 else str(track)
    return _box(_integer(cells[0]) - 1, (left, top, left + width, top + height), tracklet, confidence)


def _object(entry: dict[str, Any]) -> Box:
    left, top, right, bottom = map(_number, entry["box"] if "box" in entry else entry["bbox"])
    if "box" not in entry:
        right, bottom = left + right, top + bottom
    tracklet = _label(entry.get("tracklet", entry.get("track_id")))
    confidence = entry.get("confidence", entry.get("score"))
    confidence = None if confidence is None else _number(confidence)
    return _box(
        _integer(entry["frame"]), (left, top, right, bottom), tracklet, confidence, _label(entry.get("identity"))
    )


def _box(
    frame: int, corners: Sequence[float], tracklet: str | None, confidence: float | None, identity: str | None = None
) -> Box:
    left, top, right, bottom = corners
    if not 0 <= frame < _MAX_FRAME:
        raise ValueError(f"it has frame {frame}, and frames are counted from 0")
    if not all(abs(edge) < _MAX_EDGE for edge in corners):
        raise ValueError("it has no width or height that is a finite number of pixels")
    if not (right > left and bottom > top):
        raise ValueError("it has no width or height")
    if confidence is not None and not math.isfinite(confidence):
        raise ValueError(f"its confidence is {confidence}")
    return Box(frame, left, top, right, bottom, tracklet, confidence, identity)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.60} is no number")
    return float(value)


def _integer(value: Any) -> int:
    number = float(value) if isinstance(value, str) else _number(value)
    if not number.is_integer():
        raise ValueError(f"{value!r:.60} is no whole number")
    return int(number)


def _label(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(_integer(value))


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if type(error) is ValueError else f"{type(error).__name__} {text}"
