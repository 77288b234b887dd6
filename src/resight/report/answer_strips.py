"""Strips of a search: pictures of queries and the records of a gallery that are most similar to them."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from resight.data.decode import image_size
from resight.data.sightings import Sighting
from resight.errors import PictureError
from resight.gallery.answers import Answer
from resight.gallery.record import Record
from resight.progress import counted, percent
from resight.report.cells import (
    NEUTRAL,
    QUERY,
    RIGHT,
    WRONG,
    Cell,
    Images,
    draw_strip,
    label_lines,
    layout_of,
    short_names,
)


def answer_strip(queries: Sequence[Sighting], answers: Sequence[Sequence[Answer]], k: int = 10) -> Image.Image:
    """Draw queries with their first k answers, the nearest first.

    Above an answer are its rank, its similarity to the query and, if the model is calibrated, the probability of the
    same identity; the frame's colour says whether the similarity reaches the threshold.

    Args:
        queries: one for each row.
        answers: of `Gallery.search`, for each query.
        k: greatest number of answers in a row.
    """
    drawn_answers = [list(row[:k]) for row in answers]
    sightings = [[sighting_of(answer.record) for answer in row] for row in drawn_answers]
    names = short_names(sighting for row in [queries, *sightings] for sighting in row)
    calibrated = any(answer.probability is not None for row in drawn_answers for answer in row)
    cells = list[list[Cell]]()
    for query, row, row_sightings in zip(queries, drawn_answers, sightings, strict=True):
        cells.append([Cell(_readable(query.images, None), QUERY, ["query"], label_lines(query, names))])
        for rank, (answer, sighting) in enumerate(zip(row, row_sightings, strict=True), start=1):
            above = [f"rank {rank}", f"similarity {answer.similarity:.4f}"]
            above += [f"probability {percent(answer.probability)}"] if answer.probability is not None else []
            colour = NEUTRAL if answer.known is None else RIGHT if answer.known else WRONG
            images = _readable(sighting.images, answer.record.thumbnail)
            cells[-1].append(Cell(images, colour, above, label_lines(sighting, names)))
    modalities = {name for row in cells for cell in row for name in cell.images}
    columns = max((len(row) for row in cells), default=1)
    layout = layout_of([row[0].images for row in cells], modalities, columns, 3 if calibrated else 2)
    return draw_strip(layout, _header(len(queries), calibrated), cells)


def sighting_of(record: Record) -> Sighting:
    """Return the sighting of a record: its files and labels."""
    images = {modality: Path(file) for modality, file in record.images.items()}
    return Sighting(images, record.identity, record.camera, time=record.time, tracklet=record.tracklet)


def _readable(images: Images, thumbnail: bytes | None) -> Images:
    """The images that can be read; of the first that cannot, the thumbnail of the record, if it has one."""
    readable: dict[str, Path | bytes] = {}
    for number, (modality, source) in enumerate(images.items()):
        try:
            image_size(source)
            readable[modality] = source
        except PictureError:
            if thumbnail is not None and number == 0:
                readable[modality] = thumbnail
    return readable


def _header(count: int, calibrated: bool) -> tuple[str, str, str]:
    threshold = (
        "Blue frame: the similarity reaches the threshold. Orange frame: it does not."
        if calibrated
        else "The model is not calibrated, so there is no threshold (resight calibrate sets one)."
    )
    return (
        f"Search of a gallery: {counted(count, 'query', 'queries')}",
        "Left: the query. Then the records of the gallery, the most similar first.",
        threshold,
    )
