"""Pages that show a task: its result where that is soon there, else its progress, which ends in the result."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Query

from resight.service.errors import ServiceError
from resight.service.page.render import environment
from resight.service.work.background import Task
from resight.service.work.core import Service

TaskId = Annotated[str | None, Query(max_length=64)]
SOON: Final = 1.0  # seconds that a page waits for the result itself
_POLL: Final = 0.25  # seconds between two looks at a task
_STREAM: Final = 20.0  # seconds, after which the browser connects again: proxies end longer answers


async def current_task(
    service: Service, task_id: str | None, title: str, address: str, function: Callable[[Task], Awaitable[Any]]
) -> Task:
    """Return the task with an id, or a new one, after a moment in which it may end; arguments as `Background.start`."""
    try:
        task = service.background.find(task_id or "")
    except ServiceError:
        task = service.background.start(title, address, function)
    await task.has_ended_within(SOON)
    return task


def result_of(task: Task) -> Any:
    """Return the result of a task that has ended.

    Raises:
        ServiceError: it has failed (422).
    """
    if task.error is not None:
        raise ServiceError(422, task.error)
    return task.result


async def events(service: Service, task: Task) -> AsyncGenerator[str]:
    """Generate the server-sent events of a task: HTML for its progress, then the event `end`.

    The last HTML lets htmx load the page's result. A stream ends after a while, and the browser connects again.
    """
    remaining = min(_STREAM, service.settings.request_seconds / 2)
    before = ""
    while remaining > 0:
        has_ended = task.ended.is_set()  # read once: the task may end while the text is being sent
        is_ending = service.background.is_ending and not has_ended
        text = environment().get_template("progress.html").render(task=task, is_ending=is_ending)
        if text != before:
            yield "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"
        if has_ended or is_ending:
            yield "event: end\ndata: end\n\n"
            return
        before = text
        await task.has_ended_within(_POLL)
        remaining -= _POLL
