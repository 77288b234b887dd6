"""The page of sightings without an identity, grouped by similarity: to confirm or to split."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BeforeValidator

from resight.gallery.cluster import cluster
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.service.errors import ServiceError
from resight.service.page.csrf import FormToken
from resight.service.page.forms import RecordsForm
from resight.service.page.progress import TaskId, current_task, result_of
from resight.service.page.render import is_fragment, page
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.background import Task
from resight.service.work.record_ids import require_records

router = APIRouter(include_in_schema=False)
_MAX_GROUPS = 40  # groups on the page, the largest first
_DEFAULT_THRESHOLD = 0.7  # similarity, of a model that is not calibrated
_STEPS = 20  # of the search for the threshold that divides a group
Threshold = Annotated[float | None, BeforeValidator(lambda v: None if v == "" else v), Query(ge=-1, le=1)]


@dataclass(frozen=True)
class _Groups:
    """A clustering, whose records are read again when it is shown: some may have been removed or assigned since."""

    ids: list[list[str]]
    total: int
    """Groups of several sightings."""
    single: int
    records: int


@router.get("/clusters")
async def clusters_page(
    request: Request, service: ServiceOf, counts: Counts, threshold: Threshold = None, task: TaskId = None
) -> HTMLResponse:
    """Show the groups of unassigned sightings, the largest first; where that takes long, its progress."""
    calibrated = _DEFAULT_THRESHOLD if service.calibration is None else service.calibration.threshold
    used = calibrated if threshold is None else threshold

    async def group(task: Task) -> _Groups:
        task.report("Comparing the sightings with each other")
        return await service.background.with_gallery(lambda gallery: _grouped(gallery, used))

    address = f"/clusters?threshold={used:.6g}&task={{task}}"
    current = await current_task(service, task, "Grouping the unassigned sightings", address, group)
    if not current.ended.is_set():
        return await page(request, "task.html", task=current)
    clustering: _Groups = result_of(current)
    counts["groups"] = clustering.total + clustering.single
    groups = await service.with_reader(lambda gallery: _unassigned(gallery, clustering.ids))
    total = clustering.total - (len(clustering.ids) - len(groups))
    return await page(
        request, "clusters.html", groups=groups, total=total, single=clustering.single, records=clustering.records,
        threshold=used,
    )  # fmt: skip


@router.post("/clusters/confirm", dependencies=[FormToken])
async def confirm(service: ServiceOf, counts: Counts, form: Annotated[RecordsForm, Form()]) -> RedirectResponse:
    """Assign the chosen sightings of a group to an identity; the others stay unassigned."""
    if not form.ids or form.identity is None:
        raise ServiceError(422, "choose at least one sighting, and write the identity's name")
    counts["records"] = await service.assign(form.ids, form.identity)
    return RedirectResponse("/clusters", 303)


@router.post("/clusters/split", dependencies=[FormToken])
async def split(request: Request, service: ServiceOf, form: Annotated[RecordsForm, Form()]) -> HTMLResponse:
    """Divide a group where its sightings are least similar, and show the parts; nothing is assigned."""

    def read(gallery: Gallery) -> list[Record]:
        require_records(gallery, form.ids)
        return gallery.engine.get(form.ids)

    parts = divide(await service.with_reader(read))
    if len(parts) < 2:
        raise ServiceError(422, "the chosen sightings cannot be divided: there is one, or they are of one tracklet")
    if is_fragment(request):
        return await page(request, "parts.html", groups=parts, threshold=None)
    return await page(
        request, "clusters.html", groups=parts, total=len(parts), single=0, records=len(form.ids), threshold=None
    )


def _grouped(gallery: Gallery, threshold: float) -> _Groups:
    clustering = gallery.cluster(threshold)
    groups: list[list[str]] = [[] for _ in clustering.sizes]
    for record, group in zip(clustering.records, clustering.groups.tolist(), strict=True):
        groups[group].append(record.id)
    several = sorted((group for group in groups if len(group) > 1), key=len, reverse=True)
    return _Groups(several[:_MAX_GROUPS], len(several), len(groups) - len(several), len(clustering.records))


def _unassigned(gallery: Gallery, ids: list[list[str]]) -> list[list[Record]]:
    """Read the records of groups that still exist without an identity; a group of one is left out."""
    records = gallery.engine.get([record_id for group in ids for record_id in group])
    unassigned = {record.id: record for record in records if record.identity is None}
    groups = [[unassigned[record_id] for record_id in group if record_id in unassigned] for group in ids]
    return [group for group in groups if len(group) > 1]


def divide(records: list[Record]) -> list[list[Record]]:
    """Return the groups at the lowest threshold that gives more than one; one group if no threshold does."""
    if len(records) < 2:
        return [records]
    vectors = np.stack([record.vector for record in records])
    tracklets = [None if r.tracklet is None else (r.camera, r.tracklet) for r in records]
    cannot_link = [None] * len(records)

    def at(threshold: float) -> np.ndarray:
        return cluster(vectors, threshold, tracklets, cannot_link, len(records))

    low, high = -1.0, 1.01
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if at(middle).max() > 0:
            high = middle
        else:
            low = middle
    groups = at(high)
    return [[records[n] for n in np.flatnonzero(groups == group)] for group in range(int(groups.max()) + 1)]
