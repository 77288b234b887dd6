"""What the routes share: the service, the caller, the counts for the log, and the documented errors."""

from typing import Annotated, Any, Final

from fastapi import Depends, Path, Request, Response
from pydantic_core import to_json

from resight.service.messages.multipart import read_form
from resight.service.messages.types import Body, Problem, Text
from resight.service.security.principal import Principal
from resight.service.work.core import Service

ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body cannot be read.",
        401: "No valid key.",
        403: "The key has not the role, or the request comes from another origin.",
        404: "There is no such record, identity or route.",
        408: "The request did not arrive in time.",
        409: "The gallery's state does not allow it.",
        413: "The body is too large.",
        415: "The body has another type.",
        421: "Another name in the Host header.",
        422: "A field or picture is invalid.",
        429: "Too many requests.",
        503: "A queue is full, or the gallery cannot answer: try again after `Retry-After` seconds.",
        504: "The answer took too long.",
    }.items()
}


# FastAPI calls a dependency that is no coroutine in a thread, which takes longer than the rest of the request.
async def _service(request: Request) -> Service:
    return request.app.state.service


async def _principal(request: Request) -> Principal:
    return request.state.principal


async def _counts(request: Request) -> dict[str, int]:
    return request.state.counts


ServiceOf = Annotated[Service, Depends(_service)]
Caller = Annotated[Principal, Depends(_principal)]
Counts = Annotated[dict[str, int], Depends(_counts)]
"""Numbers for the log and the audit log, such as the number of queries."""
RecordId = Annotated[Text, Path(description="Id of a record.")]


def form_of(form: type[Body]) -> Any:
    """Return the dependency that reads the multipart form of a request."""

    async def read(request: Request) -> Body:
        return await read_form(request, form)

    return Depends(read)


def form_document(form: type[Body]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route whose form `form_of` reads."""
    content = {"multipart/form-data": {"schema": form.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def json_response(document: Any) -> Response:
    """Return a document of plain values as an answer; the route states its type, which a test checks."""
    return Response(to_json(document), media_type="application/json")
