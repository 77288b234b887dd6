"""The progress of a task: a page for those that have no page of their own, and server-sent events for all."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from resight.service.page.progress import events, result_of
from resight.service.page.render import page
from resight.service.routes.dependencies import ServiceOf

router = APIRouter(include_in_schema=False)
TaskId = Annotated[str, Path(max_length=64)]


@router.get("/tasks/{task_id}")
async def task_page(request: Request, service: ServiceOf, task_id: TaskId) -> HTMLResponse:
    """Show the progress of adding pictures, and then what was added."""
    task = service.background.find(task_id)
    if task.ended.is_set():
        return await page(request, "added.html", added=result_of(task))
    return await page(request, "task.html", task=task)


@router.get("/tasks/{task_id}/events")
async def task_events(service: ServiceOf, task_id: TaskId) -> StreamingResponse:
    """Stream the progress of a task."""
    task = service.background.find(task_id)
    headers = {"X-Accel-Buffering": "no"}  # proxies pass each event on at once
    return StreamingResponse(events(service, task), media_type="text/event-stream", headers=headers)
