"""The k nearest gallery items, exactly, junk left out."""

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

_SPARE = 16  # candidates beyond k, whose exact scores decide
_QUERIES = 1024


@dataclass(frozen=True)
class Neighbours:
    """The nearest of each query, nearest first; of equal scores the earlier gallery row."""

    rows: np.ndarray
    """int64 [Q, k] gallery rows; -1 where fewer are left."""
    scores: np.ndarray
    """float32 [Q, k]; -inf where fewer are left."""
    least: np.ndarray
    """float32 [Q]: the lowest score of any item, junk too."""


def nearest(
    scores: Scores, k: int, query: Labels | None = None, gallery: Labels | None = None, rule: Rule | None = None
) -> Neighbours:
    """The k nearest gallery items of each query.

    Args:
        scores: of Q queries and G gallery items.
        k: how many.
        query: labels, where a rule leaves something out.
        gallery: labels, likewise.
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
    found = _empty(scores.shape[0], k)
    junk = None if labels is None else Junk(*labels)
    for part in chunks(*scores.shape):
        _keep(scores.rows(part), 0, junk, found, part)
    return found


def top(scores: Scores, query: Labels, gallery: Labels, rule: Rule, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery rows of each query, junk left out, and which are matches: int64 and bool [Q, k]; row -1
    where fewer are left."""
    rows = nearest(scores, k, query, gallery, rule).rows
    found = query.identity[:, None] == gallery.identity[rows]
    return rows, found & (rows >= 0) & (query.identity >= 0)[:, None]


def _by_torch(scores: Scores, k: int, labels: tuple[Labels, Labels, Rule] | None) -> Neighbours:
    found = _empty(scores.shape[0], k)
    junk = None if labels is None else Junk(*labels)
    for part in chunks(*scores.shape):
        score = scores.rows(part)  # [q, G]
        found.least[part] = score.amin(1).cpu().numpy()
        best, rows = torch.sort(_without(score, junk, part), dim=1, descending=True, stable=True)
        found.scores[part] = best[:, :k].cpu().numpy()
        found.rows[part] = np.where(np.isneginf(found.scores[part]), -1, rows[:, :k].cpu().numpy())
    return found


def _by_blocks(scores: InnerProducts, k: int, labels: tuple[Labels, Labels, Rule] | None) -> Neighbours:
    """A few more than k by float32 products, then exact scores decide. Where those few might not be enough, because the
    last of them is within rounding of the k-th, all of the query's scores are exact ones."""
    from resight.retrieval.kernels import dots

    query = np.array(scores.query, np.float32)
    some, longest = _empty(len(query), min(k + _SPARE, scores.shape[1])), np.float64(0)
    asked = torch.from_numpy(query)
    for block in blocks_of(scores.shape[1]):
        items = torch.from_numpy(np.array(scores.gallery[block], np.float32))
        longest = np.maximum(longest, float(items.norm(dim=1).max()))  # NaN, too
        junk = None if labels is None else Junk(labels[0], labels[1].take(block), labels[2])
        near = asked.new_empty(min(_QUERIES, len(query)), len(items))
        for begin in range(0, len(query), _QUERIES):
            part = slice(begin, min(begin + _QUERIES, len(query)))
            _keep(torch.mm(asked[part], items.T, out=near[: part.stop - begin]), block.start, junk, some, part)
    length = np.linalg.norm(query, axis=1)
    require_finite(scores, length, longest)

    pairs = np.nonzero(some.rows >= 0)
    exact = np.full(some.scores.shape, -np.inf, np.float32)
    found, bits = np.empty(len(pairs[0]), np.float32), bits_of(scores.gallery)
    in_threads(lambda a, b: dots.dots(query, bits, pairs[0], some.rows[pairs], found, a, b), len(found))
    exact[pairs] = found
    order = np.lexsort((some.rows, -exact), axis=1)[:, :k]
    best = Neighbours(np.take_along_axis(some.rows, order, 1), np.take_along_axis(exact, order, 1), some.least)
    error = query.shape[1] * 2.0**-23 * length * longest  # of a float32 product, and more
    if some.rows.shape[1] < scores.shape[1]:
        last = some.scores[:, -1]
        for q in np.flatnonzero(np.isfinite(last) & (last + error >= best.scores[:, -1])):
            _settle(scores, int(q), labels, best)
    return best


def _settle(scores: InnerProducts, q: int, labels: tuple[Labels, Labels, Rule] | None, best: Neighbours) -> None:
    part = slice(q, q + 1)
    exact = _without(scores.rows(part), None if labels is None else Junk(*labels), part)[0].numpy()
    rows = np.argsort(-exact, kind="stable")[: best.rows.shape[1]]
    best.scores[q] = exact[rows]
    best.rows[q] = np.where(np.isneginf(exact[rows]), -1, rows)


def _without(scores: Tensor, junk: Junk | None, part: slice) -> Tensor:
    if junk is not None:
        asked, searched = junk.pairs(part)
        scores[torch.from_numpy(asked), torch.from_numpy(searched)] = -torch.inf
    return scores


def _keep(scores: Tensor, offset: int, junk: Junk | None, best: Neighbours, part: slice) -> None:
    from resight.retrieval.kernels import numba_kernels as kernels

    best.least[part] = np.minimum(best.least[part], scores.amin(1).numpy())
    arrays = (_without(scores, junk, part).numpy(), offset, best.scores[part], best.rows[part])
    in_threads(lambda a, b: kernels.keep_best(*arrays, a, b), len(scores))


def _empty(queries: int, k: int) -> Neighbours:
    rows, scores = np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)
    return Neighbours(rows, scores, np.full(queries, np.inf, np.float32))
