"""CMC, mAP and mINP from exact rankings, by chunks of queries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from resight.config import JunkRule
from resight.errors import EvaluationError
from resight.retrieval.junk import Keys, junk, matches

CMC_RANKS = 50
Scores = Callable[[slice], np.ndarray]
"""float32 [q, G] of a slice of the queries: the greater, the nearer."""
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class Metrics:
    """A measured ranking. Rates are in [0, 1]."""

    map: float
    """Mean over the queries of the average precision: the mean, over a query's matches, of (matches so far) / rank."""
    minp: float
    """Mean inverse negative penalty (Ye et al. 2021, equation 6): matches over the rank of the hardest one."""
    cmc: np.ndarray
    """float64 [50]: the share of queries with a match among the first k."""
    ap: np.ndarray
    """float64 [Q]; NaN where the query has no match."""
    first: np.ndarray
    """int64 [Q]: rank of the first match, from 1; 0 where there is none."""
    unmatched: int
    """Queries without a match, left out of every figure."""
    unmatched_by_rule: int
    """Those of them that have a match which the junk rule removed."""

    @property
    def r1(self) -> float:
        """CMC at rank 1."""
        return float(self.cmc[0])

    def summary(self) -> dict[str, float]:
        """The figures that papers print."""
        ranks = {f"R{k}": float(self.cmc[k - 1]) for k in (1, 5, 10)}
        return {"mAP": self.map, "mINP": self.minp, **ranks}


def inner_products(query: np.ndarray, gallery: np.ndarray) -> Scores:
    """Scores of embeddings [Q, D] and [G, D], in float32; of unit length, they order as Euclidean distance does."""
    searched = gallery.astype(np.float32).T
    return lambda part: query[part].astype(np.float32) @ searched


def measure(scores: Scores, query_keys: Keys, gallery_keys: Keys, rule: JunkRule) -> Metrics:
    """Ranks the gallery for each query and measures the ranking. Ties go to the earlier gallery row.

    Args:
        scores: of embeddings (`inner_products`), or the negative of re-ranked distances.
        query_keys: labels of the queries.
        gallery_keys: labels of the gallery.
        rule: what is left out.

    Raises:
        EvaluationError: no query has a match left; says which rule removed what.
    """
    queries, by_rule = len(query_keys), 0
    ap, inp, first = np.full(queries, np.nan), np.full(queries, np.nan), np.zeros(queries, np.int64)
    for part, order, hit, removed in _rankings(scores, query_keys, gallery_keys, rule):
        by_rule += removed
        for row, q in enumerate(range(part.start, part.stop)):
            ranks = 1 + np.flatnonzero(hit[row, order[row]])  # of the matches, junk lying after everything
            if len(ranks):
                ap[q] = np.mean(np.arange(1, len(ranks) + 1) / ranks)
                inp[q] = len(ranks) / ranks[-1]
                first[q] = ranks[0]
    valid = first > 0
    unmatched = int((~valid).sum())
    if not valid.any():
        raise EvaluationError(_why_nothing(queries, by_rule, rule))
    cmc = np.array([(first[valid] <= k).mean() for k in range(1, CMC_RANKS + 1)])
    return Metrics(float(ap[valid].mean()), float(inp[valid].mean()), cmc, ap, first, unmatched, by_rule)


def require_any_match(query_keys: Keys, gallery_keys: Keys, rule: JunkRule) -> None:
    """Makes sure, from the labels alone, that some query has a match.

    Raises:
        EvaluationError: none has; says which rule removed what.
    """
    by_rule = 0
    for part in _chunks(len(query_keys), len(gallery_keys)):
        same = matches(query_keys.rows(part), gallery_keys)
        if (same & ~junk(query_keys.rows(part), gallery_keys, rule)).any():
            return
        by_rule += int(same.any(1).sum())
    raise EvaluationError(_why_nothing(len(query_keys), by_rule, rule))


def top(scores: Scores, query_keys: Keys, gallery_keys: Keys, rule: JunkRule, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery rows of each query, junk left out: int64 [Q, k], -1 where fewer are left; bool hits."""
    nearest, hits = np.full((len(query_keys), k), -1), np.zeros((len(query_keys), k), bool)
    for part, order, hit, _ in _rankings(scores, query_keys, gallery_keys, rule):
        left = junk(query_keys.rows(part), gallery_keys, rule)
        for row, q in enumerate(range(part.start, part.stop)):
            rows = order[row][: min(k, len(gallery_keys) - int(left[row].sum()))]
            nearest[q, : len(rows)], hits[q, : len(rows)] = rows, hit[row, rows]
    return nearest, hits


def _rankings(
    scores: Scores, query_keys: Keys, gallery_keys: Keys, rule: JunkRule
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, int]]:
    """By chunks: the queries, their order [q, G] (junk last), their matches [q, G] less junk, and how many lost all."""
    for part in _chunks(len(query_keys), len(gallery_keys)):
        left_out = junk(query_keys.rows(part), gallery_keys, rule)
        score = np.where(left_out, -np.inf, scores(part))  # [q, G]
        same = matches(query_keys.rows(part), gallery_keys)
        hit = same & ~left_out
        removed = int((same.any(1) & ~hit.any(1)).sum())
        yield part, np.argsort(-score, axis=1, kind="stable"), hit, removed


def _chunks(queries: int, size: int) -> Iterator[slice]:
    step = max(1, _CHUNK_BYTES // (8 * max(1, size)))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def _why_nothing(queries: int, by_rule: int, rule: JunkRule) -> str:
    if by_rule:
        return (
            f"no query has a match left: of {queries} queries, the rule {rule!r} removed every match of {by_rule} "
            "(the same identity is in the gallery only under the query's own camera, or as the same file); "
            "use --junk none to keep them"
        )
    return f"no query has a match: none of the identities of the {queries} queries is in the gallery"
