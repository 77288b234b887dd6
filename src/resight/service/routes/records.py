"""Routes of records: add, get, list, thumbnail, remove."""

import time
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from resight.gallery.gallery import Gallery
from resight.gallery.record import Filter, Record
from resight.service.errors import ServiceError
from resight.service.messages.forms import AddForm, read_metadata
from resight.service.messages.schemas import AddedOut, CountOut, RecordOut, RecordsOut, RemoveIn, filter_of, record_out
from resight.service.messages.types import Body, Seconds, Text
from resight.service.routes.dependencies import ERRORS, Caller, Counts, RecordId, ServiceOf, form_document, form_of
from resight.service.work.record_ids import find_record, record_id_of
from resight.service.work.retention import ADDED

router = APIRouter(tags=["records"], responses=ERRORS)
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "A small JPEG."}}


class ListQuery(Body):
    """Which records are listed."""

    identity: list[Text] = Field(default=[])
    camera: list[Text] = Field(default=[])
    modality: list[Text] = Field(default=[])
    tracklet: list[Text] = Field(default=[])
    after: Seconds | None = None
    """Of this time or later, in seconds."""
    before: Seconds | None = None
    """Of an earlier time, in seconds."""
    offset: int = Field(default=0, ge=0, le=10**9)
    limit: int = Field(default=100, ge=1, le=1000)

    def where(self) -> Filter:
        """Return the filter."""
        labels = {name: getattr(self, name) for name in ("identity", "camera", "modality", "tracklet")}
        return filter_of(labels, self.after, self.before, None)


@router.post(
    "/v1/records", status_code=201, responses={200: {"model": AddedOut, "description": "It existed."}},
    openapi_extra=form_document(AddForm),
)  # fmt: skip
async def add(
    service: ServiceOf,
    caller: Caller,
    counts: Counts,
    response: Response,
    form: Annotated[AddForm, form_of(AddForm)],
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> AddedOut:
    """Store the sighting of some pictures. It is on disk when the answer arrives (201).

    To repeat a request is safe: its record has the id that it gives, or one that follows from the header
    Idempotency-Key, or else from the content. A record that exists is not changed, and given back (200).
    """
    sighting = form.sighting()
    metadata = read_metadata(form.metadata)
    labels = {name: getattr(form, name) for name in ("identity", "camera", "tracklet", "time")}
    key = None if idempotency_key is None else f"{caller.key} {idempotency_key}"
    record_id = form.id or record_id_of(key, sighting, {**labels, "view": form.view, "metadata": form.metadata})
    embedded = await service.embed([sighting], form.camera, form.view, service.settings.thumbnails)
    record = Record(
        id=record_id,
        vector=embedded.vectors[0],
        modality=embedded.modalities[0],
        thumbnail=embedded.thumbnails[0],
        metadata={ADDED: round(time.time(), 3), **metadata},
        **labels,
    )
    stored, created = await service.add(record, form.replace)
    counts["records"] = int(created or form.replace)
    response.status_code = 201 if created else 200
    return AddedOut(record=record_out(stored), created=created)


@router.get("/v1/records")
async def list_records(service: ServiceOf, counts: Counts, query: Annotated[ListQuery, Query()]) -> RecordsOut:
    """List the records that match, in the order in which they were added."""
    where = query.where()

    def read(gallery: Gallery) -> tuple[list[Record], int]:
        page = islice(gallery.engine.scan(where), query.offset, query.offset + query.limit)
        return list(page), gallery.engine.count(where)

    records, total = await service.with_reader(read)
    counts["answers"] = len(records)
    return RecordsOut(records=list(map(record_out, records)), total=total)


@router.get("/v1/records/{record_id:path}")
async def get_record(service: ServiceOf, record_id: RecordId, vector: bool = False) -> RecordOut:
    """Return a record, and its embedding where that is requested."""
    record = await service.with_gallery(lambda gallery: find_record(gallery, record_id))
    return record_out(record, vector)


@router.get("/v1/thumbnails/{record_id:path}", response_class=Response, responses=_JPEG)
async def get_thumbnail(service: ServiceOf, record_id: RecordId) -> Response:
    """Return the small picture of a record."""
    record = await service.with_gallery(lambda gallery: find_record(gallery, record_id))
    if record.thumbnail is None:
        raise ServiceError(404, "the record has no thumbnail")
    return Response(record.thumbnail, media_type="image/jpeg")


@router.delete("/v1/records/{record_id:path}")
async def remove_record(service: ServiceOf, counts: Counts, record_id: RecordId) -> CountOut:
    """Remove a record with everything derived from it; to repeat it is safe, and removes 0 records."""
    removed = await service.with_gallery(lambda gallery: gallery.remove([record_id]))
    counts["removed"] = removed
    return CountOut(records=removed)


@router.post("/v1/remove")
async def remove(service: ServiceOf, counts: Counts, body: RemoveIn) -> CountOut:
    """Remove records, or all of an identity, with vectors, thumbnails and their part of the log."""
    if not body.ids and body.identity is None:
        raise ServiceError(422, "there is nothing to remove: give ids or an identity")
    removed = await service.with_gallery(lambda gallery: gallery.remove(body.ids, body.identity))
    counts["removed"] = removed
    return CountOut(records=removed)
