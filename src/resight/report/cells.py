"""The cells of a strip: framed images with text above and below, in rows of a query and what was ranked for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from resight.data.decode import decode_array, image_size
from resight.data.modalities import MODALITIES, ordered
from resight.data.sightings import Sighting

# All sizes in pixels
_WIDTH: Final = 104  # of an image
_MIN_HEIGHT: Final = 64
_MAX_HEIGHT: Final = 208  # with one modality
_MAX_HEIGHT_EACH: Final = 128  # with several
_FRAME: Final = 4
_GAP: Final = 10
_LINE: Final = 14  # of text
_LINES_BELOW: Final = 4
_HEADER_LINES: Final = 3
_FONT_SIZE: Final = 11
_DISPLAY_RULE: Final = ("percentiles", 1.0, 99.0)  # of an image of more than 8 bits, for a viewer

RIGHT: Final = (0, 114, 178)  # blue and vermilion: distinct for colour-blind readers too (Okabe and Ito 2008)
WRONG: Final = (213, 94, 0)
QUERY: Final = (70, 70, 70)
NEUTRAL: Final = (170, 170, 170)
_TEXT: Final = (30, 30, 30)
_ABSENT: Final = (235, 235, 235)

Images = Mapping[str, Path | bytes]
"""Files, or encoded images, by modality."""


@dataclass(frozen=True)
class Layout:
    """Where the cells of a strip are, in pixels."""

    columns: int
    """Of cells, with the query's."""
    rows: int
    modalities: tuple[str, ...]
    """One image below the other in each cell."""
    image_height: int
    lines_above: int = 2
    """Of text, above an image."""

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of a cell, with its frame and text."""
        framed = len(self.modalities) * self.image_height + 2 * _FRAME
        return _WIDTH + 2 * _FRAME, framed + (self.lines_above + _LINES_BELOW) * _LINE

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the strip."""
        width, height = self.cell
        header = _HEADER_LINES * _LINE + _GAP
        return 3 * _GAP + self.columns * (width + _GAP), header + _GAP + self.rows * (height + 2 * _GAP)

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """Return the upper left corner of a cell; column 0 is the query's."""
        width, height = self.cell
        left = _GAP + column * (width + _GAP) + (2 * _GAP if column else 0)
        return left, _HEADER_LINES * _LINE + 2 * _GAP + row * (height + 2 * _GAP)

    def frame(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return the left, top, right and bottom pixel of a cell's frame."""
        left, top = self.origin(row, column)
        top += self.lines_above * _LINE
        height = len(self.modalities) * self.image_height + 2 * _FRAME
        return left, top, left + _WIDTH + 2 * _FRAME - 1, top + height - 1


@dataclass(frozen=True)
class Cell:
    """What a cell shows."""

    images: Images
    colour: tuple[int, int, int]
    """Of the frame."""
    above: Sequence[str]
    below: Sequence[str]
    right: bool | None = None
    """Whether the identity is right, which a mark says; None for no mark."""


def layout_of(queries: Sequence[Images], all_modalities: Iterable[str], columns: int, lines_above: int = 2) -> Layout:
    """Return the layout of a strip whose images have the median aspect of the queries'.

    Args:
        queries: the images of the query of each row.
        all_modalities: of queries and gallery.
        columns: of cells, with the query's.
        lines_above: of text, above an image.
    """
    present = set(all_modalities)
    modalities = ordered(present) or MODALITIES[:1]
    aspects = list[float]()
    for images in queries:
        if images:
            width, height = image_size(next(iter(images.values())))
            aspects.append(height / width)
    highest = _MAX_HEIGHT if len(modalities) == 1 else _MAX_HEIGHT_EACH
    height = round(_WIDTH * float(np.median(aspects))) if aspects else _MIN_HEIGHT
    return Layout(columns, len(queries), modalities, min(max(height, _MIN_HEIGHT), highest), lines_above)


def draw_strip(layout: Layout, header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """Draw a strip.

    Args:
        layout: of the cells.
        header: at most three lines of text.
        rows: of cells; the first of a row is the query's.
    """
    strip = Image.new("RGB", layout.size, "white")
    for number, line in enumerate(header):
        _write(strip, (_GAP, _GAP + number * _LINE), line)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            _draw(strip, layout, (row, column), cell)
    return strip


def label_lines(sighting: Sighting, names: Mapping[str, str]) -> list[str]:
    """Return the lines below a sighting: the name of its file, its identity, camera and modalities.

    Args:
        sighting: the sighting.
        names: of `short_names`, over all sightings of the strip.
    """
    return [*(names[text] for text in _labels(sighting)), " + ".join(ordered(sighting.images))]


def short_names(sightings: Iterable[Sighting]) -> dict[str, str]:
    """Files, identities and cameras as they fit under an image; different names stay different."""
    texts = dict.fromkeys(text for sighting in sightings for text in _labels(sighting))
    short: dict[str, str] = {}
    used = set[str]()
    for text in texts:
        name = _cut(text, "")
        number = 1
        while name in used:
            number += 1
            name = _cut(text, f" ({number})")
        short[text] = name
        used.add(name)
    return short


def _labels(sighting: Sighting) -> tuple[str, str, str]:
    file = next((sighting.images[m].stem for m in ordered(sighting.images)), "no file")
    return file, f"id {sighting.identity or 'unknown'}", f"camera {sighting.camera or 'unknown'}"


def _draw(strip: Image.Image, layout: Layout, place: tuple[int, int], cell: Cell) -> None:
    left, top = layout.origin(*place)
    frame = layout.frame(*place)
    for number, line in enumerate(cell.above):
        _write(strip, (left, top + number * _LINE), line)
    ImageDraw.Draw(strip).rectangle(frame, fill=cell.colour)
    size = (_WIDTH, layout.image_height)
    for number, modality in enumerate(layout.modalities):
        box = Image.new("RGB", size, _ABSENT)
        if modality in cell.images:
            pixels = decode_array(cell.images[modality], rule=_DISPLAY_RULE)
            fitted = ImageOps.contain(Image.fromarray(pixels), size)  # keeps the aspect
            box.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2))
        strip.paste(box, (left + _FRAME, frame[1] + _FRAME + number * layout.image_height))
    for number, line in enumerate(cell.below):
        _write(strip, (left, frame[3] + 2 + number * _LINE), line)
    if cell.right is not None:
        _draw_mark(strip, (left, top), cell.right)


def _draw_mark(strip: Image.Image, corner: tuple[int, int], right: bool) -> None:
    """A tick or a cross, and the word, in the first line above a cell's frame."""
    left, top = corner
    word = "right" if right else "wrong"
    word_left = left + _WIDTH + 2 * _FRAME - int(_font().getlength(word))
    colour = RIGHT if right else WRONG
    _write(strip, (word_left, top), word, colour)
    x, y = word_left - 14, top + 2
    strokes = [[(0, 5), (4, 9), (10, 1)]] if right else [[(1, 1), (9, 9)], [(1, 9), (9, 1)]]
    for stroke in strokes:
        ImageDraw.Draw(strip).line([(x + dx, y + dy) for dx, dy in stroke], fill=colour, width=2)


def _cut(text: str, ending: str) -> str:
    """Replace the middle of a text that is too wide by an ellipsis."""
    width = _WIDTH + 2 * _FRAME
    if _font().getlength(text + ending) <= width:
        return text + ending
    length = len(text) - 1
    while length > 2 and _font().getlength(f"{text[: length // 2]}…{text[-(length - length // 2) :]}{ending}") > width:
        length -= 1
    return f"{text[: length // 2]}…{text[-(length - length // 2) :]}{ending}"


def _write(strip: Image.Image, at: tuple[int, int], text: str, colour: tuple[int, int, int] = _TEXT) -> None:
    ImageDraw.Draw(strip).text(at, text, fill=colour, font=_font())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)
