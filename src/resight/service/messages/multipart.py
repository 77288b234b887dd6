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
    start, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if not parts or not parts.pop().startswith(b"--"):
        raise ServiceError(400, "the form is cut short")
    if start:
        raise ServiceError(400, "the form cannot be read: it does not begin with its boundary")
    if len(parts) > _MAX_PARTS:
        raise ServiceError(400, f"the form has more than {_MAX_PARTS} parts")
    fields = Fields()
    for part in parts:
        name, value = _part(part)
        fields.setdefault(name, []).append(value)
    return fields


def _part(part: bytes) -> tuple[str, str | bytes]:
    """Read a part, from behind the boundary: the name of its field, and its text or the bytes of its file."""
    end = part.find(b"\r\n\r\n", 0, _MAX_HEADERS)
    if end < 0 or not part.startswith(b"\r\n"):
        raise ServiceError(400, "the form cannot be read: a part has no headers, or too long ones")
    for line in part[2:end].split(b"\r\n"):
        header, colon, disposition = line.partition(b":")
        if colon and header.lower() == b"content-disposition":
            options = parse_options_header(disposition)[1]
            if options.get(b"name"):
                content = part[end + 4 :]
                return _decoded(options[b"name"]), content if b"filename" in options else _decoded(content)
    raise ServiceError(400, "the form has a part without a name")


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ServiceError(400, "a field of the form is not UTF-8") from None
