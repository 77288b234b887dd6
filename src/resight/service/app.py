"""The application: routes, errors, background work, and the guard in front of them."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from resight import __version__
from resight.service.http.guard import Guard
from resight.service.http.responses import handle_errors
from resight.service.logs import log, where
from resight.service.mcp import create_tools, mcp_application
from resight.service.page.routes import PAGE_ROUTERS
from resight.service.routes import admin, identities, pictures, records, state
from resight.service.work.core import Service
from resight.service.work.retention import EVERY_SECONDS

# A request is compared with one route after the other: those that are used most are first.
ROUTERS = (pictures.router, state.router, records.router, identities.router, admin.router)


def create_app(service: Service) -> FastAPI:
    """Return the application of a service, with its guard; when it ends, it closes the service.

    Args:
        service: is used by this application alone.

    Raises:
        ConfigError: the settings need `mcp`, which is not installed.
    """
    tools = create_tools(service) if service.settings.mcp != "off" else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, service.close)
            if tools is not None:
                await stack.enter_async_context(tools.session_manager.run())
            await asyncio.to_thread(service.pool.warm_up)
            if service.settings.retention_days is not None:
                task = asyncio.create_task(_remove_expired(service))
                stack.callback(task.cancel)
            stack.push_async_callback(service.background.finish)
            yield

    app = FastAPI(
        title="Resight", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
        summary="Search by picture in a gallery of one model's embeddings.",
    )  # fmt: skip
    app.state.service = service
    for router in (*ROUTERS, *PAGE_ROUTERS):
        app.include_router(router)
    if tools is not None:
        app.mount("/", mcp_application(tools))
    handle_errors(app)
    app.add_middleware(Guard, service=service)
    return app


async def _remove_expired(service: Service) -> None:
    """Run the retention once an hour."""
    while True:
        try:
            report = await service.remove_expired()
            log("retention", removed=report.removed, without_date=report.without_date)
        except Exception as error:  # it is tried again in an hour, and must not end
            log("retention failed", logging.ERROR, error=where(error))
        await asyncio.sleep(EVERY_SECONDS)
