"""Files of the page: style sheet, scripts and small pictures."""

from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from resight.service.errors import ServiceError
from resight.service.messages.types import Text
from resight.service.page.render import FOLDER
from resight.service.routes.dependencies import ServiceOf
from resight.service.work.record_ids import find_record

router = APIRouter(include_in_schema=False)
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}
_FILES: Final = {file.name: file for file in (FOLDER / "static").iterdir() if file.suffix in _TYPES}


@router.get("/static/{name}")
async def static_file(name: str) -> Response:
    """Return a file of the page; the addresses in pages carry the version, so that it can be cached."""
    if name not in _FILES:
        raise ServiceError(404, "there is no such file")
    file = _FILES[name]
    return FileResponse(file, media_type=_TYPES[file.suffix], headers={"Cache-Control": "public, max-age=86400"})


@router.get("/thumbnail")
async def thumbnail(service: ServiceOf, record_id: Annotated[Text, Query(alias="id")]) -> Response:
    """Return the small picture of a record."""
    record = await service.with_gallery(lambda gallery: find_record(gallery, record_id))
    if record.thumbnail is None:
        raise ServiceError(404, "the record has no thumbnail")
    return Response(record.thumbnail, media_type="image/jpeg", headers={"Cache-Control": "private, no-store"})
