"""Routes of identities: list, time line, assign, merge, undo, cluster."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from resight.gallery.cluster import Clustering
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.service.errors import ServiceError
from resight.service.messages.schemas import (
    AssignIn,
    ClusterAssignIn,
    ClusterIn,
    ClusterOut,
    CountOut,
    IdentitiesOut,
    IdentityOut,
    MergeIn,
    RecordsOut,
    UndoOut,
    record_out,
)
from resight.service.messages.types import Body, Text
from resight.service.routes.dependencies import ERRORS, Counts, ServiceOf
from resight.service.work.core import Service
from resight.service.work.record_ids import require_records

router = APIRouter(tags=["identities"], responses=ERRORS)


class PageQuery(Body):
    """Which part of a list is returned."""

    offset: int = Field(default=0, ge=0, le=10**9)
    limit: int = Field(default=100, ge=1, le=1000)


@router.get("/v1/identities")
async def list_identities(service: ServiceOf, page: Annotated[PageQuery, Query()]) -> IdentitiesOut:
    """List the identities, those with the most records first."""

    def count(gallery: Gallery) -> Counter[str]:
        return Counter(record.identity for record in gallery.engine.scan() if record.identity is not None)

    counted = await service.with_reader(count)
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    rows = ordered[page.offset : page.offset + page.limit]
    return IdentitiesOut(
        identities=[IdentityOut(identity=name, records=number) for name, number in rows], total=len(ordered)
    )


@router.get("/v1/timeline")
async def time_line(service: ServiceOf, counts: Counts, identity: Annotated[Text, Query()]) -> RecordsOut:
    """List the sightings of an identity by time; those without a time come last."""
    records = await service.time_line(identity)
    counts["answers"] = len(records)
    return RecordsOut(records=list(map(record_out, records)), total=len(records))


@router.post("/v1/assign")
async def assign(service: ServiceOf, counts: Counts, body: AssignIn) -> CountOut:
    """Assign records to an identity, or make them unknown; `/v1/undo` takes it back."""
    if not body.ids and body.of is None:
        raise ServiceError(422, "there is nothing to assign: give ids, or an identity `of`")
    number = await service.assign(body.ids, body.identity, body.of)
    counts["records"] = number
    return CountOut(records=number)


@router.post("/v1/merge")
async def merge(service: ServiceOf, counts: Counts, body: MergeIn) -> CountOut:
    """Assign all records of one identity to another; `/v1/undo` takes it back."""
    number = await service.assign([], body.into, body.identity)
    counts["records"] = number
    return CountOut(records=number)


@router.post("/v1/undo")
async def undo(service: ServiceOf, counts: Counts) -> UndoOut:
    """Undo the last assignment. With the header Idempotency-Key, a repetition undoes no other one."""
    undone = await service.undo()
    counts["records"] = undone.records
    return undone


@router.post("/v1/cluster")
async def cluster(service: ServiceOf, counts: Counts, body: ClusterIn) -> ClusterOut:
    """Group the records without an identity by their similarity; nothing is assigned."""
    clustering = await _cluster(service, body)
    groups = _groups(clustering)
    counts["groups"] = len(groups)
    return ClusterOut(groups=groups)


@router.post("/v1/cluster/assign")
async def assign_clusters(service: ServiceOf, counts: Counts, body: ClusterAssignIn) -> ClusterOut:
    """Group records, and assign the groups to `name-1`, `name-2`, ...; each group is one step of `/v1/undo`."""
    clustering = await _cluster(service, body)

    def assign_present(gallery: Gallery) -> None:
        require_records(gallery, [record.id for record in clustering.records])
        gallery.assign_clusters(clustering, body.name)

    await service.with_gallery(assign_present)
    groups = _groups(clustering)
    counts["groups"] = len(groups)
    return ClusterOut(groups=groups)


async def _cluster(service: Service, body: ClusterIn) -> Clustering:
    return await service.with_reader(
        lambda gallery: gallery.cluster(body.threshold, body.neighbors, body.include_named)
    )


def _groups(clustering: Clustering) -> list[list[str]]:
    groups: list[list[Record]] = [[] for _ in clustering.sizes]
    for record, group in zip(clustering.records, clustering.groups.tolist(), strict=True):
        groups[group].append(record)
    return [[record.id for record in group] for group in groups]
