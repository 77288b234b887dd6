"""The pages of identities: all, and one with its time line."""

from collections import Counter
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from resight.gallery.gallery import Gallery
from resight.gallery.record import Filter
from resight.service.errors import ServiceError
from resight.service.messages.types import Text
from resight.service.page.csrf import FormToken
from resight.service.page.forms import RecordsForm
from resight.service.page.render import page
from resight.service.page.time_line import lanes_of
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.core import Service

router = APIRouter(include_in_schema=False)
PAGE_SIZE = 60
RecordsFormOf = Annotated[RecordsForm, Form()]


@router.get("/identities")
async def identities_page(
    request: Request,
    service: ServiceOf,
    q: Annotated[str, Query(max_length=200)] = "",
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> HTMLResponse:
    """Show the identities, those with the most sightings first."""

    def read(gallery: Gallery) -> tuple[list[tuple[str, int, str]], int]:
        counts = Counter[str]()
        first: dict[str, str] = {}
        for record in gallery.engine.scan():
            if record.identity is not None and q.lower() in record.identity.lower():
                counts[record.identity] += 1
                first.setdefault(record.identity, record.id)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [(name, n, first[name]) for name, n in ordered[offset : offset + PAGE_SIZE]], len(ordered)

    rows, total = await service.with_reader(read)
    return await page(request, "identities.html", rows=rows, total=total, q=q, offset=offset, size=PAGE_SIZE)


@router.get("/identity")
async def identity_page(
    request: Request, service: ServiceOf, counts: Counts, name: Annotated[Text, Query()]
) -> HTMLResponse:
    """Show the sightings of an identity on a time line by camera."""
    records = await service.time_line(name)
    counts["answers"] = len(records)
    lanes = lanes_of(records)
    times = [record.time for record in records if record.time is not None]
    span = (min(times), max(times)) if times else None
    return await page(request, "identity.html", name=name, records=records, lanes=lanes, span=span)


@router.post("/identity/assign", dependencies=[FormToken])
async def assign(service: ServiceOf, counts: Counts, form: RecordsFormOf) -> RedirectResponse:
    """Assign the chosen sightings to another identity; without a name, make them unassigned."""
    _require_ids(form)
    counts["records"] = await service.assign(form.ids, form.identity)
    return await _back(service, form.of, form.identity)


@router.post("/identity/merge", dependencies=[FormToken])
async def merge(service: ServiceOf, counts: Counts, form: RecordsFormOf) -> RedirectResponse:
    """Give an identity another name; where the name exists, both become one."""
    if form.of is None or form.identity is None:
        raise ServiceError(422, "write the new name")
    counts["records"] = await service.assign([], form.identity, form.of)
    return await _back(service, form.identity, None)


@router.post("/identity/remove", dependencies=[FormToken])
async def remove(service: ServiceOf, counts: Counts, form: RecordsFormOf) -> RedirectResponse:
    """Remove the chosen sightings from the gallery, or an identity as a whole."""
    if form.all_of is None:
        _require_ids(form)
    removed = await service.with_gallery(lambda gallery: gallery.remove(form.ids, form.all_of))
    counts["removed"] = removed
    return await _back(service, form.of, None)


async def _back(service: Service, *names: str | None) -> RedirectResponse:
    """The page of the first identity that has records; else that of all identities."""
    for name in names:
        if name is None:
            continue
        where = Filter(identity=(name,))
        if await service.with_gallery(lambda gallery, where=where: gallery.engine.count(where)):
            return RedirectResponse(f"/identity?{urlencode({'name': name})}", 303)
    return RedirectResponse("/identities", 303)


def _require_ids(form: RecordsForm) -> None:
    if not form.ids:
        raise ServiceError(422, "choose at least one sighting")
