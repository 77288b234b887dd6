"""The inner loops of re-ranking, compiled by numba. N pictures; sets are rows of int32, -1 after the last member."""

from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportUnknownVariableType]

from resight.retrieval.kernels.dots import Array, dot


@njit(cache=True, nogil=True)
def mutual(near: Array, out: Array, first: int, last: int) -> None:
    """Those of each picture's k + 1 nearest (itself counted) that have it among theirs: int32 [N, k + 1]."""
    k = out.shape[1]
    for i in range(first, last):
        count = 0
        for a in range(k):
            j = near[i, a]
            for b in range(k):
                if near[j, b] == i:
                    out[i, count] = j
                    count += 1
                    break
        out[i, count:] = -1


@njit(cache=True, nogil=True)
def expand(whole: Array, half: Array, start: Array, members: Array, first: int, last: int) -> None:
    """Each picture's mutual neighbours, and those (of half as many) of each of them that share more than 2/3 with it.

    With no room in `members` it counts only: `start` [N] takes the sizes. Otherwise row i goes to `members`, ascending,
    from `start[i]`.
    """
    seen = np.full(len(whole), -1, np.int32)  # 2 i: of picture i's own; 2 i + 1: added
    found = np.empty(whole.shape[1] * (1 + half.shape[1]), np.int32)
    for i in range(first, last):
        count = 0
        for j in whole[i]:
            if j < 0:
                break
            seen[j] = 2 * i
            found[count] = j
            count += 1
        for j in found[:count].copy():
            size, shared = 0, 0
            for other in half[j]:
                if other < 0:
                    break
                size += 1
                shared += seen[other] == 2 * i
            if shared > 2 / 3 * size:
                for other in half[j][:size]:
                    if seen[other] < 2 * i:
                        seen[other] = 2 * i + 1
                        found[count] = other
                        count += 1
        if len(members):
            members[start[i] : start[i + 1]] = np.sort(found[:count])
        else:
            start[i] = count


@njit(cache=True, nogil=True)
def weigh(x: Array, largest: Array, start: Array, members: Array, weights: Array, first: int, last: int) -> None:
    """exp(-distance / largest) of each member, over their sum."""
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
    begin: Array,
    members: Array,
    weights: Array,
    held_begin: Array,
    holders: Array,
    held: Array,
    largest: Array,
    weight: float,
    float16: bool,
    first: int,
    last: int,
) -> None:
    """Turns scores, float32 [q, G], into the negative of re-ranked distances, where they lie.

    The overlap of two sets, sum(min), is added up over shared members by the inverted index. Both sets add up to 1, so
    sum(max) = 2 - sum(min).
    """
    overlap = np.empty(scores.shape[1], np.float32)
    for i in range(first, last):
        overlap[:] = 0
        for n in range(begin[i], begin[i + 1]):
            own = _as_float16(weights[n]) if float16 else weights[n]
            for m in range(held_begin[members[n]], held_begin[members[n] + 1]):
                if float16:
                    overlap[holders[m]] = _as_float16(overlap[holders[m]] + min(own, _as_float16(held[m])))
                else:
                    overlap[holders[m]] += min(own, held[m])
        one, two, own = np.float32(1), np.float32(2), np.float32(weight)
        for j in range(len(overlap)):
            jaccard = one - overlap[j] / (two - overlap[j])
            scores[i, j] = -((one - own) * jaccard + own * (two - two * scores[i, j]) / largest[i])


@njit(cache=True, nogil=True)
def _as_float16(x: Any) -> Any:
    """float32 rounded to float16's 11 significant bits (Veltkamp 1968); for numbers that float16 holds as normal."""
    scaled = np.float32(8193) * np.float32(x)
    return np.float32(scaled - np.float32(scaled - np.float32(x)))
