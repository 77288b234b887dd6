"""What the routes share: the service, the caller, the counts for the log, and the documented errors."""

from typing import Annotated, Any, Final

from fastapi import Depends, Path, Request

from resight.service.core import Service
from resight.service.principal import Principal
from resight.service.types import Problem, Text

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


def _service(request: Request) -> Service:
    return request.app.state.service


def _principal(request: Request) -> Principal:
    return request.state.principal


def _counts(request: Request) -> dict[str, int]:
    return request.state.counts


ServiceOf = Annotated[Service, Depends(_service)]
Caller = Annotated[Principal, Depends(_principal)]
Counts = Annotated[dict[str, int], Depends(_counts)]
"""Numbers for the log and the audit log, such as the number of queries."""
RecordId = Annotated[Text, Path(description="Id of a record.")]
