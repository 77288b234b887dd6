"""Searches that wait for the gallery and have the same options are made as one."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from resight.gallery.answers import Answer, SearchOptions
from resight.gallery.gallery import Gallery
from resight.service.errors import overloaded
from resight.service.work.gallery_threads import GalleryThread

Answers = list[list[Answer]]
_MAX_QUERIES: Final = 64  # queries in one search
_MAX_WAITING: Final = 512  # searches


@dataclass(frozen=True)
class _Search:
    vectors: np.ndarray
    modalities: Sequence[str | None]
    future: Future[Answers] = field(default_factory=Future[Answers])


class Searches:
    """Searches a gallery with the queries of many requests at once.

    Args:
        thread: of the gallery.
    """

    def __init__(self, thread: GalleryThread) -> None:
        self._thread = thread
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Search]] = {}

    def submit(self, vectors: np.ndarray, options: SearchOptions, modalities: Sequence[str | None]) -> Future[Answers]:
        """Search with embeddings, float32 [Q, E], and the modalities of each; the future may be cancelled.

        Raises:
            ServiceError: too many searches wait (503).
        """
        search = _Search(vectors, modalities)
        key = repr(options)  # a filter has a mapping, which cannot be a key; equal texts have equal options
        with self._lock:
            if sum(map(len, self._waiting.values())) >= _MAX_WAITING:
                raise overloaded("too many requests wait for the gallery")
            waiting = self._waiting.get(key)
            if waiting is None:
                self._thread.submit(lambda gallery: self._run(gallery, key, options))
                waiting = self._waiting.setdefault(key, [])
            waiting.append(search)
        return search.future

    def _run(self, gallery: Gallery, key: str, options: SearchOptions) -> None:
        """Make the searches that wait with some options; later ones wait for the next call."""
        with self._lock:
            waiting = self._waiting.pop(key)
        started = [search for search in waiting if search.future.set_running_or_notify_cancel()]
        batch = list[_Search]()
        for search in started:
            if batch and sum(len(other.vectors) for other in (*batch, search)) > _MAX_QUERIES:
                _search(gallery, batch, options)
                batch = []
            batch.append(search)
        if batch:
            _search(gallery, batch, options)


def _search(gallery: Gallery, batch: Sequence[_Search], options: SearchOptions) -> None:
    vectors = np.concatenate([search.vectors for search in batch])  # [Q, E]
    modalities = [modality for search in batch for modality in search.modalities]
    exclude = tuple(options.exclude)
    try:
        answers = gallery.search(
            vectors, options.k, options.where, options.group, options.rerank, modality=modalities, exclude=exclude
        )
    except Exception as error:
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        for search in batch:  # an error of one request must not fail the others
            _search(gallery, [search], options)
        return
    first = 0
    for search in batch:
        search.future.set_result(answers[first : first + len(search.vectors)])
        first += len(search.vectors)
