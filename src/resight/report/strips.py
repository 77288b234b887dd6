"""Rank strips: a query and what was found for it, right ones framed green, wrong ones red."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from resight.data.sightings import MODALITIES, Sighting
from resight.evaluation.evaluate import Result
from resight.files import make_folder, write_file

_CELL, _FRAME, _GAP, _LABEL = (64, 128), 3, 6, 14  # pixels; a picture keeps its shape inside a cell
_RIGHT, _WRONG, _QUERY = (30, 150, 60), (200, 40, 40), (90, 90, 90)


def rank_strip(result: Result, rows: int = 8, k: int = 10) -> Image.Image:
    """Draws the top k of some queries, worst ranked first; a sighting's modalities lie under one another.

    Args:
        result: of `evaluate`; where the gallery was drawn, the first draw is shown.
        rows: how many queries, spread evenly over the average precision.
        k: how many gallery sightings of each.
    """
    nearest, hits = result.top(k)
    query, gallery = result.query.sightings, result.gallery.sightings
    ap = np.where((nearest >= 0).any(1), result.ap, np.nan)
    ranked = np.argsort(ap, kind="stable")[: int((~np.isnan(ap)).sum())]  # NaN, no match, sorts last
    chosen = ranked[np.linspace(0, len(ranked) - 1, min(rows, len(ranked))).round().astype(int)]
    modalities = [m for m in MODALITIES if m in query.modalities or m in gallery.modalities]
    tall = len(modalities) * _CELL[1] + 2 * _FRAME + _LABEL
    wide = _CELL[0] + 2 * _FRAME
    sheet = Image.new("RGB", ((k + 1) * (wide + _GAP) + 3 * _GAP, len(chosen) * (tall + _GAP) + _GAP), "white")
    for y, q in enumerate(chosen):
        top = _GAP + y * (tall + _GAP)
        _draw(sheet, query[int(q)], modalities, (_GAP, top), _QUERY, f"AP {ap[q]:.2f}")
        for x, (g, hit) in enumerate(zip(nearest[q], hits[q], strict=True)):
            if g >= 0:
                left = 3 * _GAP + (x + 1) * (wide + _GAP)
                found = gallery[int(g)]
                _draw(sheet, found, modalities, (left, top), _RIGHT if hit else _WRONG, _name(found))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture as PNG.

    Raises:
        StorageError: it cannot be written.
    """
    held = BytesIO()
    picture.save(held, "PNG")
    make_folder(path.parent)
    write_file(path, held.getvalue())


def _draw(
    sheet: Image.Image,
    sighting: Sighting,
    modalities: list[str],
    at: tuple[int, int],
    frame: tuple[int, int, int],
    label: str,
) -> None:
    draw = ImageDraw.Draw(sheet)
    height = len(modalities) * _CELL[1]
    draw.rectangle((*at, at[0] + _CELL[0] + 2 * _FRAME - 1, at[1] + height + 2 * _FRAME - 1), fill=frame)
    for row, modality in enumerate(modalities):
        cell = Image.new("RGB", _CELL, (235, 235, 235))  # stays empty where the modality is absent
        if modality in sighting.images:
            with Image.open(sighting.images[modality]) as picture:
                fitted = ImageOps.contain(picture.convert("RGB"), _CELL)
            cell.paste(fitted, ((_CELL[0] - fitted.width) // 2, (_CELL[1] - fitted.height) // 2))
        sheet.paste(cell, (at[0] + _FRAME, at[1] + _FRAME + row * _CELL[1]))
    draw.text((at[0] + 2, at[1] + height + 2 * _FRAME + 1), label, fill=(60, 60, 60), font=ImageFont.load_default(10))


def _name(sighting: Sighting) -> str:
    camera = f" c{sighting.camera}" if sighting.camera is not None else ""
    name = f"{sighting.identity or '?'}{camera}"
    return name if len(name) <= 12 else f"…{name[-11:]}"  # as much as a cell is wide; names differ at their ends
