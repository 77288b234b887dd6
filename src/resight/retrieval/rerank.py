"""Re-ranking by k-reciprocal neighbours (Zhong et al. 2017).

Two pictures are close when their sets of mutual neighbours overlap. Only the k nearest neighbours of each picture and
sparse sets of them are kept, so memory is O(N k) for N = Q + G; re-ranked distances are worked out for a few queries at
a time.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from resight.errors import EvaluationError
from resight.retrieval.neighbors import nearest
from resight.retrieval.scores import InnerProducts, compiled, in_threads


@dataclass(frozen=True)
class Reranked:
    """Scores by re-ranked distances: their negative, so that the greater is the nearer."""

    original: InnerProducts
    largest: np.ndarray
    """float32 [Q]: the greatest distance of each query, which distances are divided by."""
    asked: sparse.csr_array
    """float32 [Q, N], sparse: each query's set of neighbours; weights add up to 1."""
    holders: sparse.csc_array
    """float32 [G, N], sparse, by column: the gallery items in whose sets each picture is."""
    weight: float
    as_reference: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Q, G."""
        return self.original.shape

    def rows(self, part: slice) -> Tensor:
        """float32 [q, G]: the negative of weight x original + (1 - weight) x Jaccard distances (equations 10 and
        12)."""
        from resight.retrieval.kernels import reciprocal

        original, some, held = self.original.rows(part).cpu().numpy(), self.asked[part], self.holders
        sets = (some.indptr, some.indices, some.data, held.indptr, held.indices, held.data)
        settings = (self.largest[part], self.weight, self.as_reference)
        in_threads(lambda a, b: reciprocal.rerank_rows(original, *sets, *settings, a, b), len(original))
        return torch.from_numpy(original)  # on the CPU, where these are counted, wherever the products were made


def rerank(
    scores: InnerProducts, k1: int = 20, k2: int = 6, weight: float = 0.3, as_reference: bool = False
) -> Reranked:
    """Re-ranks by the neighbours that queries and gallery have in common.

    Args:
        scores: of embeddings of unit length, [Q, D] and [G, D]; distances are squared Euclidean ones.
        k1: neighbours that can be mutual.
        k2: neighbours whose sets are averaged; 1 for none.
        weight: the paper's lambda, of the original distance.
        as_reference: add shared weights up in float16, as the reference does, which moves distances by up to 5e-3.

    Raises:
        EvaluationError: numba, which it needs, is not installed; or an embedding is not finite.
    """
    if not compiled():
        raise EvaluationError("re-ranking needs numba, which this Python lacks: pip install numba")
    x = np.concatenate([np.asarray(scores.query, np.float32), np.asarray(scores.gallery, np.float32)])
    k1, k2 = min(k1, len(x) - 1), min(k2, len(x))
    found = nearest(InnerProducts(x, x, scores.device), max(k1 + 1, k2))
    near, largest = found.rows.astype(np.int32), np.maximum(2 - 2 * found.least, 1e-12)
    sets = _weighted(x, largest, near, k1)  # [N, N], rows add up to 1
    if k2 > 1:  # equation 11
        each = np.arange(len(x), dtype=np.int32).repeat(k2)
        mean = sparse.csr_array((np.full(len(each), 1 / k2, np.float32), (each, near[:, :k2].ravel())), sets.shape)
        sets = sparse.csr_array(mean @ sets)
    sets.sort_indices()
    cut = len(scores.query)
    asked, searched = sparse.csr_array(sets[:cut]), sparse.csc_array(sets[cut:])
    return Reranked(scores, largest[:cut], asked, searched, weight, as_reference)


def _weighted(x: np.ndarray, largest: np.ndarray, near: np.ndarray, k1: int) -> sparse.csr_array:
    """Each row's expanded set of mutual neighbours, weighted by their nearness (equations 3, 5 and 7)."""
    from resight.retrieval.kernels import reciprocal

    half = int(np.around(k1 / 2))
    mutual, halves = (np.empty((len(x), k + 1), np.int32) for k in (k1, half))
    in_threads(lambda a, b: reciprocal.mutual(near, mutual, a, b), len(x))
    in_threads(lambda a, b: reciprocal.mutual(near, halves, a, b), len(x))
    counts, nothing = np.zeros(len(x), np.int64), np.empty(0, np.int32)
    in_threads(lambda a, b: reciprocal.expand(mutual, halves, counts, nothing, a, b), len(x))
    start = np.concatenate([[0], np.cumsum(counts)])
    members, weights = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    in_threads(lambda a, b: reciprocal.expand(mutual, halves, start, members, a, b), len(x))
    in_threads(lambda a, b: reciprocal.weigh(x, largest, start, members, weights, a, b), len(x))
    return sparse.csr_array((weights, members, start), (len(x), len(x)))
