"""Read the multipart form of a request that sends pictures: its fields by name. Nothing is written to disk.

The body is in memory, and the guard limits its size. A file is told from a text by the presence of a file name, which
is ignored.
"""

import re
from typing import Final, TypeVar, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from resight.service.errors import ServiceError
from resight.service.types import Body

F = TypeVar("F", bound=Body)
Fields = dict[str, list[str | bytes]]
"""Texts and bytes of files by the name of the field, in the order of the form."""

_KIND: Final = "multipart/form-data"
_MAX_PARTS: Final = 1000
_MAX_HEADERS: Final = 4096  # bytes of the headers of a part
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_DISPOSITION: Final = re.compile(rb"content-disposition:[ \t]*form-data[ \t]*(;.*)", re.IGNORECASE)
_PARAMETER: Final = re.compile(rb';[ \t]*([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))', re.IGNORECASE)


async def read_form(request: Request, form: type[F]) -> F:
    """Read the body of a request, and check its fields.

    Args:
        request: whose body was not read yet.
        form: the fields; those that are lists take every value, the others the last one.

    Raises:
        ServiceError: the body is no multipart form (415), or cannot be read (400).
        RequestValidationError: a field is invalid, missing or unknown.
    """
    content_type = request.headers.get("content-type")
    try:
        body = await request.body()
        fields = parse_multipart(body, boundary_of(content_type)) if content_type else Fields()
    except ClientDisconnect:
        raise ServiceError(400, "the body ends before it is complete") from None
    known = form.model_fields
    lists = {name for name in fields if name not in known or get_origin(known[name].annotation) is list}
    try:
        return form.model_validate({name: part if name in lists else part[-1] for name, part in fields.items()})
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in errors]) from None


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that the Content-Type header of a form names.

    Raises:
        ServiceError: the body is of another type (415), or the header names no boundary (400).
    """
    if content_type.partition(";")[0].strip().lower() != _KIND:
        raise ServiceError(415, f"send the body as {_KIND}")
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise ServiceError(400, "the Content-Type header names no boundary")
    return (match[1] or match[2]).encode("latin-1")


def parse_multipart(body: bytes, boundary: bytes) -> Fields:
    """Split a body at its boundary.

    Raises:
        ServiceError: it is malformed, cut short, or has too many parts (400).
    """
    delimiter = b"--" + boundary
    fields: Fields = {}
    if not body.startswith(delimiter):
        raise ServiceError(400, "the body does not begin with the boundary that its header names")
    place = len(delimiter)
    for _ in range(_MAX_PARTS + 1):
        if body.startswith(b"--", place):
            return fields
        head_end = body.find(b"\r\n\r\n", place, place + _MAX_HEADERS)
        if head_end < 0 or not body.startswith(b"\r\n", place):
            raise ServiceError(400, "the form has a part without headers, or with very long ones")
        end = body.find(b"\r\n" + delimiter, head_end + 4)
        if end < 0:
            raise ServiceError(400, "the form is cut short: its last part does not end")
        name, is_file = _named(body[place:head_end])
        content = body[head_end + 4 : end]
        fields.setdefault(name, []).append(content if is_file else _decoded(content))
        place = end + 2 + len(delimiter)
    raise ServiceError(400, f"the form has more than {_MAX_PARTS} parts")


def _named(headers: bytes) -> tuple[str, bool]:
    """The name of a part, and whether it is a file."""
    match = _DISPOSITION.search(headers)
    pairs = _PARAMETER.findall(match[1]) if match else []
    parameters = {key.lower(): quoted or plain for key, quoted, plain in pairs}
    if not parameters.get(b"name"):
        raise ServiceError(400, "the form has a part without a name")
    return _decoded(parameters[b"name"]), b"filename" in parameters or b"filename*" in parameters


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ServiceError(400, "a field of the form is not UTF-8") from None
