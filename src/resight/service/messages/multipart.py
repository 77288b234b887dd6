"""Read the multipart form of a request that sends pictures: its fields by name. Nothing is written to disk.

The body is in memory, and the guard limits its size. A file is told from a text by the presence of a file name, which
is ignored.
"""

from typing import Final, TypeVar, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from resight.service.errors import ServiceError
from resight.service.messages.types import Body

F = TypeVar("F", bound=Body)
Fields = dict[str, list[str | bytes]]
"""Texts and bytes of files by the name of the field, in the order of the form."""

_KIND: Final = "multipart/form-data"
_MAX_PARTS: Final = 1000
_MAX_HEADERS: Final = 4096  # bytes, of a part
_CUT_SHORT: Final = "the form is cut short"


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
    kind, options = parse_options_header(content_type)
    if kind.decode("latin-1").lower() != _KIND:
        raise ServiceError(415, f"send the body as {_KIND}")
    if not options.get(b"boundary"):
        raise ServiceError(400, "the Content-Type header names no boundary")
    return options[b"boundary"]


def parse_multipart(body: bytes, boundary: bytes) -> Fields:
    """Read the parts of a form (RFC 2046, section 5.1.1, and RFC 7578).

    Raises:
        ServiceError: it is malformed, cut short, or has too many parts (400).
    """
    delimiter = b"\r\n--" + boundary
    first = delimiter[2:]
    body = body.lstrip(b"\r\n")  # some clients begin with a line break
    if not body.startswith(first):
        reason = "it does not begin with its boundary"
        raise ServiceError(400, f"the form cannot be read: {reason}" if len(body) >= len(first) else _CUT_SHORT)
    fields = Fields()
    start = len(first)
    for _ in range(_MAX_PARTS + 1):
        if body.startswith(b"--", start):
            return fields
        end = body.find(delimiter, start)
        if end < 0:
            raise ServiceError(400, _CUT_SHORT)
        name, value = _part(body, start, end)
        fields.setdefault(name, []).append(value)
        start = end + len(delimiter)
    raise ServiceError(400, f"the form has more than {_MAX_PARTS} parts")


def _part(body: bytes, start: int, end: int) -> tuple[str, str | bytes]:
    """Read the part of a body between two boundaries: the name of its field, and its text or the bytes of its file."""
    content = body.find(b"\r\n\r\n", start, min(end, start + _MAX_HEADERS))
    if content < 0 or not body.startswith(b"\r\n", start):
        raise ServiceError(400, "the form cannot be read: a part has no headers, or too long ones")
    for line in body[start + 2 : content].split(b"\r\n"):
        header, _, disposition = line.partition(b":")
        if header.lower() == b"content-disposition":
            options = parse_options_header(disposition)[1]
            if options.get(b"name"):
                value = body[content + 4 : end]
                return _decoded(options[b"name"]), value if b"filename" in options else _decoded(value)
    raise ServiceError(400, "the form has a part without a name")


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ServiceError(400, "a field of the form is not UTF-8") from None
