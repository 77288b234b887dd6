"""Rank strips: pictures of queries and the gallery images that are ranked first for them."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from resight.evaluation.result import Result
from resight.files import make_folder, write_file
from resight.progress import counted, percent
from resight.report.cells import QUERY, RIGHT, WRONG, Cell, draw_strip, label_lines, layout_of, short_names


def rank_strip(result: Result, rows: int = 8, k: int = 10) -> Image.Image:
    """Draw queries with the k gallery sightings that are ranked first for each, best average precision first.

    Above a sighting are its rank, whether it is right, and its similarity to the query; below it are the file,
    identity, camera and modalities.

    Args:
        result: of `evaluate`; of several trials, the first is drawn.
        rows: number of queries, evenly spaced in the order of average precision.
        k: number of gallery sightings for each query.
    """
    nearest, hits = result.top(k)  # [Q, k], -1 where there are fewer
    precision = np.where((nearest >= 0).any(1), result.ap, np.nan)  # [Q]
    queries = _evenly_spaced(precision, rows)
    query, gallery = result.query.sightings, result.gallery.sightings
    query_sightings = [query[int(q)] for q in queries]
    matches = [[gallery[int(g)] for g in nearest[q] if g >= 0] for q in queries]
    names = short_names(sighting for row in [query_sightings, *matches] for sighting in row)
    cells = list[list[Cell]]()
    for q, sighting, row in zip(queries, query_sightings, matches, strict=True):
        above = ["query", f"AP {percent(float(precision[q]))}"]
        cells.append([Cell(sighting.images, QUERY, above, label_lines(sighting, names))])
        for column, match in enumerate(row):
            right = bool(hits[q, column])
            vectors = result.query.vectors[q], result.gallery.vectors[nearest[q, column]]
            similarity = float(np.dot(*(vector.astype(np.float32) for vector in vectors)))
            above = [f"rank {column + 1}", f"similarity {similarity:.4f}"]
            colour = RIGHT if right else WRONG
            cells[-1].append(Cell(match.images, colour, above, label_lines(match, names), right))
    columns = min(k, nearest.shape[1]) + 1
    layout = layout_of([s.images for s in query_sightings], {*query.modalities, *gallery.modalities}, columns)
    return draw_strip(layout, _header(result, precision, len(queries), k), cells)


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


def _header(result: Result, precision: np.ndarray, count: int, k: int) -> tuple[str, str, str]:
    total = counted(int((~np.isnan(precision)).sum()), "query", "queries")
    name = result.query.info.dataset or "embeddings"
    return (
        f"{name}, protocol {result.protocol.name}: {count} of {total}, from the best average precision (AP) at the top "
        "to the worst",
        f"Left: the query. Then the {counted(k, 'gallery sighting')} ranked first.",
        "Blue frame and tick: right identity. Orange frame and cross: wrong identity.",
    )
