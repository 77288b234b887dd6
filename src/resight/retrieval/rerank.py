"""Re-ranking by k-reciprocal neighbours (Zhong et al. 2017).

Two pictures are close when their sets of mutual neighbours overlap. Only the k nearest neighbours of each picture and
sparse sets are kept, so memory is O(N k) for N = Q + G, and [Q, G] for the distances that come out.
"""

import numpy as np
from scipy import sparse

_CHUNK_BYTES = 64 << 20


def rerank(
    query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3, sums: type = np.float32
) -> np.ndarray:
    """Re-ranked distances: `weight` x the original ones + (1 - `weight`) x the Jaccard distances of the sets.

    Args:
        query: float32 [Q, D].
        gallery: float32 [G, D].
        k1: neighbours that can be mutual.
        k2: neighbours whose sets are averaged; 1 for none.
        weight: the paper's lambda.
        sums: what shared weights are added up in. The reference uses float16, whose rounding moves its distances by up
            to 5e-3; `np.float16` repeats that.

    Returns:
        float32 [Q, G]; smaller is nearer. Original distances are squared Euclidean, over each row's largest.
    """
    x = np.concatenate([query, gallery]).astype(np.float32)
    k1 = min(k1, len(x) - 1)
    nearest, largest = _neighbours(x, max(k1 + 1, k2))
    sets = _encode(x, largest, _expanded(nearest, k1))  # sparse [N, N], rows add up to 1
    if k2 > 1:
        each = np.arange(len(x)).repeat(min(k2, len(x)))
        mean = sparse.csr_array((np.full(len(each), 1 / k2, np.float32), (each, nearest[:, :k2].ravel())), sets.shape)
        sets = mean @ sets
    q = len(query)
    original = _distances(query, gallery) / largest[:q, None]
    return (1 - weight) * _jaccard(sets, q, sums) + weight * original


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return squared.astype(np.float32)


def _neighbours(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of each row, itself first, and the largest distance of each: int64 [N, k], float32 [N]."""
    nearest, largest = np.empty((len(x), k), np.int64), np.empty(len(x), np.float32)
    step = max(1, _CHUNK_BYTES // (8 * len(x)))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        distance = _distances(x[part], x)
        largest[part] = distance.max(1)
        some = np.argpartition(distance, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(distance, some, 1), axis=1, kind="stable")
        nearest[part] = np.take_along_axis(some, order, 1)
    return nearest, largest


def _mutual(nearest: np.ndarray, k: int) -> list[np.ndarray]:
    """For each row those of its k + 1 nearest (itself counted) that have it among theirs."""
    near = nearest[:, : k + 1]
    return [row[(near[row] == i).any(1)] for i, row in enumerate(near)]


def _expanded(nearest: np.ndarray, k1: int) -> list[np.ndarray]:
    """Mutual neighbours, and those of each of them that share more than 2/3 of their own (equation 5)."""
    mutual, half = _mutual(nearest, k1), _mutual(nearest, int(np.around(k1 / 2)))
    found: list[np.ndarray] = []
    for own in mutual:
        added = [half[j] for j in own if np.isin(half[j], own).sum() > 2 / 3 * len(half[j])]
        found.append(np.unique(np.concatenate([own, *added])))
    return found


def _encode(x: np.ndarray, largest: np.ndarray, sets: list[np.ndarray]) -> sparse.csr_array:
    """Each row's set, weighted by the nearness of its members (equation 7)."""
    lengths = [len(members) for members in sets]
    rows, columns = np.arange(len(x)).repeat(lengths), np.concatenate(sets)
    difference = [np.square(x[members] - x[i]).sum(1) for i, members in enumerate(sets)]
    near = np.exp(-np.concatenate(difference) / largest[rows])
    total = np.bincount(rows, near, len(x))
    return sparse.csr_array(((near / total[rows]).astype(np.float32), (rows, columns)), (len(x), len(x)))


def _jaccard(sets: sparse.csr_array, queries: int, sums: type) -> np.ndarray:
    """1 - sum(min) / sum(max) between the sets of queries and gallery (equation 10), by an inverted index: [Q, G]."""
    sets.sort_indices()  # the order of the sums, which float16 feels
    inverted = sparse.csc_array(sets[queries:])
    mine, theirs = sets.data.astype(sums), inverted.data.astype(sums)
    size = len(sets.indptr) - 1 - queries
    found = np.empty((queries, size), np.float32)
    for i in range(queries):
        shared = np.zeros(size, sums)
        for j in range(sets.indptr[i], sets.indptr[i + 1]):
            column = slice(inverted.indptr[sets.indices[j]], inverted.indptr[sets.indices[j] + 1])
            shared[inverted.indices[column]] += np.minimum(mine[j], theirs[column])
        found[i] = 1 - shared / (2 - shared)  # both sets add up to 1, so sum(max) = 2 - sum(min)
    return found
