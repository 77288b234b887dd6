"""The inner loops of ranking, compiled by numba.

bf16 numbers come as their bits (uint16), float16 ones too: numba has neither type on a CPU. An order-preserving *key*
of bf16 bits is `bits ^ 0x8000` of a positive number and `~bits` of a negative one.
"""

from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportUnknownVariableType]

from resight.retrieval.kernels.dots import Array, dot, quick_dot

_COUNT, _DOUBT = np.uint16(0x7FFF), np.uint16(0x8000)  # the parts of a table's entry
_GROUP, _BLOCK = 256, 256  # queries and items whose embeddings are worked on together


@njit(cache=True, nogil=True)
def count_before(
    near: Array,
    query: Array,
    gallery: Array,
    start: Array,
    score: Array,
    row: Array,
    sure: Array,
    maybe: Array,
    slack: Array,
    offset: int,
    before: Array,
    first: int,
    last: int,
) -> None:
    """Adds to `before` how many items of a stretch of the gallery rank before each match.

    No sort: each query's matches cut the line of bf16 keys into stretches, a table says for each of the 65,536 keys how
    many of the matches an item of that key surely precedes, and whether there are others of which only the exact score
    can tell.

    Args:
        near: uint16 [q, g], bf16 bits of approximate scores; -inf for junk.
        query: float32 [q, D].
        gallery: float32 [g, D], or the bits of float16.
        start: int64 [q + 1], where each query's matches begin in the four arrays that follow.
        score: float32, the matches' exact scores, ascending within a query.
        row: int64, their gallery rows; of equal scores the later row first.
        sure: int64, the lowest key that surely scores above the match.
        maybe: int64, the lowest key that may score as high as the match.
        slack: float32 [q], what a sum of products in float32 may be off by.
        offset: the gallery row of the stretch's first item.
        before: int64, what is added to.
        first: the first query worked on.
        last: the query to stop at.
    """
    table = np.empty(65536, np.uint16)
    doubts = np.empty((1 << 16, 3), np.int32)  # query, item, and the first match that is in doubt
    for group in range(first, last, _GROUP):
        count = 0
        for i in range(group, min(group + _GROUP, last)):
            begin, end = start[i], start[i + 1]
            if begin == end:
                continue
            _fill(table, sure[begin:end], maybe[begin:end])
            if len(doubts) < count + near.shape[1]:
                doubts = np.concatenate((doubts, np.empty((count + near.shape[1], 3), np.int32)))
            count = _scan(i, near[i], table, begin, before[begin:end], doubts, count)
        rough = np.empty(count, np.float32)
        for n in _by_block(doubts[:count, 1], near.shape[1]):
            rough[n] = quick_dot(query[doubts[n, 0]], gallery[doubts[n, 1]])
        for n in range(count):
            i, j, m = doubts[n]
            key, exact = _key(near[i, j]), np.float32(np.nan)
            while m < start[i + 1] and maybe[m] <= key:
                if abs(rough[n] - score[m]) > slack[i]:
                    before[m] += rough[n] > score[m]
                elif offset + j != row[m]:
                    if np.isnan(exact):
                        exact = np.float32(dot(query[i], gallery[j]))
                    before[m] += exact > score[m] or (exact == score[m] and offset + j < row[m])
                m += 1


@njit(cache=True, nogil=True)
def _scan(i: int, near: Array, table: Array, begin: int, before: Array, doubts: Array, count: int) -> int:
    """Adds to a query's `before` what its table is sure of, and writes what is in doubt behind the first `count`
    doubts; returns how many there are then."""
    # Four at a time into four bins each: neighbours that fall into one bin would wait for one another.
    found = np.zeros((4, len(before) + 1), np.int64)
    for j in range(0, len(near) - 3, 4):
        a, b, c, d = table[_key(near[j])], table[_key(near[j + 1])], table[_key(near[j + 2])], table[_key(near[j + 3])]
        found[0, a & _COUNT] += 1
        found[1, b & _COUNT] += 1
        found[2, c & _COUNT] += 1
        found[3, d & _COUNT] += 1
        if (a | b | c | d) & _DOUBT:
            for n in range(j, j + 4):
                entry = table[_key(near[n])]
                if entry & _DOUBT:
                    doubts[count, 0], doubts[count, 1], doubts[count, 2] = i, n, begin + (entry & _COUNT)
                    count += 1
    for n in range(len(near) // 4 * 4, len(near)):
        entry = table[_key(near[n])]
        found[0, entry & _COUNT] += 1
        if entry & _DOUBT:
            doubts[count, 0], doubts[count, 1], doubts[count, 2] = i, n, begin + (entry & _COUNT)
            count += 1
    above = 0
    for m in range(len(before) - 1, -1, -1):
        for n in range(4):
            above += found[n, m + 1]
        before[m] += above
    return count


@njit(cache=True, nogil=True)
def _by_block(items: Array, size: int) -> Array:
    """An order in which items of the same few hundred rows come together, so that these stay in the cache."""
    place = np.zeros(size // _BLOCK + 2, np.int64)
    for item in items:
        place[item // _BLOCK + 1] += 1
    place = np.cumsum(place)
    order = np.empty(len(items), np.int64)
    for n in range(len(items)):
        block = items[n] // _BLOCK
        order[place[block]] = n
        place[block] += 1
    return order


@njit(cache=True, nogil=True)
def _fill(table: Array, sure: Array, maybe: Array) -> None:
    """Entries by key: how many matches an item surely precedes, and the flag where others are in doubt."""
    low = 0
    for m in range(len(sure) + 1):
        high = sure[m] if m < len(sure) else 65536
        table[low:high] = m
        low = high
    low = 0
    for m in range(len(sure)):
        doubtful = table[max(low, maybe[m]) : sure[m]]
        for n in range(len(doubtful)):
            doubtful[n] |= _DOUBT
        low = max(low, sure[m])


@njit(cache=True, nogil=True)
def _key(bits: Any) -> Any:
    return bits ^ np.uint16(0x8000 if bits < 0x8000 else 0xFFFF)


@njit(cache=True, nogil=True)
def count_rows(scores: Array, start: Array, row: Array, before: Array, first: int, last: int) -> None:
    """Adds to `before` how many items rank before each match, of scores float32 [q, G] that are exact; -inf for
    junk."""
    for i in range(first, last):
        for low in range(0, scores.shape[1], 4096):  # a piece stays in the fastest cache
            part = scores[i, low : low + 4096]
            for m in range(start[i], start[i + 1]):
                own, count = scores[i, row[m]], np.int32(0)
                earlier = min(max(row[m] - low, 0), len(part))
                for j in range(earlier):
                    count += np.int32(part[j] >= own)
                for j in range(earlier, len(part)):
                    count += np.int32(part[j] > own)
                before[m] += count


@njit(cache=True, nogil=True)
def keep_best(scores: Array, offset: int, best: Array, rows: Array, first: int, last: int) -> None:
    """Works scores float32 [q, g] into the lists of the best, float32 and int64 [q, k], nearest first; the earlier of
    equal ones stays before the later."""
    k = best.shape[1]
    for i in range(first, last):
        least = best[i, k - 1]
        for j in range(scores.shape[1]):
            score = scores[i, j]
            if score > least:
                at = k - 1
                while at > 0 and best[i, at - 1] < score:
                    best[i, at], rows[i, at] = best[i, at - 1], rows[i, at - 1]
                    at -= 1
                best[i, at], rows[i, at] = score, offset + j
                least = best[i, k - 1]
