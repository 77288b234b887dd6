"""What the page shows of an explanation: both pictures, lit, and lines between the patches that resemble each other."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from resight.inference.explain import Explanation
from resight.report.explanation import COLOURS, light
from resight.service.page.render import data_url
from resight.service.work.explanations import Explained

_HEIGHT: Final = 240  # units of the drawing
_GAP: Final = 40
_MAX_WIDTH: Final = 320


@dataclass(frozen=True)
class Drawing:
    """Two pictures side by side."""

    addresses: tuple[str, str]
    boxes: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Left, width and height of each."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        left, width, _ = self.boxes[1]
        return left + width, max(box[2] for box in self.boxes)


@dataclass(frozen=True)
class Line:
    """A pair of patches."""

    number: int
    colour: str
    x1: float
    y1: float
    x2: float
    y2: float
    places: tuple[str, str]
    """Where in each picture, in words."""
    similarity: float


def why_values(explained: Explained, names: tuple[str, str]) -> dict[str, Any]:
    """Return the values of the template `why.html`.

    Args:
        explained: of two pictures.
        names: what the page calls them.
    """
    images = [np.asarray(Image.open(BytesIO(small)).convert("RGB")) for small in explained.thumbnails]
    explanation = explained.explanation
    attention = _drawing(images, explanation.attention)
    patches = _drawing(images, explanation.maps)
    return {
        "comparison": explanation.comparison, "reason": None, "names": names, "attention": attention,
        "patches": patches, "lines": _lines(explanation, patches),
    }  # fmt: skip


def _drawing(images: list[np.ndarray], weights: tuple[np.ndarray, np.ndarray]) -> Drawing:
    addresses = list[str]()
    boxes = list[tuple[float, float, float]]()
    left = 0.0
    for picture, weight in zip(images, weights, strict=True):
        scale = min(_HEIGHT / picture.shape[0], _MAX_WIDTH / picture.shape[1])
        boxes.append((left, picture.shape[1] * scale, picture.shape[0] * scale))
        left += picture.shape[1] * scale + _GAP
        buffer = BytesIO()
        enlarged = Image.fromarray(picture).resize((2 * picture.shape[1], 2 * picture.shape[0]))
        Image.fromarray(light(np.asarray(enlarged), weight)).save(buffer, "JPEG", quality=88)
        addresses.append(data_url(buffer.getvalue()))
    return Drawing((addresses[0], addresses[1]), (boxes[0], boxes[1]))


def _lines(explanation: Explanation, drawing: Drawing) -> list[Line]:
    lines = list[Line]()
    for number, pair in enumerate(explanation.pairs(len(COLOURS)), start=1):
        ends = [
            ((cell[1] + 0.5) / attention.shape[1], (cell[0] + 0.5) / attention.shape[0])
            for cell, attention in zip((pair.first, pair.second), explanation.attention, strict=True)
        ]
        (x1, y1), (x2, y2) = (
            (round(box[0] + across * box[1], 1), round(down * box[2], 1))
            for (across, down), box in zip(ends, drawing.boxes, strict=True)
        )
        places = (_place(*ends[0]), _place(*ends[1]))
        lines.append(Line(number, COLOURS[number - 1], x1, y1, x2, y2, places, pair.similarity))
    return lines


def _place(across: float, down: float) -> str:
    """Where a patch is, for those who cannot see it: `30 % from the left, 15 % from the top`."""
    return f"{100 * across:.0f} % from the left, {100 * down:.0f} % from the top"
