"""The embedding map: the sightings as points, near ones similar."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Final

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from resight.errors import require_extra
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.report.embedding_map import PALETTE, Colour, colours_of, sample_records
from resight.service.page.progress import TaskId, current_task, result_of
from resight.service.page.render import page
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.background import Task

router = APIRouter(include_in_schema=False)
MAX_RECORDS: Final = 2000  # points of the page
_NEAREST: Final = 3  # labels that the table names


@dataclass(frozen=True)
class _Layout:
    """A map whose records are read again when it is shown, so that their labels are those of now."""

    ids: list[str]
    positions: np.ndarray
    total: int


@router.get("/map")
async def map_page(
    request: Request, service: ServiceOf, counts: Counts, colour: Annotated[Colour, Query()] = "identity",
    task: TaskId = None,
) -> HTMLResponse:  # fmt: skip
    """Show the map; while it is computed, the progress."""
    if find_spec("umap") is None:  # it is imported by the process of the layout alone: that takes seconds
        require_extra("umap", "map")

    async def compute(task: Task) -> _Layout:
        def read(gallery: Gallery) -> tuple[list[Record], int]:
            total = len(gallery)
            return sample_records(gallery.engine, MAX_RECORDS, lambda n: task.report("Reading the gallery", n, total))

        records, total = await service.background.with_gallery(read)
        task.report(f"Placing {len(records):,} sightings")
        ids = [record.id for record in records]
        vectors = np.stack([record.vector for record in records])
        return _Layout(ids, await service.background.layouts.of(ids, vectors), total)

    title = "Drawing the map of the gallery"
    current = await current_task(service, task, title, f"/map?colour={colour}&task={{task}}", compute)
    if not current.ended.is_set():
        return await page(request, "task.html", task=current)
    layout: _Layout = result_of(current)
    records = await service.with_reader(lambda gallery: gallery.engine.get(layout.ids))
    place = dict(zip(layout.ids, layout.positions.tolist(), strict=True))
    counts["answers"] = len(records)
    return await page(request, "map.html", **_values(records, [place[r.id] for r in records], layout.total, colour))


def _values(records: list[Record], places: list[list[float]], total: int, colour: Colour) -> dict[str, Any]:
    labels: list[str | None] = [getattr(record, colour) for record in records]
    colours = colours_of(labels)
    classes = {label: PALETTE.index(value) if value in PALETTE else len(PALETTE) for label, value in colours.items()}
    points = [
        (round(1000 * x, 1), round(1000 * y, 1), record, label, classes.get(label or "", -1))
        for (x, y), record, label in zip(places, records, labels, strict=True)
    ]
    legend = [(label, number) for label, number in classes.items() if number < len(PALETTE)]
    return {
        "points": points, "colour": colour, "total": total, "legend": legend, "more": len(classes) - len(legend),
        "rows": label_rows(labels, places),
    }  # fmt: skip


def label_rows(labels: Sequence[str | None], places: Sequence[Sequence[float]]) -> list[tuple[str, int, list[str]]]:
    """Return for each label its number of points, and the labels whose middles are nearest to its own on the map."""
    members = defaultdict[str, list[Sequence[float]]](list)
    for label, place in zip(labels, places, strict=True):
        if label is not None:
            members[label].append(place)
    names = sorted(members)
    middles = np.array([np.mean(members[name], axis=0) for name in names]).reshape(-1, 2)
    rows = list[tuple[str, int, list[str]]]()
    counts = Counter({name: len(part) for name, part in members.items()})
    for n, name in enumerate(names):
        distances = np.hypot(*(middles - middles[n]).T)
        distances[n] = np.inf
        nearest = np.argsort(distances, kind="stable")[: min(_NEAREST, len(names) - 1)]
        rows.append((name, counts[name], [names[k] for k in nearest]))
    return rows
