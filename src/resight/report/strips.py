"""Rank strips: pictures of queries and the gallery images that are ranked first for them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from resight.data.decode import decode_array, image_size
from resight.data.modalities import ordered
from resight.data.sightings import Sighting, SightingTable
from resight.evaluation.result import Result
from resight.files import make_folder, write_file

# All sizes in pixels
_WIDTH: Final = 104  # of an image
_MIN_HEIGHT: Final = 64
_MAX_HEIGHT: Final = 208  # with one modality
_MAX_HEIGHT_EACH: Final = 128  # with several
_FRAME: Final = 4
_GAP: Final = 10
_LINE: Final = 14  # of text
_LINES_ABOVE: Final = 2
_LINES_BELOW: Final = 3
_HEADER_LINES: Final = 3
_FONT_SIZE: Final = 11

RIGHT: Final = (0, 114, 178)  # blue and vermilion: distinct for colour-blind readers too (Okabe and Ito 2008)
WRONG: Final = (213, 94, 0)
QUERY: Final = (70, 70, 70)
_TEXT: Final = (30, 30, 30)
_ABSENT: Final = (235, 235, 235)


@dataclass(frozen=True)
class Layout:
    """Where the cells of a strip are, in pixels."""

    columns: int
    """Of cells, with the query's."""
    rows: int
    modalities: tuple[str, ...]
    """One image below the other in each cell."""
    image_height: int

    @property
    def cell(self) -> tuple[int, int]:
        """Width and height of a cell, with its frame and text."""
        framed = len(self.modalities) * self.image_height + 2 * _FRAME
        return _WIDTH + 2 * _FRAME, framed + (_LINES_ABOVE + _LINES_BELOW) * _LINE

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
        top += _LINES_ABOVE * _LINE
        height = len(self.modalities) * self.image_height + 2 * _FRAME
        return left, top, left + _WIDTH + 2 * _FRAME - 1, top + height - 1


def rank_strip(result: Result, rows: int = 8, k: int = 10) -> Image.Image:
    """Draw queries with the k gallery sightings that are ranked first for each, best average precision first.

    Above a sighting are its rank, whether it is right, and its similarity to the query; below it are identity, camera
    and modalities.

    Args:
        result: of `evaluate`; of several trials, the first is drawn.
        rows: number of queries, evenly spaced in the order of average precision.
        k: number of gallery sightings for each query.
    """
    nearest, hits = result.top(k)  # [Q, k], -1 where there are fewer
    precision = np.where((nearest >= 0).any(1), result.ap, np.nan)  # [Q]
    queries = _evenly_spaced(precision, rows)
    query, gallery = result.query.sightings, result.gallery.sightings
    layout = _layout(query, gallery, queries, nearest, k)
    query_sightings = [query[int(q)] for q in queries]
    matches = [[gallery[int(g)] for g in nearest[q] if g >= 0] for q in queries]
    names = _short_names(sighting for row in [query_sightings, *matches] for sighting in row)

    strip = Image.new("RGB", layout.size, "white")
    _draw_header(strip, result, precision, len(queries), k)
    for row, (q, sighting) in enumerate(zip(queries, query_sightings, strict=True)):
        _draw(strip, layout, (row, 0), sighting, QUERY, ["query", f"AP {100 * precision[q]:.1f} %"], names)
        for column, match in enumerate(matches[row]):
            right = bool(hits[q, column])
            similarity = float(
                result.query.vectors[q].astype(np.float32)
                @ result.gallery.vectors[nearest[q, column]].astype(np.float32)
            )
            above = [f"rank {column + 1}", f"similarity {similarity:.4f}"]
            _draw(strip, layout, (row, column + 1), match, RIGHT if right else WRONG, above, names)
            _draw_mark(strip, layout, (row, column + 1), right)
    return strip


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG.

    Raises:
        StorageError: the file cannot be written.
    """
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    make_folder(path.parent)
    write_file(path, buffer.getvalue())


def _evenly_spaced(precision: np.ndarray, rows: int) -> np.ndarray:
    """At most `rows` queries from the best to the worst average precision; NaN is left out."""
    valid = int((~np.isnan(precision)).sum())
    order = np.argsort(-precision, kind="stable")[:valid]  # NaN sorts last
    return order[np.linspace(0, valid - 1, min(rows, valid)).round().astype(int)]


def _layout(query: SightingTable, gallery: SightingTable, queries: np.ndarray, nearest: np.ndarray, k: int) -> Layout:
    """Cells whose images have the median aspect of the queries that are drawn."""
    modalities = ordered({*query.modalities, *gallery.modalities})
    aspects = list[float]()
    for row in queries:
        width, height = image_size(next(iter(query[int(row)].images.values())))
        aspects.append(height / width)
    highest = _MAX_HEIGHT if len(modalities) == 1 else _MAX_HEIGHT_EACH
    height = round(_WIDTH * float(np.median(aspects))) if aspects else _MIN_HEIGHT
    height = min(max(height, _MIN_HEIGHT), highest)
    return Layout(min(k, nearest.shape[1]) + 1, len(queries), modalities, height)


def _draw_header(strip: Image.Image, result: Result, precision: np.ndarray, count: int, k: int) -> None:
    total = int((~np.isnan(precision)).sum())
    name = result.query.info.dataset or "embeddings"
    lines = (
        f"{name}, protocol {result.protocol.name}: {count} of {total} queries, from the best to the worst average "
        "precision (AP)",
        f"Left: the query. Then the {k} gallery sightings that are ranked first.",
        "Blue frame and tick: right identity. Orange frame and cross: wrong identity.",
    )
    for number, line in enumerate(lines):
        _write(strip, (_GAP, _GAP + number * _LINE), line)


def _draw(
    strip: Image.Image,
    layout: Layout,
    cell: tuple[int, int],
    sighting: Sighting,
    colour: tuple[int, int, int],
    above: Sequence[str],
    names: dict[str, str],
) -> None:
    left, top = layout.origin(*cell)
    frame = layout.frame(*cell)
    for number, line in enumerate(above):
        _write(strip, (left, top + number * _LINE), line)
    ImageDraw.Draw(strip).rectangle(frame, fill=colour)
    size = (_WIDTH, layout.image_height)
    for number, modality in enumerate(layout.modalities):
        box = Image.new("RGB", size, _ABSENT)
        if modality in sighting.images:
            pixels = decode_array(sighting.images[modality])
            fitted = ImageOps.contain(Image.fromarray(pixels), size)  # keeps the aspect
            box.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2))
        strip.paste(box, (left + _FRAME, frame[1] + _FRAME + number * layout.image_height))
    below = (
        "id unknown" if sighting.identity is None else names[f"id {sighting.identity}"],
        "camera unknown" if sighting.camera is None else names[f"camera {sighting.camera}"],
        " + ".join(m for m in layout.modalities if m in sighting.images),
    )
    for number, line in enumerate(below):
        _write(strip, (left, frame[3] + 2 + number * _LINE), line)


def _draw_mark(strip: Image.Image, layout: Layout, cell: tuple[int, int], right: bool) -> None:
    """A tick or a cross, and the word, in the first line above a cell's frame."""
    left, top = layout.origin(*cell)
    word = "right" if right else "wrong"
    word_left = left + _WIDTH + 2 * _FRAME - int(_font().getlength(word))
    colour = RIGHT if right else WRONG
    _write(strip, (word_left, top), word, colour)
    x, y = word_left - 14, top + 2
    strokes = [[(0, 5), (4, 9), (10, 1)]] if right else [[(1, 1), (9, 9)], [(1, 9), (9, 1)]]
    for stroke in strokes:
        ImageDraw.Draw(strip).line([(x + dx, y + dy) for dx, dy in stroke], fill=colour, width=2)


def _short_names(sightings: Iterable[Sighting]) -> dict[str, str]:
    """Identities and cameras as they fit under an image; different names stay different."""
    texts = dict.fromkeys(text for s in sightings for text in (f"id {s.identity}", f"camera {s.camera}"))
    short: dict[str, str] = {}
    for text in texts:
        name = _cut(text, "")
        number = 1
        while name in short.values():
            number += 1
            name = _cut(text, f" ({number})")
        short[text] = name
    return short


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
