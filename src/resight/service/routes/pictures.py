"""Routes that take pictures and change nothing: embed, search, compare."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from resight.gallery.answers import Answer, SearchOptions
from resight.gallery.gallery import Gallery
from resight.service.messages.forms import CompareForm, ExplainForm, ImagesForm, SearchForm
from resight.service.messages.schemas import (
    AnswerOut,
    CompareOut,
    EmbeddingsOut,
    ExplainOut,
    SearchOut,
    answer_fields,
    answer_out,
)
from resight.service.messages.types import Count, Group
from resight.service.routes.dependencies import (
    ERRORS,
    Counts,
    RecordId,
    ServiceOf,
    form_document,
    form_of,
    json_response,
)
from resight.service.work.explanations import Side, explain_out, explain_sides
from resight.service.work.record_ids import find_record

router = APIRouter(tags=["pictures"], responses=ERRORS)


@router.post("/v1/embed", response_model=EmbeddingsOut, openapi_extra=form_document(ImagesForm))
async def embed(service: ServiceOf, counts: Counts, form: Annotated[ImagesForm, form_of(ImagesForm)]) -> Response:
    """Embed pictures, and return their embeddings, one for each sighting in the order of the form.

    Several pictures in one request take less time than as many requests.
    """
    sightings = form.sightings()
    embedded = await service.embed(sightings, form.query_camera, form.query_view)
    counts["queries"] = len(sightings)
    rows = embedded.vectors.tolist()
    return json_response({"embedding_id": service.embedder.embedding_id, "embeddings": rows})


@router.post("/v1/search", response_model=SearchOut, openapi_extra=form_document(SearchForm))
async def search(service: ServiceOf, counts: Counts, form: Annotated[SearchForm, form_of(SearchForm)]) -> Response:
    """Search the gallery for the records that are most similar to pictures: answers to each sighting, in their order.

    Several pictures in one request take less time than as many requests. If one of them cannot be decoded, the request
    is refused, and the reason has its number.
    """
    options = SearchOptions(form.k, form.where(), form.group, form.rerank, frozenset(form.exclude))
    sightings = form.sightings()
    embedded = await service.embed(sightings, form.query_camera, form.query_view)
    answers = await service.search(embedded, options, form.same_object)
    counts.update(queries=len(answers), answers=sum(map(len, answers)))
    return json_response({"answers": [list(map(answer_fields, row)) for row in answers]})


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


@router.post("/v1/compare", openapi_extra=form_document(CompareForm))
async def compare(service: ServiceOf, counts: Counts, form: Annotated[CompareForm, form_of(CompareForm)]) -> CompareOut:
    """Compare two pictures: similarity, and the probability of the same identity where the model is calibrated."""
    first = {form.first_modality or "image": form.first}
    second = {form.second_modality or "image": form.second}
    comparison = await service.compare(first, second, (form.first_camera, form.second_camera))
    counts["queries"] = 2
    return CompareOut(**vars(comparison))


@router.post("/v1/explain", openapi_extra=form_document(ExplainForm))
async def explain(service: ServiceOf, counts: Counts, form: Annotated[ExplainForm, form_of(ExplainForm)]) -> ExplainOut:
    """Explain the similarity of two pictures: the attention to their patches, and the patches that resemble each other.

    Each picture is a file, or the thumbnail of a record. The model must be a vision transformer.
    """
    first = Side(form.first, form.first_record, form.first_camera, form.first_modality)
    second = Side(form.second, form.second_record, form.second_camera, form.second_modality)
    counts["queries"] = 2
    return explain_out(await explain_sides(service, first, second))
