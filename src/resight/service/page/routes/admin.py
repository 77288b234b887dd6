"""The page of administrators: counts, model, keys, retention, settings and audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from resight.service.page.csrf import FormToken
from resight.service.page.forms import KeyForm, PageForm, RevokeForm
from resight.service.page.render import page
from resight.service.routes import admin as api
from resight.service.routes.dependencies import Counts, ServiceOf
from resight.service.settings import public_settings

router = APIRouter(include_in_schema=False)
_AUDIT_LINES = 100


@router.get("/admin")
async def admin_page(request: Request, service: ServiceOf) -> HTMLResponse:
    """Show what the service is and does."""
    return await _page(request, service)


@router.post("/admin/keys", dependencies=[FormToken])
async def create_key(request: Request, service: ServiceOf, form: Annotated[KeyForm, Form()]) -> HTMLResponse:
    """Create a key, and show its text this once."""
    created = await api.create_key(service, form)
    return await _page(request, service, created.key)


@router.post("/admin/keys/revoke", dependencies=[FormToken])
async def revoke_key(service: ServiceOf, form: Annotated[RevokeForm, Form()]) -> RedirectResponse:
    """Delete a key, and the sessions of it."""
    await api.revoke_key(service, form.key_id)
    return RedirectResponse("/admin", 303)


@router.post("/admin/retention", dependencies=[FormToken])
async def run_retention(service: ServiceOf, counts: Counts, _: Annotated[PageForm, Form()]) -> RedirectResponse:
    """Remove the records that are older than the retention now."""
    await api.run_retention(service, counts)
    return RedirectResponse("/admin", 303)


async def _page(request: Request, service: ServiceOf, new_key: str | None = None) -> HTMLResponse:
    stats = await service.with_reader(lambda gallery: gallery.stats())
    lines = service.audit.tail(_AUDIT_LINES)[::-1]
    values: dict[str, Any] = {
        "stats": stats, "entries": service.key_store.entries(), "new_key": new_key, "lines": lines,
        "settings": public_settings(service.settings), "has_store": service.settings.state is not None,
        "embedder": service.embedder, "calibration": service.calibration,
    }  # fmt: skip
    return await page(request, "admin.html", **values)
