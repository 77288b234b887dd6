"""The pages of cameras: all, and one with its newest sightings."""

from heapq import nlargest
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from resight.gallery.gallery import Gallery
from resight.gallery.record import Filter, Record
from resight.service.errors import ServiceError
from resight.service.messages.types import Text
from resight.service.page.render import page
from resight.service.routes.dependencies import Counts, ServiceOf

router = APIRouter(include_in_schema=False)
_MAX_RECORDS = 120


@router.get("/cameras")
async def cameras_page(request: Request, service: ServiceOf) -> HTMLResponse:
    """Show the cameras with the number of their sightings."""
    stats = await service.with_reader(lambda gallery: gallery.stats())
    rows = sorted(stats.cameras.items())
    return await page(request, "cameras.html", rows=rows, largest=max(stats.cameras.values(), default=1))


@router.get("/camera")
async def camera_page(
    request: Request, service: ServiceOf, counts: Counts, name: Annotated[Text, Query()]
) -> HTMLResponse:
    """Show the newest sightings of a camera."""
    where = Filter(camera=(name,))

    def read(gallery: Gallery) -> tuple[list[Record], int]:
        newest = nlargest(
            _MAX_RECORDS, gallery.engine.scan(where), key=lambda r: float("-inf") if r.time is None else r.time
        )
        return newest, gallery.engine.count(where)

    records, total = await service.with_reader(read)
    if not total:
        raise ServiceError(404, f"no record has the camera {name!r:.80}")
    counts["answers"] = len(records)
    return await page(request, "camera.html", name=name, records=records, total=total)
