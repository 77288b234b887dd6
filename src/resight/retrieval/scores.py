"""The similarity of a query and a gallery item: the greater the score, the nearer the item.

The score of two embeddings is their inner product, summed in float64 and rounded to float32. Equal vectors therefore
have equal scores in any row, which a float32 matrix product does not guarantee. Equal scores tie, and ties go to the
earlier gallery row. Embeddings of unit length are ordered as by Euclidean distance.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from resight.errors import EvaluationError

_SCORES_BYTES = 256 << 20
_BLOCK = 32_768  # gallery rows in one block


class Scores(Protocol):
    """Scores of Q queries and G gallery items, by slices of the queries."""

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        ...

    def rows(self, part: slice) -> Tensor:
        """Return the scores of some queries: float32 [q, G], a new tensor on the device that ranks."""
        ...


@dataclass(frozen=True)
class InnerProducts:
    """Scores of embeddings [Q, D] and [G, D], float32 or float16, in memory or memory-mapped."""

    query: np.ndarray
    gallery: np.ndarray
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return len(self.query), len(self.gallery)

    def rows(self, part: slice) -> Tensor:
        """Compute the scores of some queries: float32 [q, G], rounded from float64.

        Raises:
            EvaluationError: an embedding is not finite.
        """
        query = self._exact(self.query, part)
        scores = torch.empty(len(query), len(self.gallery), device=self.device)
        for block in blocks_of(len(self.gallery)):
            scores[:, block] = (query @ self._exact(self.gallery, block).T).float()
        if not bool(scores.isfinite().all()):
            raise EvaluationError(_not_finite(self))
        return scores

    def _exact(self, x: np.ndarray, part: slice) -> Tensor:
        return torch.from_numpy(np.asarray(x[part], np.float64)).to(self.device)


@dataclass(frozen=True)
class Matrix:
    """Scores that were computed before: float32 [Q, G]."""

    scores: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return self.scores.shape[0], self.scores.shape[1]

    def rows(self, part: slice) -> Tensor:
        """Return the scores of some queries: float32 [q, G]."""
        return torch.tensor(self.scores[part], dtype=torch.float32)


def chunks(queries: int, size: int) -> Iterator[slice]:
    """Yield slices of the queries whose float32 scores with `size` gallery items fit in 256 MiB."""
    step = max(1, _SCORES_BYTES // (4 * max(1, size)))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def blocks_of(size: int) -> Iterator[slice]:
    """Yield slices of a gallery of `size` rows, in order, so that it need not fit in memory."""
    for start in range(0, size, _BLOCK):
        yield slice(start, min(start + _BLOCK, size))


def bits_of(x: np.ndarray) -> np.ndarray:
    """Return the array as the kernels take it: float32 unchanged, float16 as its bits (uint16)."""
    array = np.asarray(x)
    return array.view(np.uint16) if array.dtype == np.float16 else array


@cache
def compiled() -> bool:
    """Return whether numba is installed; without it (it supports a new Python late) ranking uses torch."""
    return find_spec("numba") is not None


def in_threads(task: Callable[[int, int], None], count: int) -> None:
    """Call task(first, last) for consecutive slices of `count` rows, in as many threads as torch uses.

    The tasks are numba kernels, which release Python's lock.
    """
    threads = min(torch.get_num_threads(), count)
    edges = np.linspace(0, count, threads + 1).astype(int)
    if threads <= 1:
        return task(0, count) if count else None
    with ThreadPoolExecutor(threads) as executor:
        for future in [executor.submit(task, int(first), int(last)) for first, last in pairwise(edges)]:
            future.result()


def require_finite(scores: InnerProducts, *norms: np.ndarray | np.floating) -> None:
    """Check by `norms`, lengths or sums over all components, that no embedding contains NaN or infinity.

    Raises:
        EvaluationError: an embedding does; names its row.
    """
    if not all(np.isfinite(norm).all() for norm in norms):
        raise EvaluationError(_not_finite(scores))


def _not_finite(scores: InnerProducts) -> str:
    for name, x in (("query", scores.query), ("gallery", scores.gallery)):
        for part in blocks_of(len(x)):
            rows = np.flatnonzero(~np.isfinite(np.asarray(x[part], np.float32)).all(1))
            if len(rows):
                row = part.start + rows[0]
                return f"the {name} embedding in row {row} is not finite (NaN or infinity); embed it again"
    return "an inner product of these embeddings is not finite in float32; scale them to unit length"
