"""Tasks that continue after a request is answered, their progress, and explanations, a few of which may wait.

A task is a coroutine of the server's event loop. Tasks that read the whole gallery have a thread and a connection of
their own, so that no search and no page waits for them.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from resight.errors import ConfigError
from resight.gallery.gallery import Gallery
from resight.service.errors import ServiceError, overloaded
from resight.service.logs import log, where
from resight.service.work.gallery_threads import GalleryThread
from resight.service.work.layout import Layouts

T = TypeVar("T")
_MAX_RUNNING: Final = 4
_MAX_ENDED: Final = 8  # tasks whose results are remembered
_MAX_EXPLANATIONS: Final = 4


class Task:
    """One task, and what is known of it.

    Args:
        title: what it does, for people.
        address: of the page that shows its progress, and then its result; `{task}` stands for its id.
        must_finish: whether the service ends after it, rather than ending it.
    """

    def __init__(self, title: str, address: str, must_finish: bool) -> None:
        self.id = secrets.token_urlsafe(12)
        self.title = title
        self.address = address.replace("{task}", self.id)
        self.must_finish = must_finish
        self.stage = ""
        self.completed = 0
        self.total: int | None = None
        self.result: Any = None
        self.error: str | None = None
        """Why it failed, in one sentence."""
        self.ended = asyncio.Event()
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def report(self, stage: str, completed: int = 0, total: int | None = None) -> None:
        """Say what is being done, and how many of its steps are completed; may be called by any thread."""
        self.stage = stage
        self.completed = completed
        self.total = total

    async def has_ended_within(self, seconds: float) -> bool:
        """Wait for the end, at most some seconds; return whether it has ended."""
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Background:
    """The tasks of a service.

    Args:
        gallery: is used by tasks alone.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.is_ending = False
        self.layouts = Layouts()
        self._thread = GalleryThread(gallery)
        self._tasks: dict[str, Task] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._explanations = 0

    def start(
        self, title: str, address: str, function: Callable[[Task], Awaitable[Any]], must_finish: bool = False
    ) -> Task:
        """Start a task, whose result is what the function returns; as `Task`.

        Raises:
            ServiceError: too many tasks run, or the service is ending (503).
        """
        if self.is_ending or len(self._running) >= _MAX_RUNNING:
            raise overloaded("the service is ending" if self.is_ending else f"{_MAX_RUNNING} tasks run already")
        task = Task(title, address, must_finish)
        ended = [name for name in self._tasks if name not in self._running]
        for name in ended[: max(0, len(ended) - _MAX_ENDED + 1)]:
            del self._tasks[name]
        self._tasks[task.id] = task
        self._running[task.id] = asyncio.create_task(self._run(task, function))
        return task

    def find(self, task_id: str) -> Task:
        """Return a task that runs, or has ended not long ago.

        Raises:
            ServiceError: there is none with this id (404).
        """
        if task_id not in self._tasks:
            raise ServiceError(404, "there is no such task, or it has ended long ago")
        return self._tasks[task_id]

    async def with_gallery(self, function: Callable[[Gallery], T]) -> T:
        """Call a function that reads many records in the tasks' own thread."""
        return await asyncio.wrap_future(self._thread.submit(function))

    async def explain(self, function: Callable[[], T]) -> T:
        """Call a function that computes an explanation, in a thread.

        Raises:
            ServiceError: too many explanations are being computed (503).
        """
        if self._explanations >= _MAX_EXPLANATIONS:
            raise overloaded("too many explanations are being computed")
        self._explanations += 1
        try:
            return await asyncio.to_thread(function)
        finally:
            self._explanations -= 1

    def end_streams(self) -> None:
        """Accept no more tasks, and let the streams of their progress end, so that the server can end."""
        self.is_ending = True

    async def finish(self) -> None:
        """Wait for the tasks that must finish, and end the others."""
        self.end_streams()
        for name, running in self._running.items():
            if not self._tasks[name].must_finish:
                running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def close(self) -> None:
        """Close the gallery of the tasks."""
        self._thread.close()

    async def _run(self, task: Task, function: Callable[[Task], Awaitable[Any]]) -> None:
        try:
            task.result = await function(task)
        except ServiceError as error:
            task.error = error.reason
        except ConfigError as error:
            task.error = str(error)
        except asyncio.CancelledError:
            task.error = "the service is ending"
            raise
        except Exception as error:
            log("task failed", logging.ERROR, error=where(error))
            task.error = "the service has a fault; its log says where"
        finally:
            task.ended.set()
            del self._running[task.id]
