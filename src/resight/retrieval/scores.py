"""How near a query and a gallery item are: the greater, the nearer.

The score of two embeddings is their inner product, added up in float64 and rounded to float32. Equal vectors so have
equal scores wherever they lie, which no float32 matrix product promises; equal scores tie, and ties go to the earlier
gallery row. Embeddings of unit length are ordered as by Euclidean distance.
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
_BLOCK = 32_768  # gallery rows worked on at once


class Scores(Protocol):
    """Scores of Q queries and G gallery items, by slices of the queries."""

    @property
    def shape(self) -> tuple[int, int]:
        """Q, G."""
        ...

    def rows(self, part: slice) -> Tensor:
        """float32 [q, G], on the device that ranks; the caller's own."""
        ...


@dataclass(frozen=True)
class InnerProducts:
    """Scores of embeddings [Q, D] and [G, D], float32 or float16, in memory or memory-mapped."""

    query: np.ndarray
    gallery: np.ndarray
    device: str = "cpu"

    @property
    def shape(self) -> tuple[int, int]:
        """Q, G."""
        return len(self.query), len(self.gallery)

    def rows(self, part: slice) -> Tensor:
        """float32 [q, G], rounded from float64.

        Raises:
            EvaluationError: an embedding is not finite.
        """
        query = self._exact(self.query, part)
        found = torch.empty(len(query), len(self.gallery), device=self.device)
        for block in blocks_of(len(self.gallery)):
            found[:, block] = (query @ self._exact(self.gallery, block).T).float()
        if not bool(found.isfinite().all()):
            raise EvaluationError(_not_finite(self))
        return found

    def _exact(self, x: np.ndarray, part: slice) -> Tensor:
        return torch.from_numpy(np.asarray(x[part], np.float64)).to(self.device)


@dataclass(frozen=True)
class Matrix:
    """Scores that are known already: float32 [Q, G]."""

    scores: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Q, G."""
        return self.scores.shape[0], self.scores.shape[1]

    def rows(self, part: slice) -> Tensor:
        """float32 [q, G]."""
        return torch.tensor(self.scores[part], dtype=torch.float32)


def chunks(queries: int, size: int) -> Iterator[slice]:
    """Slices of the queries whose float32 scores with `size` items fit in 256 MiB."""
    step = max(1, _SCORES_BYTES // (4 * max(1, size)))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def blocks_of(size: int) -> Iterator[slice]:
    """Slices of a gallery that is worked through in order, so that it need not fit in memory."""
    for start in range(0, size, _BLOCK):
        yield slice(start, min(start + _BLOCK, size))


def bits_of(x: np.ndarray) -> np.ndarray:
    """What the kernels take for an array: float32 itself, or the bits of float16."""
    plain = np.asarray(x)
    return plain.view(np.uint16) if plain.dtype == np.float16 else plain


@cache
def compiled() -> bool:
    """Whether numba is here: it follows a new Python late, and ranking then goes on through torch."""
    return find_spec("numba") is not None


def in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Calls work(first, last) for shares of `count` rows, in as many threads as torch uses (numba lets go of the
    lock)."""
    threads = min(torch.get_num_threads(), count)
    edges = np.linspace(0, count, threads + 1).astype(int)
    if threads <= 1:
        return work(0, count) if count else None
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, int(a), int(b)) for a, b in pairwise(edges)]:
            done.result()


def require_finite(scores: InnerProducts, *norms: np.ndarray | np.floating) -> None:
    """Makes sure that no embedding holds NaN or infinity.

    Raises:
        EvaluationError: one does; says which.
    """
    if not all(np.isfinite(n).all() for n in norms):
        raise EvaluationError(_not_finite(scores))


def _not_finite(scores: InnerProducts) -> str:
    for name, x in (("query", scores.query), ("gallery", scores.gallery)):
        for part in blocks_of(len(x)):
            bad = np.flatnonzero(~np.isfinite(np.asarray(x[part], np.float32)).all(1))
            if len(bad):
                return (
                    f"the {name} embedding in row {part.start + bad[0]} is not finite (NaN or infinity); embed it again"
                )
    return "an inner product of these embeddings is not finite in float32; scale them to unit length"
