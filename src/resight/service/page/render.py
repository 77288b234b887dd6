"""Templates to answers: the environment of Jinja2, what every page shows, and the headers of pages."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from resight.service.page.times import time_text
from resight.service.security.principal import Principal
from resight.service.work.core import Service

FOLDER: Final = Path(__file__).parent
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send the forms of a page with `Origin: null`
    "Vary": "HX-Request, Accept, Cookie",
}
"""Of every page: scripts, styles and pictures are files of the service itself, and nothing is inline."""


@cache
def environment() -> Environment:
    """Return the templates; every value is escaped."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(time=time_text, element_id=element_id, data_url=data_url)  # pyright: ignore[reportCallIssue, reportArgumentType]
    made.globals["version"] = static_version()  # pyright: ignore[reportArgumentType]
    return made


def static_version() -> str:
    """Return a hash of the style sheet and the scripts, which their addresses carry."""
    digest = hashlib.sha256()
    for file in sorted((FOLDER / "static").iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def element_id(record_id: str) -> str:
    """Return a name for a record's element in HTML, whatever characters its id has."""
    return "r" + hashlib.sha256(record_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def data_url(jpeg: bytes) -> str:
    """Return a JPEG as the address of a picture."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def is_fragment(request: Request) -> bool:
    """Return whether htmx requests a part of a page, rather than a browser the whole."""
    return request.headers.get("hx-request") == "true"


async def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template with what every page shows.

    Args:
        request: has passed the guard.
        template: name of its file.
        status: of the answer.
        values: of the template.
    """
    service: Service = request.app.state.service
    principal: Principal = request.state.principal
    shared = {
        "principal": principal,
        "can_write": principal.may("write"),
        "token": principal.form_token or "",
        "path": request.url.path,
        "change": await last_change(service) if principal.may("write") else None,
        "requires_key": service.requires_key,
    }
    text = environment().get_template(template).render({**shared, **values})
    return HTMLResponse(text, status, PAGE_HEADERS)


async def last_change(service: Service) -> dict[str, Any] | None:
    """Return the last assignment, which can be undone; None if there is none."""
    entries = await service.with_reader(lambda gallery: gallery.engine.assignments()[-1:])
    if not entries:
        return None
    last = entries[0]
    name = hashlib.sha256(repr((last.at, last.identity, sorted(last.before.items()))).encode()).hexdigest()[:32]
    return {"at": last.at, "identity": last.identity, "records": len(last.before), "name": name, "ids": [*last.before]}
