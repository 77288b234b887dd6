"""Routes that take pictures and change nothing: embed, search, compare."""

from typing import Annotated

from fastapi import APIRouter, Form, Query

from resight.gallery.answers import Answer, SearchOptions
from resight.gallery.gallery import Gallery
from resight.service.explanations import Side, explain_out, explain_sides
from resight.service.forms import CompareForm, ExplainForm, ImagesForm, SearchForm
from resight.service.record_ids import find_record
from resight.service.routes.dependencies import ERRORS, Counts, RecordId, ServiceOf
from resight.service.schemas import AnswerOut, CompareOut, EmbeddingsOut, ExplainOut, SearchOut, answer_out
from resight.service.types import Count, Group

router = APIRouter(tags=["pictures"], responses=ERRORS)
_MULTIPART = Form(media_type="multipart/form-data")


@router.post("/v1/embed")
async def embed(service: ServiceOf, counts: Counts, form: Annotated[ImagesForm, _MULTIPART]) -> EmbeddingsOut:
    """Embed pictures, and return their embeddings."""
    sightings = await form.sightings()
    embedded = await service.embed(sightings, form.query_camera, form.query_view)
    counts["queries"] = len(sightings)
    return EmbeddingsOut(embedding_id=service.embedder.embedding_id, embeddings=embedded.vectors.tolist())


@router.post("/v1/search")
async def search(service: ServiceOf, counts: Counts, form: Annotated[SearchForm, _MULTIPART]) -> SearchOut:
    """Search the gallery for the records that are most similar to pictures."""
    options = SearchOptions(form.k, form.where(), form.group, form.rerank, frozenset(form.exclude))
    sightings = await form.sightings()
    embedded = await service.embed(sightings, form.query_camera, form.query_view)
    answers = await service.search(embedded.vectors, options, form.same_object)
    counts.update(queries=len(answers), answers=sum(map(len, answers)))
    return SearchOut(answers=[list(map(answer_out, row)) for row in answers])


@router.get("/v1/similar/{record_id:path}")
async def similar(
    service: ServiceOf,
    counts: Counts,
    record_id: RecordId,
    k: Annotated[Count, Query()] = 10,
    group: Annotated[Group | None, Query()] = None,
) -> list[AnswerOut]:
    """Search with a record of the gallery; the record itself is left out of the answers."""

    def find(gallery: Gallery) -> list[Answer]:
        find_record(gallery, record_id)
        return gallery.similar(record_id, k, group=group)

    answers = await service.with_gallery(find)
    counts.update(queries=1, answers=len(answers))
    return list(map(answer_out, answers))


@router.post("/v1/compare")
async def compare(service: ServiceOf, counts: Counts, form: Annotated[CompareForm, _MULTIPART]) -> CompareOut:
    """Compare two pictures: similarity, and the probability of the same identity where the model is calibrated."""
    first = {form.first_modality or "image": await form.first.read()}
    second = {form.second_modality or "image": await form.second.read()}
    comparison = await service.compare(first, second, (form.first_camera, form.second_camera))
    counts["queries"] = 2
    return CompareOut(**vars(comparison))


@router.post("/v1/explain")
async def explain(service: ServiceOf, counts: Counts, form: Annotated[ExplainForm, _MULTIPART]) -> ExplainOut:
    """Explain the similarity of two pictures: the attention to their patches, and the patches that resemble each other.

    Each picture is a file, or the thumbnail of a record. The model must be a vision transformer.
    """
    first = Side(form.first and await form.first.read(), form.first_record, form.first_camera, form.first_modality)
    second = Side(
        form.second and await form.second.read(), form.second_record, form.second_camera, form.second_modality
    )
    counts["queries"] = 2
    return explain_out(await explain_sides(service, first, second))
