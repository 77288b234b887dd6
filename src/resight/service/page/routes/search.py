"""The search page and its results."""

import base64
import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from resight.gallery.answers import Answer, SearchOptions
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.service.messages.types import Count, Text
from resight.service.page.csrf import FormToken
from resight.service.page.forms import PageSearchForm
from resight.service.page.groups import group_answers, suggested_identity
from resight.service.page.render import is_fragment, page
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.core import Service
from resight.service.work.record_ids import find_record
from resight.service.work.retention import ADDED

router = APIRouter(include_in_schema=False)
_MULTIPART = Form(media_type="multipart/form-data")
_NAMES = {"rgb": "Colour", "nir": "Near infrared", "tir": "Thermal"}


@router.get("/")
async def search_page(request: Request, service: ServiceOf) -> HTMLResponse:
    """Show the search form."""
    return await page(request, "search.html", **await _form_values(service), results=None)


@router.post("/search", dependencies=[FormToken])
async def search(
    request: Request, service: ServiceOf, counts: Counts, form: Annotated[PageSearchForm, _MULTIPART]
) -> HTMLResponse:
    """Search with the pictures of the form: the whole page, or for htmx its results."""
    options = SearchOptions(form.k, form.where(), form.group, form.rerank)
    sightings = await form.sightings()
    embedded = await service.embed(sightings, form.query_camera, form.query_view, thumbnails=True)
    answers = await service.search(embedded, options, same_object=True)
    counts.update(queries=len(sightings), answers=len(answers[0]))
    small = embedded.thumbnails[0]
    why = {
        "query": None if small is None else base64.b64encode(small).decode(),
        "query_camera": form.query_camera,
        "query_modality": embedded.modalities[0].partition("+")[0],
    }
    query = {"thumbnail": small, "text": embedded.modalities[0].replace("+", " + ").upper(), "why": why}
    return await _results(request, service, query, answers[0])


@router.get("/similar")
async def similar(
    request: Request,
    service: ServiceOf,
    counts: Counts,
    record_id: Annotated[Text, Query(alias="id")],
    k: Annotated[Count, Query()] = 24,
) -> HTMLResponse:
    """Search with a record of the gallery."""

    def find(gallery: Gallery) -> tuple[Record, list[Answer]]:
        return find_record(gallery, record_id), gallery.similar(record_id, k)

    record, answers = await service.with_gallery(find)
    counts.update(queries=1, answers=len(answers))
    text = f"a sighting of {record.identity or 'an unassigned identity'}"
    query = {"thumbnail": record.thumbnail, "text": text, "why": {"query_record": record.id}}
    return await _results(request, service, query, answers)


@router.post("/add", dependencies=[FormToken])
async def add(
    request: Request, service: ServiceOf, counts: Counts, form: Annotated[PageSearchForm, _MULTIPART]
) -> Response:
    """Add the pictures of the search form to the gallery, as one sighting."""
    sighting = (await form.sightings())[0]
    embedded = await service.embed([sighting], form.query_camera, form.query_view, service.settings.thumbnails)
    record = Record(
        id=secrets.token_hex(12), vector=embedded.vectors[0], identity=form.add_identity, camera=form.query_camera,
        modality=embedded.modalities[0], time=form.add_time, thumbnail=embedded.thumbnails[0],
        metadata={ADDED: round(time.time(), 3)},
    )  # fmt: skip
    await service.add(record, replace=False)
    counts["records"] = 1
    return RedirectResponse(f"/similar?id={record.id}", 303)


async def _results(request: Request, service: Service, query: dict[str, Any], answers: list[Answer]) -> HTMLResponse:
    groups = group_answers(answers)
    results = {"query": query, "groups": groups, "number": len(answers), "suggested": suggested_identity(groups)}
    can_explain = service.embedder.model.backbone.token_width is not None and query["thumbnail"] is not None
    values: dict[str, Any] = {"results": results, "can_explain": can_explain}
    if is_fragment(request):
        return await page(request, "results.html", **values)
    return await page(request, "search.html", **await _form_values(service), **values)


async def _form_values(service: Service) -> dict[str, Any]:
    """What the form offers: the model's modalities, and the labels of the gallery."""
    modalities = service.embedder.card.vocabulary.modalities
    stats = await service.with_reader(lambda gallery: gallery.stats())
    return {
        "modalities": [(name, _NAMES.get(name, name.upper())) for name in modalities],
        "cameras": sorted({*stats.cameras, *service.embedder.card.vocabulary.cameras}),
        "stats": stats,
    }
