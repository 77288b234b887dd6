"""The gallery's threads: one thread at a time uses an open gallery, whose transactions belong to its connection.

Searches and changes have one thread and one connection; what reads all records (lists, counts, clusters) has others, so
that searches do not wait for it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from resight.gallery.gallery import Gallery
from resight.service.errors import overloaded

T = TypeVar("T")
_MAX_WAITING: Final = 512


class GalleryThread:
    """One open gallery and its thread.

    Args:
        gallery: is used by this thread alone from now on.
        max_waiting: calls that wait.
    """

    def __init__(self, gallery: Gallery, max_waiting: int = _MAX_WAITING) -> None:
        self._gallery = gallery
        self._max_waiting = max_waiting
        self._waiting = 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, "resight-gallery")

    @property
    def waiting(self) -> int:
        """Calls that have not ended."""
        return self._waiting

    def submit(self, function: Callable[[Gallery], T]) -> Future[T]:
        """Call a function with the gallery when the calls before it have ended.

        Raises:
            ServiceError: too many calls wait (503).
        """
        with self._lock:
            if self._waiting >= self._max_waiting:
                raise overloaded("too many requests wait for the gallery")
            self._waiting += 1
        future = self._executor.submit(function, self._gallery)
        future.add_done_callback(self._ended)
        return future

    def close(self) -> None:
        """Make the calls that wait, then close the gallery."""
        self._executor.shutdown(wait=True)
        self._gallery.close()

    def _ended(self, future: Future[T]) -> None:
        with self._lock:
            self._waiting -= 1
