"""The inner loops of ranking, compiled by numba.

bf16 and float16 numbers are passed as their bits (uint16), because numba has neither type on a CPU. The *key* of a bf16
number is a uint16 that sorts as the number does: `bits ^ 0x8000` of a positive number, `~bits` of a negative one.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit  # pyright: ignore[reportUnknownVariableType]

from resight.retrieval.kernels.dots import Array, dot, quick_dot

_COUNT, _DOUBT = np.uint16(0x7FFF), np.uint16(0x8000)  # the two fields of a table entry
_QUERY_GROUP = 256  # queries whose doubtful items are scored in one pass
_ITEM_GROUP = 256  # gallery rows that stay in the processor's cache meanwhile
_SCORE_GROUP = 4096  # scores that stay in the fastest cache


class ScoreBlock(NamedTuple):
    """Scores of q queries and a block of g gallery items, approximate and as far as needed exact."""

    approximate: Array
    """uint16 [q, g], bf16 bits of approximate scores; -inf for junk."""
    query: Array
    """float32 [q, D]."""
    gallery: Array
    """float32 [g, D], or the bits of float16."""
    slack: Array
    """float32 [q], bound on the error of a sum of float32 products."""
    offset: int
    """The gallery row of the block's first item."""


class MatchBlock(NamedTuple):
    """The P matches of q queries, by query and then by ascending score; of equal scores the later row first."""

    start: Array
    """int64 [q + 1], where each query's matches begin in the arrays that follow."""
    score: Array
    """float32 [P], exact scores."""
    gallery_row: Array
    """int64 [P]."""
    above_key: Array
    """int64 [P], the lowest key whose items certainly score above the match."""
    doubt_key: Array
    """int64 [P], the lowest key whose items may score as high as the match."""
    before: Array
    """int64 [P], the counts that the kernel adds to."""


@njit(cache=True, nogil=True)
def count_before(scores: ScoreBlock, matches: MatchBlock, first: int, last: int) -> None:
    """Add to `matches.before` how many items of a block rank before each match, for the queries `first` to `last - 1`.

    No sort: a query's matches divide the range of bf16 keys into intervals. A table says for each of the 65,536 keys
    how many of the matches an item of that key certainly precedes, and whether there are further matches for which
    only the exact score can tell.
    """
    table = np.empty(65536, np.uint16)
    doubts = np.empty((1 << 16, 3), np.int32)  # query, item, and the first match that is in doubt
    # In the loops numba counts references at each access to a field of a tuple, so arrays get names of their own.
    approximate, query, gallery, slack, offset = scores
    start, score, gallery_row, above_key, doubt_key, before = matches
    items = approximate.shape[1]
    for group in range(first, last, _QUERY_GROUP):
        # Count the items that approximate scores decide, and list the others: doubts [count, 3].
        count = np.int64(0)  # of a 0 numba compiles _scan twice, for the literal too
        for i in range(group, min(group + _QUERY_GROUP, last)):
            match_first, match_last = start[i], start[i + 1]
            if match_first == match_last:
                continue
            _fill(table, above_key[match_first:match_last], doubt_key[match_first:match_last])
            if len(doubts) < count + items:
                doubts = np.concatenate((doubts, np.empty((count + items, 3), np.int32)))
            count = _scan(i, approximate[i], table, match_first, before[match_first:match_last], doubts, count)
        # Score the doubtful pairs in float32, the items of one part of the gallery together: [count].
        quick_scores = np.empty(count, np.float32)
        for n in _by_item_group(doubts[:count, 1], items):
            quick_scores[n] = quick_dot(query[doubts[n, 0]], gallery[doubts[n, 1]])
        # Decide each doubt by that score, or by the exact one where float32 is not precise enough.
        for n in range(count):
            i, j, m = doubts[n]
            key = _key(approximate[i, j])
            exact = np.float32(np.nan)
            while m < start[i + 1] and doubt_key[m] <= key:
                if abs(quick_scores[n] - score[m]) > slack[i]:
                    before[m] += quick_scores[n] > score[m]
                elif offset + j != gallery_row[m]:
                    if np.isnan(exact):
                        exact = np.float32(dot(query[i], gallery[j]))
                    before[m] += exact > score[m] or (exact == score[m] and offset + j < gallery_row[m])
                m += 1


@njit(cache=True, nogil=True)
def _scan(
    query: int, approximate: Array, table: Array, match_first: int, before: Array, doubts: Array, count: int
) -> int:
    """Add one query's decided items to `before`, append the doubtful ones to `doubts`, and return the new `count`."""
    # Four items at a time into four histograms: consecutive items that fall into one bin would wait for one another.
    histogram = np.zeros((4, len(before) + 1), np.int64)
    for j in range(0, len(approximate) - 3, 4):
        a = table[_key(approximate[j])]
        b = table[_key(approximate[j + 1])]
        c = table[_key(approximate[j + 2])]
        d = table[_key(approximate[j + 3])]
        histogram[0, a & _COUNT] += 1
        histogram[1, b & _COUNT] += 1
        histogram[2, c & _COUNT] += 1
        histogram[3, d & _COUNT] += 1
        if (a | b | c | d) & _DOUBT:
            for n in range(j, j + 4):
                entry = table[_key(approximate[n])]
                if entry & _DOUBT:
                    doubts[count, 0] = query
                    doubts[count, 1] = n
                    doubts[count, 2] = match_first + (entry & _COUNT)
                    count += 1
    for n in range(len(approximate) // 4 * 4, len(approximate)):
        entry = table[_key(approximate[n])]
        histogram[0, entry & _COUNT] += 1
        if entry & _DOUBT:
            doubts[count, 0] = query
            doubts[count, 1] = n
            doubts[count, 2] = match_first + (entry & _COUNT)
            count += 1
    # An item that precedes m matches precedes the first m: sum the histogram from its end.
    above = 0
    for m in range(len(before) - 1, -1, -1):
        for n in range(4):
            above += histogram[n, m + 1]
        before[m] += above
    return count


@njit(cache=True, nogil=True)
def _by_item_group(items: Array, size: int) -> Array:
    """Return an order that brings items of the same few hundred rows together, so that these stay in the cache."""
    position = np.zeros(size // _ITEM_GROUP + 2, np.int64)
    for item in items:
        position[item // _ITEM_GROUP + 1] += 1
    position = np.cumsum(position)
    order = np.empty(len(items), np.int64)
    for n in range(len(items)):
        group = items[n] // _ITEM_GROUP
        order[position[group]] = n
        position[group] += 1
    return order


@njit(cache=True, nogil=True)
def _fill(table: Array, above_key: Array, doubt_key: Array) -> None:
    """Fill the table, uint16 [65536] by key: how many matches an item certainly precedes, and the doubt flag."""
    low = 0
    for m in range(len(above_key) + 1):
        high = above_key[m] if m < len(above_key) else 65536
        table[low:high] = m
        low = high
    low = 0
    for m in range(len(above_key)):
        doubtful = table[max(low, doubt_key[m]) : above_key[m]]
        for n in range(len(doubtful)):
            doubtful[n] |= _DOUBT
        low = max(low, above_key[m])


@njit(cache=True, nogil=True)
def _key(bits: Any) -> Any:
    return bits ^ np.uint16(0x8000 if bits < 0x8000 else 0xFFFF)


@njit(cache=True, nogil=True)
def count_rows(scores: Array, start: Array, gallery_row: Array, before: Array, first: int, last: int) -> None:
    """Add to `before`, int64 [P], how many items rank before each match.

    The scores are exact: float32 [q, G], -inf for junk. The matches of query i are `start[i]` to `start[i + 1] - 1`.
    """
    for i in range(first, last):
        for low in range(0, scores.shape[1], _SCORE_GROUP):
            group_scores = scores[i, low : low + _SCORE_GROUP]
            for m in range(start[i], start[i + 1]):
                match_score = scores[i, gallery_row[m]]
                count = np.int32(0)
                # Equal scores rank before the match where their row is earlier.
                earlier = min(max(gallery_row[m] - low, 0), len(group_scores))
                for j in range(earlier):
                    count += np.int32(group_scores[j] >= match_score)
                for j in range(earlier, len(group_scores)):
                    count += np.int32(group_scores[j] > match_score)
                before[m] += count


@njit(cache=True, nogil=True)
def merge_best(scores: Array, offset: int, best_scores: Array, best_rows: Array, first: int, last: int) -> None:
    """Merge scores, float32 [q, g], into the lists of the k best, float32 and int64 [q, k], best first.

    Of equal scores the earlier row stays first. `offset` is the gallery row of the first item.
    """
    k = best_scores.shape[1]
    for i in range(first, last):
        lowest = best_scores[i, k - 1]
        for j in range(scores.shape[1]):
            score = scores[i, j]
            if score > lowest:
                at = k - 1
                while at > 0 and best_scores[i, at - 1] < score:
                    best_scores[i, at] = best_scores[i, at - 1]
                    best_rows[i, at] = best_rows[i, at - 1]
                    at -= 1
                best_scores[i, at] = score
                best_rows[i, at] = offset + j
                lowest = best_scores[i, k - 1]
