"""Tools for agents by the Model Context Protocol: search, compare, time line; assignment and undo if enabled."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from resight.errors import ConfigError, PictureError, require_extra
from resight.gallery.answers import SearchOptions
from resight.gallery.record import Filter
from resight.service.errors import ServiceError
from resight.service.messages.schemas import CompareOut, SearchOut, UndoOut, answer_out, record_out
from resight.service.work.core import Service

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

Picture = Annotated[str, Field(description="The bytes of a picture file (JPEG, PNG, ...) in base64.")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
K = Annotated[int, Field(ge=1, le=100)]


def create_tools(service: Service) -> "MCPServer[Any]":
    """Return the server of the tools; the guard in front of it has checked the key, as for every other route.

    Args:
        service: answers the calls.

    Raises:
        ConfigError: `mcp` is not installed.
    """
    library = require_extra("mcp.server.mcpserver", "mcp")
    tools: MCPServer[Any] = library.MCPServer(
        "resight", instructions="Search a gallery by picture, compare pictures, and list where an identity was seen."
    )
    _add_reading(tools, service)
    if service.settings.mcp == "write":
        _add_writing(tools, service, library.Context)
    return tools


def mcp_application(tools: "MCPServer[Any]") -> Any:
    """Return the ASGI application of the tools, at the path /mcp; the guard has checked the Host header already."""
    security = require_extra("mcp.server.transport_security", "mcp")
    off = security.TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return tools.streamable_http_app(stateless_http=True, json_response=True, transport_security=off)


def _add_reading(tools: "MCPServer[Any]", service: Service) -> None:
    async def search(picture: Picture, k: K = 10, camera: Name | None = None) -> SearchOut:
        """Search the gallery for the records most similar to a picture, each identity once; nearest first."""
        embedded = await service.embed([{"image": _bytes(picture)}])
        options = SearchOptions(k, Filter(camera=() if camera is None else (camera,)), "identity")
        answers = await service.search(embedded, options)
        return SearchOut(answers=[list(map(answer_out, row)) for row in answers])

    async def compare(first: Picture, second: Picture) -> CompareOut:
        """Compare two pictures: similarity, and the probability that both show the same identity."""
        comparison = await service.compare({"image": _bytes(first)}, {"image": _bytes(second)}, (None, None))
        return CompareOut(**vars(comparison))

    async def time_line(identity: Name) -> list[dict[str, Any]]:
        """List where and when an identity was seen, in order of time (seconds)."""
        return [record_out(record).model_dump() for record in await service.time_line(identity)]

    for tool in (search, compare, time_line):
        tools.add_tool(_with_errors(tool), annotations=_annotations(read_only=True))


def _add_writing(tools: "MCPServer[Any]", service: Service, context_type: Any) -> None:
    async def assign(ids: list[Name], identity: Name | None, context: Any) -> int:
        """Assign records to an identity, or make them unknown (null); return their number."""
        _require_write(context)
        return await service.assign(ids, identity)

    async def undo(context: Any) -> UndoOut:
        """Undo the last assignment."""
        _require_write(context)
        return await service.undo()

    for tool in (assign, undo):
        tool.__annotations__["context"] = context_type
        tools.add_tool(_with_errors(tool), annotations=_annotations(read_only=False))


def _with_errors(tool: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A tool whose refusals are sentences for the agent; other errors have no text."""
    tool_error: type[Exception] = require_extra("mcp.server.mcpserver.exceptions", "mcp").ToolError

    @wraps(tool)
    async def call(*arguments: Any, **named: Any) -> Any:
        try:
            return await tool(*arguments, **named)
        except ServiceError as error:
            raise tool_error(error.reason) from None
        except (ConfigError, PictureError) as error:
            raise tool_error(str(error)) from None

    return call


def _annotations(read_only: bool) -> Any:
    return require_extra("mcp.types", "mcp").ToolAnnotations(read_only_hint=read_only, open_world_hint=False)


def _require_write(context: Any) -> None:
    principal = context.request_context.request.state.principal
    if not principal.may("write"):
        raise ServiceError(403, "this tool requires a key with the role write")


def _bytes(picture: str) -> bytes:
    try:
        return base64.b64decode(picture, validate=True)
    except binascii.Error:
        raise ServiceError(422, "the picture is not valid base64") from None
