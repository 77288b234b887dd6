"""The layout of an embedding map, in a process of its own: it takes seconds of computation that hold Python's lock."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from resight.report.embedding_map import project
from resight.service.errors import ServiceError

_SECONDS: Final = 300.0  # longest time for one layout
_CONTEXT: Final = get_context("forkserver")


class Layouts:
    """Computes layouts, and remembers the last one for as long as the embeddings are the same."""

    def __init__(self) -> None:
        self._version = ""
        self._positions = np.zeros((0, 2), np.float32)

    async def of(self, ids: list[str], vectors: np.ndarray) -> np.ndarray:
        """Return the positions of embeddings, float32 [N, E]: float32 [N, 2], from 0 to 1.

        Raises:
            ServiceError: the process has ended without a layout, or takes too long (503).
        """
        digest = hashlib.sha256(repr(ids).encode("utf-8", "surrogatepass"))
        digest.update(np.ascontiguousarray(vectors).data)
        version = digest.hexdigest()
        if version != self._version:
            self._positions = await _in_process(project, vectors)
            self._version = version
        return self._positions


async def _in_process(function: Callable[[np.ndarray], np.ndarray], vectors: np.ndarray) -> np.ndarray:
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_run, args=(theirs, function), daemon=True, name="resight-map")
    process.start()
    theirs.close()

    def exchange() -> Any:
        try:
            ours.send(vectors)
            return ours.recv() if ours.poll(_SECONDS) else None
        except (EOFError, OSError):
            return None

    executor = ThreadPoolExecutor(1, "resight-map")  # ends at once where the process is killed
    try:
        positions = await asyncio.get_running_loop().run_in_executor(executor, exchange)
    finally:
        process.kill()
        await asyncio.to_thread(process.join)
        executor.shutdown()
        ours.close()
    if positions is None:
        raise ServiceError(503, "the map could not be computed: its process has ended, or took too long")
    return positions


def _run(connection: Connection, function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Send what the function makes of the embeddings that arrive."""
    connection.send(function(connection.recv()))
