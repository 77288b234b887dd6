"""Boxes in the frames of a video, as trackers and detectors write them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resight.errors import DatasetError


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
        DatasetError: the file does not exist, has another format, or contains no box.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the boxes {path} cannot be read: {error}") from error
    read, entries = _entries(path, text)
    boxes = list[Box]()
    for where, entry in entries:
        try:
            box = read(entry)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path}, {where}, is no box: {type(error).__name__} {error}") from error
        if box.frame < 0 or not (box.right > box.left and box.bottom > box.top):
            raise DatasetError(f"{path}, {where}, is no box: it has frame {box.frame} or no width or height")
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
        except ValueError as error:
            raise DatasetError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(entries, list):
            raise DatasetError(f"{path} must contain a list of boxes")
        return _object, [(f"entry {n}", entry) for n, entry in enumerate(entries, 1)]
    if path.suffix not in (".jsonl", ".txt", ".csv"):
        raise DatasetError(f"{path} must be .txt or .csv (MOTChallenge's format), .json or .jsonl")
    lines = [(f"line {n}", line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    return _line if path.suffix == ".jsonl" else _mot, lines


def _line(line: str) -> Box:
    return _object(json.loads(line))


def _mot(line: str) -> Box:
    cells = line.split(",")
    left, top, width, height = map(float, cells[2:6])
    track = int(float(cells[1]))
    confidence = float(cells[6]) if len(cells) > 6 else None
    tracklet = None if track < 0 else str(track)
    return Box(int(cells[0]) - 1, left, top, left + width, top + height, tracklet, confidence)


def _object(entry: dict[str, Any]) -> Box:
    left, top, right, bottom = map(float, entry["box"] if "box" in entry else entry["bbox"])
    if "box" not in entry:
        right, bottom = left + right, top + bottom
    tracklet = entry.get("tracklet", entry.get("track_id"))
    identity = entry.get("identity")
    confidence = entry.get("confidence", entry.get("score"))
    return Box(
        int(entry["frame"]),
        *(left, top, right, bottom),
        None if tracklet is None else str(tracklet),
        None if confidence is None else float(confidence),
        None if identity is None else str(identity),
    )
