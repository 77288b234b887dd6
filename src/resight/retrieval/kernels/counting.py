"""How many gallery items rank before each match: all that CMC, mAP and mINP need, without a sort.

Three functions give the same whole numbers. `by_blocks` reads the gallery once, in bounded memory: approximate scores
by one fast matrix product, a proven bound on their error, and exact scores only for the items that the bound leaves in
doubt. `by_rows` takes any exact scores. `by_torch` is the readable equivalent, for a GPU and for a Python without
numba.

Shapes: Q queries, G gallery items, P matches; q and g of a part of the queries and a block of the gallery.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from resight.retrieval.kernels.numba_kernels import MatchBlock

_QUERIES = 1024  # queries in one product
_MAX_MATCHES = 32_767  # matches of one query that an entry of the kernel's table can count


def count_before(scores: Scores, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """Count the gallery items, junk left out, that rank before each match.

    Args:
        scores: of the queries and the gallery.
        query: labels of the Q queries.
        gallery: labels of the G gallery items.
        rule: what is junk.
        matches: pairs of query and gallery rows, int64 [P] each, by query and then by row; no junk among them.

    Returns:
        int64 [P].

    Raises:
        EvaluationError: an embedding is not finite.
    """
    if not len(matches[0]):
        return np.zeros(0, np.int64)
    if not compiled() or (isinstance(scores, InnerProducts) and scores.device != "cpu"):
        return by_torch(scores, query, gallery, rule, matches)
    max_matches = np.bincount(matches[0]).max(initial=0)
    if isinstance(scores, InnerProducts) and max_matches <= _MAX_MATCHES and _fits_float32(scores):
        return by_blocks(scores, query, gallery, rule, matches)
    return by_rows(scores, query, gallery, rule, matches)


def by_torch(scores: Scores, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """Count as `count_before` does, by comparing every score with the score of every match."""
    before = np.zeros(len(matches[0]), np.int64)
    start = _starts(matches, len(query))
    junk = Junk(query, gallery, rule)
    for part in chunks(*scores.shape):
        part_scores = scores.rows(part)  # [q, G]
        _leave_out(part_scores, junk.pairs(part))
        gallery_row = torch.arange(part_scores.shape[1], device=part_scores.device)
        for i, q in enumerate(range(part.start, part.stop)):
            query_matches = slice(start[q], start[q + 1])
            match_row = torch.from_numpy(matches[1][query_matches]).to(part_scores.device)[:, None]  # [matches, 1]
            match_score = part_scores[i][match_row]  # [matches, 1]
            tied_and_earlier = (part_scores[i] == match_score) & (gallery_row < match_row)
            ranks_before = (part_scores[i] > match_score) | tied_and_earlier  # [matches, G]
            before[query_matches] = ranks_before.sum(1).cpu().numpy()
    return before


def by_rows(scores: Scores, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """Count as `count_before` does, from exact scores of any kind, a part of the queries at a time."""
    from resight.retrieval.kernels import numba_kernels as kernels

    before = np.zeros(len(matches[0]), np.int64)
    start = _starts(matches, len(query))
    junk = Junk(query, gallery, rule)
    for part in chunks(*scores.shape):
        part_scores = scores.rows(part)  # [q, G]
        _leave_out(part_scores, junk.pairs(part))
        first_match = start[part.start]
        part_matches = slice(first_match, start[part.stop])
        part_start = start[part.start : part.stop + 1] - first_match  # [q + 1]
        arrays = (part_scores.numpy(), part_start, matches[1][part_matches], before[part_matches])
        in_threads(lambda a, b, arrays=arrays: kernels.count_rows(*arrays, a, b), len(part_scores))
    return before


def by_blocks(scores: InnerProducts, query: Labels, gallery: Labels, rule: Rule, matches: Pairs) -> np.ndarray:
    """Count as `count_before` does, from inner products, a block of the gallery at a time.

    A longer gallery needs no more memory.
    """
    from resight.retrieval.kernels import numba_kernels as kernels

    # Score each match exactly and sort each query's matches by score: [P].
    queries = np.ascontiguousarray(scores.query, np.float32)  # [Q, D]
    exact = _exact_scores(queries, scores.gallery, matches)
    order = _ascending(matches[0], exact)
    sorted_matches = _SortedMatches.of(matches, exact, order, len(query))

    # Prepare approximate scores that are precise near each query's matches: middle [Q].
    mean = np.asarray(scores.gallery[:4096], np.float32).mean(0)  # [D]
    middle = sorted_matches.middle()
    products = Products(queries, mean, middle)
    require_finite(scores, products.length, mean)

    for block in blocks_of(len(gallery)):
        # Load a block of the gallery, [g, D], and bound the error of its products: error [Q].
        block_items = np.asarray(scores.gallery[block])
        error = products.take(block_items)
        require_finite(scores, error)
        junk = Junk(query, gallery.take(block), rule)
        block_bits = bits_of(block_items)
        for first_query in range(0, len(query), _QUERIES):
            # Multiply a part of the queries with the block, junk at -inf: approximate [q, g].
            part = slice(first_query, min(first_query + _QUERIES, len(query)))
            approximate = products.near(part)
            approximate[junk.pairs(part)] = NOTHING
            # Add the block's items to the counts of the part's matches.
            block_scores = kernels.ScoreBlock(approximate, queries[part], block_bits, products.slack[part], block.start)
            arrays = (block_scores, sorted_matches.block(part, middle, error))
            in_threads(lambda a, b, arrays=arrays: kernels.count_before(*arrays, a, b), len(approximate))

    # Return to the order in which the matches came: [P].
    before = np.empty_like(sorted_matches.before)
    before[order] = sorted_matches.before
    return before


@dataclass(frozen=True)
class _SortedMatches:
    """The P matches by query and then by ascending exact score; of equal scores the later gallery row first."""

    start: np.ndarray
    """int64 [Q + 1], where each query's matches begin."""
    query_row: np.ndarray
    """int64 [P]."""
    gallery_row: np.ndarray
    """int64 [P]."""
    score: np.ndarray
    """float32 [P]."""
    before: np.ndarray
    """int64 [P], the items counted so far."""

    @staticmethod
    def of(matches: Pairs, exact: np.ndarray, order: np.ndarray, queries: int) -> "_SortedMatches":
        """Sort matches, `exact` being their scores."""
        before = np.zeros(len(order), np.int64)
        return _SortedMatches(_starts(matches, queries), matches[0][order], matches[1][order], exact[order], before)

    def middle(self) -> np.ndarray:
        """Return a score of each query, float64 [Q], near its lower matches, where most items in doubt are."""
        counts = np.diff(self.start)
        has_match = counts > 0
        middle = np.zeros(len(counts))
        middle[has_match] = self.score[(self.start[:-1] + counts // 4)[has_match]]
        return middle

    def block(self, part: slice, middle: np.ndarray, error: np.ndarray) -> "MatchBlock":
        """Return what the kernel needs of the matches of some queries; its counts are a view of these."""
        from resight.retrieval.kernels.numba_kernels import MatchBlock

        first_match = self.start[part.start]
        rows = slice(first_match, self.start[part.stop])
        query_row = self.query_row[rows]
        above_key, doubt_key = keys_in_doubt(self.score[rows], middle[query_row], error[query_row])
        start = self.start[part.start : part.stop + 1] - first_match
        return MatchBlock(start, self.score[rows], self.gallery_row[rows], above_key, doubt_key, self.before[rows])


def _exact_scores(queries: np.ndarray, gallery: np.ndarray, matches: Pairs) -> np.ndarray:
    """Return the exact scores of the matches: float32 [P]."""
    from resight.retrieval.kernels import dots

    exact = np.empty(len(matches[0]), np.float32)
    gallery_bits = bits_of(gallery)
    in_threads(lambda a, b: dots.dots(queries, gallery_bits, *matches, exact, a, b), len(exact))
    return exact


def _fits_float32(scores: InnerProducts) -> bool:
    """Return whether float32 represents the embeddings without loss."""
    return all(x.dtype.name in ("float32", "float16") for x in (scores.query, scores.gallery))


def _ascending(query_row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the order of matches by query and then by score, of equal scores the later first: int64 [P].

    A sort of whole numbers takes a fifth of a `lexsort`'s time.
    """
    bits = (score + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0
    score_key = np.where(bits < 0, ~bits, bits ^ np.int32(-(2**31))).view(np.uint32)
    sort_key = query_row.astype(np.int64) << 32 | score_key
    return len(sort_key) - 1 - np.argsort(sort_key[::-1], kind="stable")


def _leave_out(scores: Tensor, junk: Pairs) -> None:
    scores[torch.from_numpy(junk[0]), torch.from_numpy(junk[1])] = -torch.inf


def _starts(matches: Pairs, queries: int) -> np.ndarray:
    """Return where each query's matches begin: int64 [Q + 1]."""
    return np.searchsorted(matches[0], np.arange(queries + 1))
