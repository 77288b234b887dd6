"""Routes of administrators: keys, settings, audit log and retention."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from resight.service.errors import ServiceError
from resight.service.messages.schemas_admin import (
    AuditOut,
    KeyIn,
    KeyListOut,
    KeyOut,
    NewKeyOut,
    RetentionOut,
    SettingsOut,
)
from resight.service.routes.dependencies import ERRORS, Counts, ServiceOf
from resight.service.security.keys import Key
from resight.service.settings import public_settings

router = APIRouter(tags=["administration"], responses=ERRORS)


@router.get("/v1/keys")
async def list_api_keys(service: ServiceOf) -> KeyListOut:
    """List the keys, without their secrets."""
    return KeyListOut(keys=list(map(_key_out, service.key_store.entries())))


@router.post("/v1/keys", status_code=201)
async def create_key(service: ServiceOf, body: KeyIn) -> NewKeyOut:
    """Create a key. Its text is in this answer alone; the service stores a hash of it."""
    _require_store(service)
    text, key = service.key_store.create(body.role, body.days, body.note)
    return NewKeyOut(key=text, stored=_key_out(key))


@router.delete("/v1/keys/{key_id}")
async def revoke_key(service: ServiceOf, key_id: Annotated[str, Path(max_length=60)]) -> KeyOut:
    """Delete a key: from now on, it is not valid."""
    _require_store(service)
    if key_id not in {key.id for key in service.key_store.entries()}:
        raise ServiceError(404, "there is no such key")
    return _key_out(service.key_store.revoke(key_id))


@router.get("/v1/settings")
async def settings(service: ServiceOf) -> SettingsOut:
    """Return the settings of the service, without paths and passwords."""
    return SettingsOut(settings=public_settings(service.settings))


@router.get("/v1/audit")
async def audit(service: ServiceOf, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> AuditOut:
    """Return the newest lines of the audit log, oldest first."""
    return AuditOut(lines=service.audit.tail(limit))


@router.post("/v1/retention")
async def run_retention(service: ServiceOf, counts: Counts) -> RetentionOut:
    """Remove the records that are older than the retention now, instead of within the hour."""
    report = await service.remove_expired()
    counts["removed"] = report.removed
    return report


def _require_store(service: ServiceOf) -> None:
    if service.settings.state is None:
        raise ServiceError(409, "the service has no folder for keys: start it with --state FOLDER")


def _key_out(key: Key) -> KeyOut:
    return KeyOut(
        id=key.id,
        role=key.role,
        created=key.created.isoformat(),
        expires=None if key.expires is None else key.expires.isoformat(),
        expired=key.is_expired(),
        note=key.note,
    )
