"""Re-ranking by k-reciprocal neighbours (Zhong et al. 2017).

Two images are close when their sets of mutual neighbours overlap. Only the k nearest neighbours of each image and
sparse sets of them are stored, so memory is O(N k) for N = Q + G; re-ranked distances are computed for a few queries
at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from resight.errors import EvaluationError
from resight.retrieval.neighbors import nearest
from resight.retrieval.scores import InnerProducts, compiled, in_threads

if TYPE_CHECKING:  # 0.4 s to import, and every evaluation and gallery imports this module
    from scipy import sparse


@dataclass(frozen=True)
class Reranked:
    """Scores by re-ranked distances: their negative, so that the greater score is the nearer item."""

    original: InnerProducts
    largest: np.ndarray
    """float32 [Q]: the greatest distance of each query, which distances are divided by."""
    query_sets: sparse.csr_array
    """float32 [Q, N], sparse: each query's set of neighbours; its weights sum to 1."""
    gallery_index: sparse.csc_array
    """float32 [G, N], sparse, by column: the gallery items whose sets contain each image."""
    weight: float
    as_reference: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return self.original.shape

    def rows(self, part: slice) -> Tensor:
        """Compute the negative of weight x original + (1 - weight) x Jaccard distances (equations 10 and 12).

        Returns:
            float32 [q, G], on the CPU, where rankings are counted, whatever device the products were computed on.
        """
        from resight.retrieval.kernels import reciprocal

        scores = self.original.rows(part).cpu().numpy()  # [q, G]
        part_sets = self.query_sets[part]
        index = self.gallery_index
        sets = (
            reciprocal.SparseRows(part_sets.indptr, part_sets.indices, part_sets.data),
            reciprocal.SparseRows(index.indptr, index.indices, index.data),
        )
        settings = (self.largest[part], self.weight, self.as_reference)
        in_threads(lambda a, b: reciprocal.rerank_rows(scores, *sets, *settings, a, b), len(scores))
        return torch.from_numpy(scores)


def rerank(
    scores: InnerProducts, k1: int = 20, k2: int = 6, weight: float = 0.3, as_reference: bool = False
) -> Reranked:
    """Re-rank by the neighbours that queries and gallery items have in common.

    Args:
        scores: of embeddings of unit length, [Q, D] and [G, D]; distances are squared Euclidean ones.
        k1: number of neighbours that can be mutual.
        k2: number of neighbours whose sets are averaged; 1 for none.
        weight: the paper's lambda, the weight of the original distance.
        as_reference: whether weights are summed in float16, as in the reference; without it, distances differ from the
            reference's by up to 5e-3 on the golden numbers, and by up to 6.4e-3 elsewhere at (k1, k2) = (50, 15).

    Raises:
        EvaluationError: numba is not installed; or an embedding is not finite.
    """
    from scipy import sparse

    if not compiled():
        raise EvaluationError("re-ranking needs numba, which is not installed in this Python: pip install numba")
    # Find the nearest neighbours of every image among all: [N, max(k1 + 1, k2)].
    x = np.concatenate([np.asarray(scores.query, np.float32), np.asarray(scores.gallery, np.float32)])  # [N, D]
    k1 = min(k1, len(x) - 1)
    k2 = min(k2, len(x))
    neighbours = nearest(InnerProducts(x, x, scores.device), max(k1 + 1, k2))
    neighbour_rows = neighbours.rows.astype(np.int32)
    largest = np.maximum(2 - 2 * neighbours.lowest, 1e-12)  # [N]

    # Build each image's weighted set of mutual neighbours: sparse [N, N], rows sum to 1.
    sets = _weighted_sets(x, largest, neighbour_rows, k1)

    # Average the sets of each image's k2 nearest (equation 11): sparse [N, N].
    if k2 > 1:
        image = np.arange(len(x), dtype=np.int32).repeat(k2)
        weights = np.full(len(image), 1 / k2, np.float32)
        mean = sparse.csr_array((weights, (image, neighbour_rows[:, :k2].ravel())), sets.shape)
        sets = sparse.csr_array(mean @ sets)
    sets.sort_indices()

    # Divide the sets into the queries' and an inverted index of the gallery's.
    queries = len(scores.query)
    query_sets = sparse.csr_array(sets[:queries])
    gallery_index = sparse.csc_array(sets[queries:])
    return Reranked(scores, largest[:queries], query_sets, gallery_index, weight, as_reference)


def _weighted_sets(x: np.ndarray, largest: np.ndarray, neighbour_rows: np.ndarray, k1: int) -> sparse.csr_array:
    """Build the expanded sets of mutual neighbours, weighted by distance (equations 3, 5 and 7): sparse [N, N]."""
    from scipy import sparse

    from resight.retrieval.kernels import reciprocal

    # Find mutual neighbours among k1 and among k1 / 2: int32 [N, k + 1].
    size = len(x)
    full_sets = np.empty((size, k1 + 1), np.int32)
    half_sets = np.empty((size, int(np.around(k1 / 2)) + 1), np.int32)
    in_threads(lambda a, b: reciprocal.mutual(neighbour_rows, full_sets, a, b), size)
    in_threads(lambda a, b: reciprocal.mutual(neighbour_rows, half_sets, a, b), size)

    # Count the members of the expanded sets, then write them: int32 [entries].
    counts = np.zeros(size, np.int64)
    no_members = np.empty(0, np.int32)
    in_threads(lambda a, b: reciprocal.expand(full_sets, half_sets, counts, no_members, a, b), size)
    start = np.concatenate([[0], np.cumsum(counts)])  # [N + 1]
    members = np.empty(start[-1], np.int32)
    in_threads(lambda a, b: reciprocal.expand(full_sets, half_sets, start, members, a, b), size)

    # Weigh the members: float32 [entries].
    weights = np.empty(start[-1], np.float32)
    in_threads(lambda a, b: reciprocal.weigh(x, largest, start, members, weights, a, b), size)
    return sparse.csr_array((weights, members, start), (size, size))
