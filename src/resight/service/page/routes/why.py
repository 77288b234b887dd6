"""Why a result matches, and the comparison of two pictures."""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse

from resight.errors import ConfigError
from resight.service.errors import ServiceError
from resight.service.page.csrf import FormToken
from resight.service.page.forms import PictureForm, WhyForm
from resight.service.page.render import is_fragment, page
from resight.service.page.why import why_values
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.explanations import Side, explain_sides

router = APIRouter(include_in_schema=False)
_MULTIPART = Form(media_type="multipart/form-data")


@router.post("/explain", dependencies=[FormToken])
async def explain_result(
    request: Request, service: ServiceOf, counts: Counts, form: Annotated[WhyForm, Form()]
) -> HTMLResponse:
    """Explain why a result of a search is similar to the query, as the page shows both."""
    picture = None if form.query is None else _decoded(form.query)
    query = Side(picture, form.query_record, form.query_camera, form.query_modality)
    explained = await explain_sides(service, query, Side(None, form.record))
    counts["queries"] = 1
    values: dict[str, Any] = {"why": why_values(explained, ("the query", "the result")), "is_result": True}
    return await page(request, "why.html" if is_fragment(request) else "explained.html", **values)


@router.get("/compare")
async def compare_page(request: Request, service: ServiceOf) -> HTMLResponse:
    """Show the form for two pictures."""
    return await page(request, "compare.html", why=None, **_form_values(service))


@router.post("/compare", dependencies=[FormToken])
async def compare(
    request: Request, service: ServiceOf, counts: Counts, form: Annotated[PictureForm, _MULTIPART]
) -> HTMLResponse:
    """Compare two pictures, and explain their similarity: the whole page, or for htmx the result."""
    if not form.first or not form.second:
        raise ServiceError(422, "choose both pictures")
    sides = [
        Side(await files[0].read(), None, camera, form.modality)
        for files, camera in ((form.first, form.first_camera), (form.second, form.second_camera))
    ]
    counts["queries"] = 2
    values: dict[str, Any] = {"is_result": False}
    try:
        explained = await explain_sides(service, sides[0], sides[1])
        values["why"] = why_values(explained, ("the first picture", "the second picture"))
    except ConfigError as error:  # the model has no tokens: the similarity alone
        images = [{side.modality or "image": side.picture or b""} for side in sides]
        comparison = await service.compare(images[0], images[1], (sides[0].camera, sides[1].camera))
        values["why"] = {"comparison": comparison, "reason": str(error)}
    if is_fragment(request):
        return await page(request, "why.html", **values)
    return await page(request, "compare.html", **values, **_form_values(service))


def _form_values(service: ServiceOf) -> dict[str, Any]:
    vocabulary = service.embedder.card.vocabulary
    return {"modalities": vocabulary.modalities, "cameras": vocabulary.cameras, "chosen": service.default_modality}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ServiceError(422, "the query's picture is not as the page has sent it: search again") from None
