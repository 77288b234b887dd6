"""The k nearest gallery items of each query, exactly, junk left out.

Shapes: Q queries, G gallery items, k neighbours; q and g of a part of the queries and a block of the gallery.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from resight.retrieval.junk import Junk, Rule
from resight.retrieval.labels import Labels
from resight.retrieval.scores import (
    InnerProducts,
    Scores,
    bits_of,
    blocks_of,
    chunks,
    compiled,
    in_threads,
    require_finite,
)

_SPARE = 16  # candidates beyond k, between which exact scores decide
_QUERIES = 1024  # queries in one product


@dataclass(frozen=True)
class Neighbours:
    """The nearest gallery items of each query, nearest first; of equal scores the earlier gallery row."""

    rows: np.ndarray
    """int64 [Q, k] gallery rows; -1 where fewer are left."""
    scores: np.ndarray
    """float32 [Q, k]; -inf where fewer are left."""
    lowest: np.ndarray
    """float32 [Q]: the lowest score of any item, junk included."""


def nearest(
    scores: Scores, k: int, query: Labels | None = None, gallery: Labels | None = None, rule: Rule | None = None
) -> Neighbours:
    """Find the k nearest gallery items of each query.

    Args:
        scores: of Q queries and G gallery items.
        k: number of neighbours; at most G are returned.
        query: labels of the queries, where a rule leaves something out.
        gallery: labels of the gallery, likewise.
        rule: what is left out; None for nothing.

    Raises:
        EvaluationError: an embedding is not finite.
    """
    k = min(k, scores.shape[1])
    labels = None if query is None or gallery is None or rule is None else (query, gallery, rule)
    if not compiled() or (isinstance(scores, InnerProducts) and scores.device != "cpu"):
        return _by_torch(scores, k, labels)
    if isinstance(scores, InnerProducts):
        return _by_blocks(scores, k, labels)
    neighbours = _empty(scores.shape[0], k)
    junk = None if labels is None else Junk(*labels)
    for part in chunks(*scores.shape):
        _merge(scores.rows(part), 0, junk, neighbours, part)
    return neighbours


def top(scores: Scores, query: Labels, gallery: Labels, rule: Rule, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest gallery rows of each query, junk left out, and whether each is a match.

    Returns:
        int64 [Q, k], gallery rows, -1 where fewer are left; bool [Q, k].
    """
    rows = nearest(scores, k, query, gallery, rule).rows
    same_identity = query.identity[:, None] == gallery.identity[rows]
    return rows, same_identity & (rows >= 0) & (query.identity >= 0)[:, None]


def _by_torch(scores: Scores, k: int, labels: tuple[Labels, Labels, Rule] | None) -> Neighbours:
    """Find the nearest by a stable sort of all exact scores."""
    neighbours = _empty(scores.shape[0], k)
    junk = None if labels is None else Junk(*labels)
    for part in chunks(*scores.shape):
        part_scores = scores.rows(part)  # [q, G]
        neighbours.lowest[part] = part_scores.amin(1).cpu().numpy()
        best, rows = torch.sort(_without_junk(part_scores, junk, part), dim=1, descending=True, stable=True)
        neighbours.scores[part] = best[:, :k].cpu().numpy()
        neighbours.rows[part] = np.where(np.isneginf(neighbours.scores[part]), -1, rows[:, :k].cpu().numpy())
    return neighbours


def _by_blocks(scores: InnerProducts, k: int, labels: tuple[Labels, Labels, Rule] | None) -> Neighbours:
    """Find a few more candidates than k by float32 products; exact scores decide between them.

    Where the candidates might be too few, because the last one is within rounding error of the k-th, all scores of the
    query are computed exactly.
    """
    # Find candidates in blocks of the gallery: rows and float32 scores [Q, k + spare].
    query = np.array(scores.query, np.float32)  # [Q, D]
    query_length = np.linalg.norm(query, axis=1)  # [Q]
    candidates, longest_item = _candidates(scores, query, k, labels)
    require_finite(scores, query_length, longest_item)

    # Score the candidates exactly and sort them: best [Q, k].
    exact = _exact_scores(scores, query, candidates.rows)  # [Q, k + spare]
    order = np.lexsort((candidates.rows, -exact), axis=1)[:, :k]
    best_rows = np.take_along_axis(candidates.rows, order, 1)
    best = Neighbours(best_rows, np.take_along_axis(exact, order, 1), candidates.lowest)

    # Repeat the queries whose candidates may lack one of the nearest, with exact scores of all items.
    error = query.shape[1] * 2.0**-23 * query_length * longest_item  # [Q], above the error of a float32 product
    if candidates.rows.shape[1] < scores.shape[1]:
        last_score = candidates.scores[:, -1]
        doubtful = np.isfinite(last_score) & (last_score + error >= best.scores[:, -1])
        for q in np.flatnonzero(doubtful):
            _search_exactly(scores, int(q), labels, best)
    return best


def _candidates(
    scores: InnerProducts, query: np.ndarray, k: int, labels: tuple[Labels, Labels, Rule] | None
) -> tuple[Neighbours, np.float64]:
    """Find the k + 16 nearest by float32 products, and the length of the longest gallery embedding."""
    candidates = _empty(len(query), min(k + _SPARE, scores.shape[1]))
    longest_item = np.float64(0)
    queries = torch.from_numpy(query)
    for block in blocks_of(scores.shape[1]):
        items = torch.from_numpy(np.array(scores.gallery[block], np.float32))  # [g, D]
        longest_item = np.maximum(longest_item, float(items.norm(dim=1).max()))  # NaN stays NaN
        junk = None if labels is None else Junk(labels[0], labels[1].take(block), labels[2])
        buffer = queries.new_empty(min(_QUERIES, len(query)), len(items))
        for first_query in range(0, len(query), _QUERIES):
            part = slice(first_query, min(first_query + _QUERIES, len(query)))
            products = torch.mm(queries[part], items.T, out=buffer[: part.stop - first_query])  # [q, g]
            _merge(products, block.start, junk, candidates, part)
    return candidates, longest_item


def _exact_scores(scores: InnerProducts, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the exact scores of gallery rows [Q, n], float32 [Q, n]; -inf for row -1."""
    from resight.retrieval.kernels import dots

    pairs = np.nonzero(rows >= 0)
    pair_rows = rows[pairs]
    pair_scores = np.empty(len(pairs[0]), np.float32)
    bits = bits_of(scores.gallery)
    in_threads(lambda a, b: dots.dots(query, bits, pairs[0], pair_rows, pair_scores, a, b), len(pair_scores))
    exact = np.full(rows.shape, -np.inf, np.float32)
    exact[pairs] = pair_scores
    return exact


def _search_exactly(
    scores: InnerProducts, q: int, labels: tuple[Labels, Labels, Rule] | None, best: Neighbours
) -> None:
    """Replace one query's neighbours by those of a sort of all its exact scores."""
    part = slice(q, q + 1)
    exact = _without_junk(scores.rows(part), None if labels is None else Junk(*labels), part)[0].numpy()  # [G]
    rows = np.argsort(-exact, kind="stable")[: best.rows.shape[1]]
    best.scores[q] = exact[rows]
    best.rows[q] = np.where(np.isneginf(exact[rows]), -1, rows)


def _without_junk(scores: Tensor, junk: Junk | None, part: slice) -> Tensor:
    """Set the scores of junk to -inf, in place."""
    if junk is not None:
        query_rows, gallery_rows = junk.pairs(part)
        scores[torch.from_numpy(query_rows), torch.from_numpy(gallery_rows)] = -torch.inf
    return scores


def _merge(scores: Tensor, offset: int, junk: Junk | None, best: Neighbours, part: slice) -> None:
    """Merge scores [q, g] of some queries with a block of the gallery into the best ones so far."""
    from resight.retrieval.kernels import numba_kernels as kernels

    best.lowest[part] = np.minimum(best.lowest[part], scores.amin(1).numpy())
    arrays = (_without_junk(scores, junk, part).numpy(), offset, best.scores[part], best.rows[part])
    in_threads(lambda a, b: kernels.merge_best(*arrays, a, b), len(scores))


def _empty(queries: int, k: int) -> Neighbours:
    rows = np.full((queries, k), -1, np.int64)
    scores = np.full((queries, k), -np.inf, np.float32)
    return Neighbours(rows, scores, np.full(queries, np.inf, np.float32))
