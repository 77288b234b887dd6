"""Read the multipart form of a request that sends pictures: its fields by name. Nothing is written to disk.

The body is in memory, and the guard limits its size. A file is told from a text by the presence of a file name, which
is ignored.
"""

from typing import TYPE_CHECKING, Final, TypeVar, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from resight.service.errors import ServiceError
from resight.service.messages.types import Body

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

F = TypeVar("F", bound=Body)
Fields = dict[str, list[str | bytes]]
"""Texts and bytes of files by the name of the field, in the order of the form."""

_KIND: Final = "multipart/form-data"
_MAX_PARTS: Final = 1000


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
    """Read the parts of a form.

    Raises:
        ServiceError: it is malformed, cut short, or has too many parts (400).
    """
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise ServiceError(400, f"the form cannot be read: {error}") from error
    if not form.is_complete:
        raise ServiceError(400, "the form is cut short")
    return form.fields


class _Form:
    """Collects what the parser reads: each part's headers, then its content."""

    def __init__(self) -> None:
        self.fields: Fields = {}
        self.is_complete = False
        self._count = 0
        self._name, self._value, self._content = bytearray(), bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self.callbacks: MultipartCallbacks = {
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_part_data": lambda data, start, end: self._content.extend(data[start:end]),
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end_part(self) -> None:
        self._count += 1
        if self._count > _MAX_PARTS:
            raise ServiceError(400, f"the form has more than {_MAX_PARTS} parts")
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if not options.get(b"name"):
            raise ServiceError(400, "the form has a part without a name")
        content = bytes(self._content)
        value = content if b"filename" in options else _decoded(content)
        self.fields.setdefault(_decoded(options[b"name"]), []).append(value)
        self._headers, self._content = {}, bytearray()

    def _end(self) -> None:
        self.is_complete = True


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ServiceError(400, "a field of the form is not UTF-8") from None
