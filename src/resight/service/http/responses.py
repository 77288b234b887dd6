"""Errors of the application as answers: one sentence and the id of the request."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from resight.errors import ConfigError, PictureError, ResightError
from resight.service.errors import RETRY_SECONDS, ServiceError
from resight.service.logs import LOGGER, log, where
from resight.service.messages.types import Problem
from resight.service.page.problems import problem_page, wants_page

_PROBLEMS = 5  # that a message lists


def problem(scope: Scope, status: int, detail: str, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to a request that is refused: JSON, or a page where a browser requests one."""
    if wants_page(scope):
        answer = problem_page(scope, status, detail, request_id)
        answer.headers.update(headers or {})
        return answer
    return JSONResponse(Problem(detail=detail, request=request_id).model_dump(), status, headers)


def handle_errors(app: FastAPI) -> None:
    """Make one-sentence answers of the errors of routes."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return problem(request.scope, error.status, error.reason, _id(request), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(request.scope, 422, explain(list(error.errors())), _id(request))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(request.scope, error.status_code, str(error.detail), _id(request), dict(error.headers or {}))

    async def of_resight(request: Request, error: Exception) -> Response:
        if isinstance(error, ConfigError | PictureError):
            return problem(request.scope, 422, str(error), _id(request))
        log("gallery failed", logging.ERROR, request=_id(request), error=where(error))
        detail = "the gallery cannot answer now; the service's log says more"
        return problem(request.scope, 503, detail, _id(request), {"Retry-After": str(RETRY_SECONDS)})

    async def unexpected(request: Request, error: Exception) -> Response:
        LOGGER.error("unexpected error", exc_info=error, extra={"fields": {"request": _id(request)}})
        return problem(request.scope, 500, "the service has a fault; its log says where", _id(request))

    app.add_exception_handler(ServiceError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(ResightError, of_resight)
    app.add_exception_handler(Exception, unexpected)


def explain(errors: list[Any]) -> str:
    """Return one sentence for the errors of pydantic; the values themselves are not repeated."""
    problems = [f"{_place(error)}: {error['msg'].removeprefix('Value error, ')}" for error in errors]
    more = f"; and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
    return "; ".join(problems[:_PROBLEMS]) + more


def _place(error: Any) -> str:
    return ".".join(str(part)[:60] for part in error["loc"][1:]) or str(error["loc"][0])


def _id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))
