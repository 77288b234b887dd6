"""Add many pictures: each becomes a sighting, in the background."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from resight.gallery.record import Record
from resight.service.errors import ServiceError
from resight.service.page.csrf import FormToken
from resight.service.page.forms import AddManyForm
from resight.service.page.render import page
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.work.background import Task
from resight.service.work.core import Service
from resight.service.work.record_ids import record_id_of
from resight.service.work.retention import ADDED

router = APIRouter(include_in_schema=False)
_AT_ONCE: Final = 8  # pictures that are decoded and embedded at the same time
_RETRY_SECONDS: Final = 0.5  # where other requests have filled a queue
_BUSY: Final = 503


@dataclass
class Added:
    """What was made of the pictures."""

    added: int = 0
    existing: int = 0
    """Pictures whose records existed before."""
    refused: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Number of the picture, from 1, and why it was not added."""


@router.get("/add/many")
async def add_many_page(request: Request, service: ServiceOf) -> HTMLResponse:
    """Show the form for many pictures."""
    vocabulary = service.embedder.card.vocabulary
    values: dict[str, Any] = {
        "cameras": vocabulary.cameras, "modalities": vocabulary.modalities, "chosen": service.default_modality,
        "max_megabytes": service.settings.max_body_megabytes,
    }  # fmt: skip
    return await page(request, "add_many.html", **values)


@router.post("/add/many", dependencies=[FormToken])
async def add_many(
    service: ServiceOf, counts: Counts, form: Annotated[AddManyForm, Form(media_type="multipart/form-data")]
) -> RedirectResponse:
    """Accept pictures, and go to the page of their progress."""
    if not form.images:
        raise ServiceError(422, "choose at least one picture")
    images = [await file.read() for file in form.images]
    labels = {"identity": form.identity, "camera": form.camera, "time": form.time}
    modality = form.modality or service.default_modality
    counts["accepted"] = len(images)

    async def store(task: Task) -> Added:
        return await _store(service, task, images, modality, labels)

    title = f"Adding {len(images):,} picture{'' if len(images) == 1 else 's'}"
    task = service.background.start(title, "/tasks/{task}", store, must_finish=True)
    return RedirectResponse(task.address, 303)


async def _store(service: Service, task: Task, images: list[bytes], modality: str, labels: dict[str, Any]) -> Added:
    """Add pictures, some at a time; those that cannot be decoded are left out."""
    result = Added()
    for first in range(0, len(images), _AT_ONCE):
        task.report("Embedding and storing", first, len(images))
        part = images[first : first + _AT_ONCE]
        outcomes = await asyncio.gather(*(_add(service, data, modality, labels) for data in part))
        for number, outcome in enumerate(outcomes, start=first + 1):
            if isinstance(outcome, str):
                result.refused.append((number, outcome.replace("picture 1", "the picture")))
            else:
                result.added += int(outcome)
                result.existing += int(not outcome)
    return result


async def _add(service: Service, data: bytes, modality: str, labels: dict[str, Any]) -> bool | str:
    """Store a picture; return whether its record is new, or why it is refused."""
    sighting = {modality: data}
    while True:
        try:
            embedded = await service.embed([sighting], labels["camera"], thumbnails=service.settings.thumbnails)
            break
        except ServiceError as error:
            if error.status != _BUSY or not service.is_ready:
                return error.reason
        await asyncio.sleep(_RETRY_SECONDS)
    record = Record(
        id=record_id_of(None, sighting, labels), vector=embedded.vectors[0], modality=modality,
        thumbnail=embedded.thumbnails[0], metadata={ADDED: round(time.time(), 3)}, **labels,
    )  # fmt: skip
    return (await service.add(record, replace=False))[1]
