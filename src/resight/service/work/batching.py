"""Micro-batches: sightings of many requests go through the network together."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from resight.service.errors import overloaded

QuerySighting = Mapping[str, Tensor]
"""uint8 [3, H, W] by modality."""
Label = str | None
Embed = Callable[[Sequence[QuerySighting], Sequence[Label], Sequence[Label]], np.ndarray]
"""Sightings, and the camera and view of each, to float32 [N, E]."""
_AT_ONCE: Final = 2  # batches
_PATIENCE: Final = 0.01  # seconds that a batch waits for pictures that are being decoded


def _ignore(image_count: int, seconds: float) -> None:
    pass


@dataclass(frozen=True)
class _Job:
    sightings: Sequence[QuerySighting]
    camera: Label
    view: Label
    future: Future[np.ndarray] = field(default_factory=Future[np.ndarray])

    @property
    def image_count(self) -> int:
        return sum(map(len, self.sightings))


class Batcher:
    """Embeds sightings in batches. While they are computed, the next one collects.

    A batch that is alone is computed by all cores. Where other pictures wait or are decoded, two batches are computed
    at the same time, each by half of the cores: the threads of one network wait for each other after every layer, and
    the other stages need the cores, too.

    A batch that is not full waits for pictures that are being decoded, a few milliseconds at most: a network takes far
    longer for several small batches than for a large one. It never waits for requests that have not arrived.

    Args:
        embed: computes a batch.
        batch_size: pictures in a batch; a request with more is a batch of its own.
        max_queue: pictures that wait.
        observe: is called after each batch with its number of pictures and its seconds.
        cores: threads of torch that compute a network; 1 takes one batch at a time.
    """

    def __init__(
        self,
        embed: Embed,
        batch_size: int,
        max_queue: int,
        observe: Callable[[int, float], None] = _ignore,
        cores: int = 1,
    ) -> None:
        self._embed = embed
        self._batch_size = batch_size
        self._max_queue = max_queue
        self._observe = observe
        self._cores = cores
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._expected = 0
        self._computing = 0  # batches
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"resight-forward-{n}", daemon=True)
            for n in range(min(_AT_ONCE, cores))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return self._waiting

    @property
    def is_running(self) -> bool:
        """Whether sightings are embedded: the threads live, and the batcher is not closed."""
        return all(thread.is_alive() for thread in self._threads) and not self._closed

    @contextmanager
    def expected(self, image_count: int) -> Generator[None]:
        """Announce that so many pictures are being decoded; inside the block, they are submitted."""
        with self._changed:
            self._expected += image_count
        try:
            yield
        finally:
            with self._changed:
                self._expected -= image_count
                if self._is_complete():
                    self._changed.notify_all()

    def submit(
        self, sightings: Sequence[QuerySighting], camera: Label = None, view: Label = None
    ) -> Future[np.ndarray]:
        """Embed sightings of one camera and view; the future gives float32 [N, E], and may be cancelled.

        Raises:
            ServiceError: the queue is full (503), or the service is ending.
        """
        job = _Job(sightings, camera, view)
        with self._changed:
            if self._closed:
                raise overloaded("the service is ending")
            if self._waiting and self._waiting + job.image_count > self._max_queue:
                raise overloaded(f"{self._waiting} pictures wait for the model")
            self._jobs.append(job)
            self._waiting += job.image_count
            if len(self._jobs) == 1 or self._is_complete():
                self._changed.notify_all()
        return job.future

    def close(self) -> None:
        """Embed what is in the queue, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            started = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if started:
                torch.set_num_threads(self._cores_for_batch())  # of this thread
                self._compute(started)
            with self._changed:
                self._computing -= 1

    def _next_batch(self) -> list[_Job]:
        """The oldest jobs, at most `batch_size` pictures together; none when the batcher is closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._changed.wait_for(self._is_complete, _PATIENCE)
                if self._jobs or self._closed:  # the other thread has not taken them meanwhile
                    break
            batch = list[_Job]()
            size = 0
            while self._jobs and (not batch or size + self._jobs[0].image_count <= self._batch_size):
                batch.append(self._jobs.popleft())
                size += batch[-1].image_count
            self._waiting -= size
            self._computing += bool(batch)
            return batch

    def _cores_for_batch(self) -> int:
        """Cores for the next batch: all where there is nothing else to do."""
        with self._changed:
            is_alone = self._computing == 1 and not self._waiting and not self._expected
        return self._cores if is_alone else max(1, self._cores // _AT_ONCE)

    def _is_complete(self) -> bool:
        """Whether no picture would join the next batch if it waited."""
        return self._closed or self._expected == 0 or self._waiting >= self._batch_size

    def _compute(self, batch: list[_Job]) -> None:
        sightings = [sighting for job in batch for sighting in job.sightings]
        cameras = [job.camera for job in batch for _ in job.sightings]
        views = [job.view for job in batch for _ in job.sightings]
        began = time.perf_counter()
        try:
            embeddings = self._embed(sightings, cameras, views)  # float32 [N, E]
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:  # an error of one request must not fail the others
                self._compute([job])
            return
        self._observe(sum(job.image_count for job in batch), time.perf_counter() - began)
        first = 0
        for job in batch:
            job.future.set_result(embeddings[first : first + len(job.sightings)])
            first += len(job.sightings)
