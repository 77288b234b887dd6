"""Routes about the service: health, readiness, metrics, documentation, model card and counts."""

from typing import Any

from fastapi import APIRouter, Request, Response

from resight import __version__
from resight.service.errors import overloaded
from resight.service.messages.schemas import StatsOut
from resight.service.messages.schemas_admin import HealthOut, ModelOut, ReadyOut
from resight.service.routes.dependencies import ERRORS, ServiceOf
from resight.service.work.metrics import CONTENT_TYPE

router = APIRouter(tags=["service"], responses=ERRORS)
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {}}, "description": "Metrics in Prometheus' text format."}
}


@router.get("/v1/health")
async def health() -> HealthOut:
    """Answer that the process lives; nothing else is checked."""
    return HealthOut(version=__version__)


@router.get("/v1/ready")
async def ready(service: ServiceOf) -> ReadyOut:
    """Answer whether model and gallery can be used (200), or not now (503)."""
    if not service.is_ready:
        raise overloaded("the service is ending")
    return ReadyOut(records=await service.with_gallery(len))


@router.get("/v1/metrics", response_class=Response, responses=_METRICS)
async def metrics(service: ServiceOf) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/v1/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    return request.app.openapi()


@router.get("/v1/model")
async def model(service: ServiceOf) -> ModelOut:
    """Return the model card, without the identities of its training set."""
    embedder = service.embedder
    card = embedder.card.model_dump(mode="json")
    card["vocabulary"].pop("identities", None)
    calibration = service.calibration
    return ModelOut(
        card=card,
        embedding_id=embedder.embedding_id,
        width=embedder.width,
        modalities=list(embedder.card.vocabulary.modalities),
        calibrated=calibration is not None,
        threshold=None if calibration is None else calibration.threshold,
        compute=embedder.description,
    )


@router.get("/v1/stats")
async def stats(service: ServiceOf) -> StatsOut:
    """Count the records by label."""
    counted = await service.with_reader(lambda gallery: gallery.stats())
    return StatsOut(**{name: getattr(counted, name) for name in StatsOut.model_fields})
