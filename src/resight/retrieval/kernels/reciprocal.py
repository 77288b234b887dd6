"""The inner loops of re-ranking, compiled by numba.

N images: the queries, then the gallery. A set of images is a row of int32, with -1 after its last member.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportUnknownVariableType]

from resight.retrieval.kernels.dots import Array, dot


class SparseRows(NamedTuple):
    """A compressed sparse matrix: row i is `values[start[i] : start[i + 1]]` in the columns of the same slice."""

    start: Array
    """int32 or int64 [rows + 1]."""
    columns: Array
    """int32 or int64 [entries]."""
    values: Array
    """float32 [entries]."""


@njit(cache=True, nogil=True)
def mutual(neighbors: Array, out: Array, first: int, last: int) -> None:
    """Write each image's mutual neighbours into `out`, int32 [N, k + 1].

    These are the members of its k + 1 nearest, itself included, that have it among their own k + 1 nearest.
    """
    k = out.shape[1]
    for i in range(first, last):
        count = 0
        for a in range(k):
            j = neighbors[i, a]
            for b in range(k):
                if neighbors[j, b] == i:
                    out[i, count] = j
                    count += 1
                    break
        out[i, count:] = -1


@njit(cache=True, nogil=True)
def expand(full_sets: Array, half_sets: Array, start: Array, members: Array, first: int, last: int) -> None:
    """Expand each image's set of mutual neighbours by those sets of its members that share more than 2/3 with it.

    `full_sets` are mutual neighbours among k, `half_sets` among k / 2. With an empty `members` the function only
    counts: `start` [N] receives the sizes. Otherwise row i is written to `members`, ascending, from `start[i]`.
    """
    mark = np.full(len(full_sets), -1, np.int32)  # 2 i: in the set of image i; 2 i + 1: added to it
    expanded = np.empty(full_sets.shape[1] * (1 + half_sets.shape[1]), np.int32)
    for i in range(first, last):
        # Begin with the image's mutual neighbours: expanded[:count].
        count = 0
        for j in full_sets[i]:
            if j < 0:
                break
            mark[j] = 2 * i
            expanded[count] = j
            count += 1
        # Add the half set of each of these that has more than 2/3 of its members among them.
        for j in expanded[:count].copy():
            size, shared = 0, 0
            for other in half_sets[j]:
                if other < 0:
                    break
                size += 1
                shared += mark[other] == 2 * i
            if shared > 2 / 3 * size:
                for other in half_sets[j][:size]:
                    if mark[other] < 2 * i:
                        mark[other] = 2 * i + 1
                        expanded[count] = other
                        count += 1
        if not len(members):
            start[i] = count
            continue
        # Insert each of the few members at its place: numba takes seconds to compile np.sort and to assign a slice.
        for n in range(count):
            member, place = expanded[n], start[i] + n
            while place > start[i] and members[place - 1] > member:
                members[place] = members[place - 1]
                place -= 1
            members[place] = member


@njit(cache=True, nogil=True)
def weigh(x: Array, largest: Array, start: Array, members: Array, weights: Array, first: int, last: int) -> None:
    """Write exp(-distance / largest distance) of each member, divided by their sum, into `weights`, float32."""
    for i in range(first, last):
        total = 0.0
        for n in range(start[i], start[i + 1]):
            distance = dot(x[i], x[i]) + dot(x[members[n]], x[members[n]]) - 2 * dot(x[i], x[members[n]])
            weights[n] = np.exp(-distance / largest[i])
            total += weights[n]
        for n in range(start[i], start[i + 1]):
            weights[n] /= total


@njit(cache=True, nogil=True)
def rerank_rows(
    scores: Array,
    query_sets: SparseRows,
    gallery_index: SparseRows,
    largest: Array,
    weight: float,
    float16: bool,
    first: int,
    last: int,
) -> None:
    """Turn scores, float32 [q, G], into the negative of re-ranked distances, in place.

    The overlap of two sets, sum(min), is summed over their shared members by the inverted index. The weights of either
    set sum to 1, so sum(max) = 2 - sum(min).

    Args:
        scores: inner products of embeddings of unit length; is overwritten.
        query_sets: each query's set of images and their weights.
        gallery_index: for each image, the gallery items whose sets contain it, and its weights there.
        largest: float32 [q], the greatest distance of each query.
        weight: lambda, of the original distance.
        float16: whether weights and their sums are rounded to float16, as in the reference.
        first: the first query of this task.
        last: the query after the last one of this task.
    """
    one = np.float32(1)
    two = np.float32(2)
    original_weight = np.float32(weight)
    # In the loops numba counts references at each access to a field of a tuple, so arrays get names of their own.
    query_start, query_members, query_weights = query_sets
    index_start, index_items, index_weights = gallery_index
    overlap = np.empty(scores.shape[1], np.float32)
    for i in range(first, last):
        # Sum the weights that the query's set and each gallery item's set have in common: overlap [G].
        overlap[:] = 0
        for n in range(query_start[i], query_start[i + 1]):
            member = query_members[n]
            query_weight = _as_float16(query_weights[n]) if float16 else query_weights[n]
            for m in range(index_start[member], index_start[member + 1]):
                item = index_items[m]
                if float16:
                    shared = min(query_weight, _as_float16(index_weights[m]))
                    overlap[item] = _as_float16(overlap[item] + shared)
                else:
                    overlap[item] += min(query_weight, index_weights[m])
        # Mix the Jaccard distance with the original one: scores[i] [G].
        for j in range(len(overlap)):
            jaccard = one - overlap[j] / (two - overlap[j])
            original = original_weight * (two - two * scores[i, j]) / largest[i]
            scores[i, j] = -((one - original_weight) * jaccard + original)


@njit(cache=True, nogil=True)
def _as_float16(x: Any) -> Any:
    """Round float32 to float16's 11 significant bits (Veltkamp 1968), for numbers that are normal in float16."""
    scaled = np.float32(8193) * np.float32(x)
    return np.float32(scaled - np.float32(scaled - np.float32(x)))
