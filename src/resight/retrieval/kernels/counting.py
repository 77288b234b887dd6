"""How many gallery items rank before each match: all that CMC, mAP and mINP need, and no sort.

Three ways to the same whole numbers. `by_stretches` streams the gallery once, in bounded memory: approximate scores by
one fast matrix product, a proven bound on their error, and exact scores only for the items that the bound leaves in
doubt. `by_rows` takes any scores, exact ones. `by_torch` is the plain way, for a GPU and for a Python that has no
numba.
"""

import numpy as np
import torch
from torch import Tensor

from resight.retrieval.junk import Junk, Pairs, Rule
from resight.retrieval.kernels.products import NOTHING, Products, keys_in_doubt
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

_QUERIES = 1024  # worked on at once
_MAX_MATCHES = 32_767  # of one query, that a table's entry can count


def count_before(scores: Scores, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """How many gallery items, junk left out, rank before each match.

    Args:
        scores: of the queries and the gallery.
        query: labels of the queries.
        gallery: labels of the gallery.
        rule: what is junk.
        matches: pairs of query and gallery rows, by query and then by row; no junk among them.

    Returns:
        int64 [matches].

    Raises:
        EvaluationError: an embedding is not finite.
    """
    if not len(matches[0]):
        return np.zeros(0, np.int64)
    if not compiled() or (isinstance(scores, InnerProducts) and scores.device != "cpu"):
        return by_torch(scores, query, gallery, rule, matches)
    most = np.bincount(matches[0]).max(initial=0)
    if isinstance(scores, InnerProducts) and most <= _MAX_MATCHES and _float32_holds(scores):
        return by_blocks(scores, query, gallery, rule, matches)
    return by_rows(scores, query, gallery, rule, matches)


def by_torch(scores: Scores, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """`count_before`, by comparing every score with every match's."""
    before, start = np.zeros(len(matches[0]), np.int64), _starts(matches, len(query))
    junk = Junk(query, gallery, rule)
    for part in chunks(*scores.shape):
        found = scores.rows(part)  # [q, G]
        _leave_out(found, junk.pairs(part))
        order = torch.arange(found.shape[1], device=found.device)
        for i, q in enumerate(range(part.start, part.stop)):
            some = slice(start[q], start[q + 1])
            row = torch.from_numpy(matches[1][some]).to(found.device)[:, None]  # [P, 1]
            own = found[i][row]
            before[some] = ((found[i] > own) | ((found[i] == own) & (order < row))).sum(1).cpu().numpy()
    return before


def by_rows(scores: Scores, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """`count_before` of scores that come as they are."""
    from resight.retrieval.kernels import numba_kernels as kernels

    before, start = np.zeros(len(matches[0]), np.int64), _starts(matches, len(query))
    junk = Junk(query, gallery, rule)
    for part in chunks(*scores.shape):
        found = scores.rows(part)  # [q, G]
        _leave_out(found, junk.pairs(part))
        first = start[part.start]
        some = slice(first, start[part.stop])
        arrays = (found.numpy(), start[part.start : part.stop + 1] - first, matches[1][some], before[some])
        in_threads(lambda a, b, arrays=arrays: kernels.count_rows(*arrays, a, b), len(found))
    return before


def by_blocks(scores: InnerProducts, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """`count_before` of inner products, by stretches of the gallery; needs no more memory for a longer gallery."""
    from resight.retrieval.kernels import dots
    from resight.retrieval.kernels import numba_kernels as kernels

    asked = np.ascontiguousarray(scores.query, np.float32)
    exact = np.empty(len(matches[0]), np.float32)
    bits = bits_of(scores.gallery)
    in_threads(lambda a, b: dots.dots(asked, bits, *matches, exact, a, b), len(exact))
    order = _ascending(matches[0], exact)
    start, exact, row = _starts(matches, len(query)), exact[order], matches[1][order]
    before = np.zeros(len(order), np.int64)

    mean = np.asarray(scores.gallery[:4096], np.float32).mean(0)
    middle = np.zeros(len(query))
    held = np.diff(start) > 0
    middle[held] = exact[(start[:-1] + np.diff(start) // 4)[held]]  # most of what is in doubt is near the lower ones
    products = Products(asked, mean, middle)
    require_finite(scores, products.length, mean)
    for block in blocks_of(len(gallery)):
        items = np.asarray(scores.gallery[block])
        error = products.take(items)  # [Q]
        require_finite(scores, error)
        junk, items = Junk(query, gallery.take(block), rule), bits_of(items)
        for begin in range(0, len(query), _QUERIES):
            part = slice(begin, min(begin + _QUERIES, len(query)))
            near = products.near(part)  # uint16 [q, g]
            near[junk.pairs(part)] = NOTHING
            first = start[part.start]
            some = slice(first, start[part.stop])
            each = np.repeat(np.arange(part.start, part.stop), np.diff(start[part.start : part.stop + 1]))
            sure, maybe = keys_in_doubt(exact[some], middle[each], error[each])
            arrays = (near, asked[part], items, start[part.start : part.stop + 1] - first, exact[some], row[some])
            arrays = (*arrays, sure, maybe, products.slack[part], block.start, before[some])
            in_threads(lambda a, b, arrays=arrays: kernels.count_before(*arrays, a, b), len(near))
    back = np.empty_like(before)
    back[order] = before
    return back


def _float32_holds(scores: InnerProducts) -> bool:
    """Whether float32 holds the embeddings without loss."""
    return all(x.dtype.name in ("float32", "float16") for x in (scores.query, scores.gallery))


def _ascending(asked: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The order of matches by query and then by score, of equal ones the later first: a sort of whole numbers, which
    takes a fifth of a `lexsort`'s time."""
    bits = (score + np.float32(0)).view(np.int32)  # and no -0
    keys = asked.astype(np.int64) << 32 | np.where(bits < 0, ~bits, bits ^ np.int32(-(2**31))).view(np.uint32)
    return len(keys) - 1 - np.argsort(keys[::-1], kind="stable")


def _leave_out(scores: Tensor, junk: Pairs) -> None:
    scores[torch.from_numpy(junk[0]), torch.from_numpy(junk[1])] = -torch.inf


def _starts(matches: Pairs, queries: int) -> np.ndarray:
    return np.searchsorted(matches[0], np.arange(queries + 1))
