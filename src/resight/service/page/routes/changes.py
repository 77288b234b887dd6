"""Changes of identities from the search page, and the undo of every page."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from resight.service.errors import ServiceError
from resight.service.page.csrf import FormToken
from resight.service.page.forms import JudgeForm, UndoForm
from resight.service.page.render import is_fragment, last_change, page
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.core import Service
from resight.service.work.record_ids import find_record

router = APIRouter(include_in_schema=False, dependencies=[FormToken])
_MAX_UPDATED = 200  # cards that an undo updates in place


@router.post("/judge")
async def judge(request: Request, service: ServiceOf, counts: Counts, form: Annotated[JudgeForm, Form()]) -> Response:
    """Assign a sighting to the identity of the form, or take it out of that identity."""
    record_id = form.same or form.different
    if record_id is None or (form.same and form.different):
        raise ServiceError(422, "choose one sighting")
    if form.identity is None:
        raise ServiceError(422, "write the identity that the picture shows into the field above the results")
    record = await service.with_gallery(lambda gallery: find_record(gallery, record_id))
    if form.same:
        counts["records"] = await service.assign([record_id], form.identity)
    elif record.identity == form.identity:
        counts["records"] = await service.assign([record_id], None)
    if is_fragment(request):
        verdict = "same" if form.same else "different"
        return await _updated(request, service, [record_id], verdict)
    return RedirectResponse("/identities", 303)


@router.post("/undo")
async def undo(request: Request, service: ServiceOf, counts: Counts, form: Annotated[UndoForm, Form()]) -> Response:
    """Undo the assignment that the page shows as the last one."""
    last = await last_change(service)
    if last is None or last["name"] != form.name:
        raise ServiceError(409, "another assignment was made since this page was loaded; reload the page")
    counts["records"] = (await service.undo()).records
    if is_fragment(request):
        return await _updated(request, service, last["ids"][:_MAX_UPDATED], "undone")
    return RedirectResponse(local_path(form.next), 303)


async def _updated(request: Request, service: Service, ids: list[str], verdict: str) -> Response:
    """The parts of the page that a change concerns; htmx puts each in its place."""
    records: list[Any] = await service.with_gallery(lambda gallery: gallery.engine.get(ids))
    return await page(request, "changed.html", records=records, verdict=verdict)


def local_path(text: str) -> str:
    """Return an address if it is a path of this service, else `/`."""
    parts = urlsplit(text)
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and not parts.netloc
    return text if is_local and text.isprintable() else "/"
