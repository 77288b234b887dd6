"""A pool of processes that decode pictures. A process that dies or takes too long is replaced."""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from typing import Any, Final

from resight.config.sections import Preprocessing
from resight.errors import ConfigError
from resight.service.errors import overloaded
from resight.service.work.decode_worker import DecodeFailure, DecodeResult, DecodeTask, run_worker

SECONDS: Final = 10.0
"""Longest time for the pictures of one request."""
_START_SECONDS: Final = 120.0  # to import torch on a machine that is busy
_ATTEMPTS: Final = 2  # processes that try a task: the first one may have been ended by something else
_MAX_GROUP: Final = 8  # tasks that are sent to a process at once: a message takes as long as to decode a small picture
_MAX_GROUP_BYTES: Final = 1 << 18  # of files; larger ones are sent alone
_CONTEXT: Final = get_context("forkserver")  # a process that replaces another starts at once, and inherits no thread


def start_server() -> None:
    """Start the process that all decoding processes are copies of, which imports torch meanwhile; return at once."""
    _CONTEXT.set_forkserver_preload(["resight.service.work.decode_worker"])
    ensure_running()


class _Worker:
    """One process and the connection to it."""

    def __init__(self, preprocessing: Preprocessing, max_megapixels: float) -> None:
        pipe: Any = _CONTEXT.Pipe()
        self.connection: Connection = pipe[0]
        arguments = (pipe[1], preprocessing, max_megapixels)
        self.process = _CONTEXT.Process(target=run_worker, args=arguments, daemon=True, name="resight-decoder")
        self.process.start()
        pipe[1].close()

    def decode(self, tasks: Sequence[DecodeTask], seconds: float) -> list[DecodeResult] | None:
        """The results; None where the process has died, or takes longer than some seconds."""
        try:
            self.connection.send(tasks)
            return self.connection.recv() if self.connection.poll(seconds) else None
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        self.connection.close()
        self.process.join(0.2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@dataclass(frozen=True)
class _Job:
    task: DecodeTask
    future: Future[DecodeResult] = field(default_factory=Future[DecodeResult])

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(map(len, self.task.encoded))


class DecodePool:
    """Decodes the pictures of requests in several processes.

    Args:
        preprocessing: of the model; pictures are resized as it says.
        processes: number of processes.
        max_megapixels: a larger picture is refused.
        max_tasks: requests that wait for a process.
        seconds: longest time for one request; then its process is replaced.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        processes: int,
        max_megapixels: float = 25.0,
        max_tasks: int = 256,
        seconds: float = SECONDS,
    ) -> None:
        self.replaced = 0
        """Processes that died or took too long, since the start."""
        self._arguments = (preprocessing, max_megapixels)
        self._seconds = seconds
        self._tasks: queue.Queue[_Job | None] = queue.Queue(max_tasks)
        start_server()
        self._workers = [_Worker(*self._arguments) for _ in range(processes)]
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(processes)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Tasks that no process has taken yet."""
        return self._tasks.qsize()

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that decode now."""
        return [worker.process.pid or 0 for worker in self._workers]

    def submit(self, task: DecodeTask) -> Future[DecodeResult]:
        """Decode the pictures of a request when a process is free; the future may be cancelled until then.

        Raises:
            ServiceError: too many requests wait already (503).
        """
        job = _Job(task)
        try:
            self._tasks.put_nowait(job)
        except queue.Full:
            raise overloaded("too many pictures wait to be decoded") from None
        return job.future

    def warm_up(self) -> None:
        """Wait until every process has started, so that the first request does not.

        Raises:
            ConfigError: one cannot start.
        """
        deadline = time.monotonic() + _START_SECONDS
        pending = [self.submit(DecodeTask((), False)) for _ in self._workers]
        for future in pending:
            if isinstance(future.result(max(0.0, deadline - time.monotonic())), DecodeFailure):
                raise ConfigError("the processes that decode pictures cannot start; the lines above say why")

    def close(self) -> None:
        """Decode what waits, then end the processes."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.end()

    def _run(self, number: int) -> None:
        """Hand tasks to one process, until there is None in the place of a task."""
        jobs: list[_Job | None] = []
        while None not in jobs:
            jobs = self._next_jobs()
            started = [job for job in jobs if job is not None and job.future.set_running_or_notify_cancel()]
            if not started:
                continue
            try:
                for job, result in zip(started, self._decode(number, [job.task for job in started]), strict=True):
                    job.future.set_result(result)
            except Exception as error:
                for job in started:
                    if not job.future.done():
                        job.future.set_exception(error)

    def _next_jobs(self) -> list[_Job | None]:
        """The oldest task; with it, this process's share of those that wait, if their files are small."""
        job = self._tasks.get()
        jobs = [job]
        count = min(_MAX_GROUP, 1 + self._tasks.qsize() // len(self._workers))
        size = 0
        while (
            job is not None and job.task.encoded and len(jobs) < count and (size := size + job.size) < _MAX_GROUP_BYTES
        ):
            try:
                job = self._tasks.get_nowait()
            except queue.Empty:
                break
            jobs.append(job)
        return jobs

    def _decode(self, number: int, tasks: Sequence[DecodeTask]) -> list[DecodeResult]:
        if len(tasks) == 1:
            return [self._decode_alone(number, tasks[0])]
        results = self._workers[number].decode(tasks, self._seconds)
        if results is not None:
            return results
        self._replace(number)  # one of them has ended or stopped the process, and must not fail the others
        return [self._decode_alone(number, task) for task in tasks]

    def _decode_alone(self, number: int, task: DecodeTask) -> DecodeResult:
        for _ in range(_ATTEMPTS):
            seconds = self._seconds if task.encoded else _START_SECONDS
            began = time.monotonic()
            results = self._workers[number].decode([task], seconds)
            if results is not None:
                return results[0]
            too_slow = time.monotonic() - began >= seconds
            self._replace(number)
            if too_slow:
                return DecodeFailure(0, f"the pictures took longer than {self._seconds:g} seconds to decode")
        return DecodeFailure(0, "the pictures cannot be decoded: the process that tried to has ended twice")

    def _replace(self, number: int) -> None:
        self._workers[number].end()
        self._workers[number] = _Worker(*self._arguments)
        self.replaced += 1
