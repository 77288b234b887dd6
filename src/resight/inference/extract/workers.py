"""Worker processes of one machine. A worker that dies is replaced, and its task is tried again."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Final

import torch

from resight.errors import ResightError
from resight.inference.extract.tasks import Task, write_shard

MAX_ATTEMPTS: Final = 3
"""Processes that try a shard before the extraction ends with an error."""


class Worker:
    """One process that writes a shard at a time. It ends with this process, however this one ends.

    Args:
        threads: number of threads of torch.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._start()

    def submit(self, task: Task) -> Future[int]:
        """Start a task."""
        try:
            return self._submit(task)
        except BrokenProcessPool:  # it died after its last task
            self.replace()
            return self._submit(task)

    def replace(self) -> None:
        """Use a new process from now on."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._writer.close()
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    def _submit(self, task: Task) -> Future[int]:
        try:
            return self._pool.submit(write_shard, task)
        except (BrokenPipeError, EOFError) as error:  # a new process died before it was told what to do
            failed = Future[int]()
            failed.set_exception(BrokenProcessPool(str(error)))
            return failed

    def _start(self) -> None:
        # Torch is imported once, by a server that each process is a copy of, and not for seconds by each of them.
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._reader, self._writer = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _initialize, (self._reader, self.threads))


def run_in_processes(tasks: Iterator[Task], count: int, log: Callable[[str], None]) -> Generator[int]:
    """Run tasks in processes that divide the cores, and iterate over the numbers of those that are complete.

    Args:
        tasks: are read when a process is free.
        count: of the processes.
        log: is called with a sentence for each process that dies.

    Raises:
        ResightError: a task failed, or `MAX_ATTEMPTS` processes died in one.
    """
    workers = [Worker(max(1, torch.get_num_threads() // count)) for _ in range(count)]
    running: dict[Future[int], tuple[Worker, Task, int]] = {}
    try:
        for worker, task in zip(workers, tasks, strict=False):
            running[worker.submit(task)] = (worker, task, 1)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, task, attempt = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    log(_failure(task, attempt))
                    worker.replace()
                    running[worker.submit(task)] = (worker, task, attempt + 1)
                    continue
                number = future.result()
                following = next(tasks, None)
                if following is not None:
                    running[worker.submit(following)] = (worker, following, 1)
                yield number
    finally:
        for worker in workers:
            worker.close()


def _failure(task: Task, attempt: int) -> str:
    """What is logged; raised as an error after the last attempt."""
    shard = f"shard {task.number} (first image {task.part.first_image})"
    if attempt == MAX_ATTEMPTS:
        raise ResightError(
            f"{attempt} processes in succession died in {shard}, for lack of memory or at an image in it: use fewer "
            "--workers or a smaller --batch-size, and run the same command again to resume"
        )
    return f"a process died in {shard}, which is tried again: attempt {attempt + 1} of {MAX_ATTEMPTS}"


def _initialize(parent: Any, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent answers it
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """End this process when the other end of the pipe is closed, by the parent or by the end of the parent."""
    parent.poll(None)
    os._exit(1)
