"""CMC, mAP and mINP from exact rankings, in bounded memory."""

from dataclasses import dataclass

import numpy as np

from resight.errors import EvaluationError
from resight.retrieval.junk import Junk, Rule, matching
from resight.retrieval.kernels.counting import count_before
from resight.retrieval.labels import Labels
from resight.retrieval.scores import Scores, chunks

CMC_RANKS = 50


@dataclass(frozen=True)
class Metrics:
    """The figures of a ranking, by query. Rates are in [0, 1]."""

    ap: np.ndarray
    """float64 [Q], average precision: the mean, over a query's matches, of (matches so far) / rank; NaN without any."""
    inp: np.ndarray
    """float64 [Q], inverse negative penalty (Ye et al. 2021, equation 6): matches over the rank of the hardest one."""
    first: np.ndarray
    """int64 [Q]: rank of the first match, from 1, as the protocol's CMC counts; 0 where there is none."""
    by_rule: np.ndarray
    """bool [Q]: the gallery has matches other than the query's own file, and the junk rule removed all of them."""

    @property
    def valid(self) -> np.ndarray:
        """bool [Q]: the queries with a match; all others are left out of every figure."""
        return self.first > 0

    @property
    def map(self) -> float:
        """Mean average precision."""
        return float(self.ap[self.valid].mean())

    @property
    def minp(self) -> float:
        """Mean inverse negative penalty."""
        return float(self.inp[self.valid].mean())

    @property
    def cmc(self) -> np.ndarray:
        """float64 [50]: the fraction of the valid queries with a match among the first k items, for k from 1."""
        first = self.first[self.valid]
        return np.array([(first <= k).mean() for k in range(1, CMC_RANKS + 1)])

    @property
    def r1(self) -> float:
        """The CMC at rank 1."""
        return float(self.cmc[0])

    @property
    def unmatched(self) -> int:
        """The number of queries without a match."""
        return int((~self.valid).sum())

    @property
    def unmatched_by_rule(self) -> int:
        """The number of queries that had matches, all of which the junk rule removed."""
        return int(self.by_rule.sum())

    def summary(self) -> dict[str, float]:
        """Return the figures that papers print: mAP, mINP, and R1, R5 and R10."""
        cmc = self.cmc
        return {"mAP": self.map, "mINP": self.minp, **{f"R{k}": float(cmc[k - 1]) for k in (1, 5, 10)}}


def measure(scores: Scores, query: Labels, gallery: Labels, rule: Rule, once: bool = False) -> Metrics:
    """Rank the gallery for each query and measure the ranking. Ties go to the earlier gallery row.

    Args:
        scores: of the queries and the gallery.
        query: labels of the queries.
        gallery: labels of the gallery.
        rule: what is left out.
        once: whether CMC counts each identity once, by its best item (SYSU-MM01).

    Raises:
        EvaluationError: no query has a match left (the message tells how many the rule removed); or an embedding is
            not finite.
    """
    metrics = rank(scores, query, gallery, rule, once)
    if not metrics.valid.any():
        raise EvaluationError(why_nothing(len(query), metrics.unmatched_by_rule, rule))
    return metrics


def rank(scores: Scores, query: Labels, gallery: Labels, rule: Rule, once: bool = False) -> Metrics:
    """Rank and measure as `measure` does, but allow that no query has a match.

    Raises:
        EvaluationError: an embedding is not finite.
    """
    matches, by_rule = matching(query, gallery, rule)
    # Rank the matches: sort them by query and then by rank, of which no two are equal: [P].
    before = count_before(scores, query, gallery, rule, matches)
    order = np.argsort(matches[0] * (len(gallery) + 1) + before)
    query_rows = matches[0][order]
    ranks = before[order] + 1

    # Count each query's matches up to each rank: [P].
    counts = np.bincount(query_rows, minlength=len(query))  # [Q]
    start = np.flatnonzero(np.diff(query_rows, prepend=-1))  # where each valid query's ranks begin
    matches_so_far = np.arange(len(query_rows)) - np.repeat(start, counts[counts > 0]) + 1

    # Average the precision over each query's matches: [Q].
    ap = np.full(len(query), np.nan)
    inp = np.full(len(query), np.nan)
    first = np.zeros(len(query), np.int64)
    valid = counts > 0
    if valid.any():
        ap[valid] = np.add.reduceat(matches_so_far / ranks, start) / counts[valid]
        inp[valid] = counts[valid] / ranks[start + counts[valid] - 1]
        first[valid] = ranks[start]
    if once and valid.any():
        first_match = matches[1][order[start]]
        first[valid] = 1 + _identities_before(scores, query, gallery, rule, np.flatnonzero(valid), first_match)
    return Metrics(ap, inp, first, by_rule)


def _identities_before(
    scores: Scores, query: Labels, gallery: Labels, rule: Rule, query_rows: np.ndarray, first_match: np.ndarray
) -> np.ndarray:
    """Count the identities with an item that ranks before the first match of each query of `query_rows`: int64."""
    # Give each item of unknown identity an identity of its own: [G].
    identity = np.where(
        gallery.identity < 0, gallery.identity.max(initial=0) + 1 + np.arange(len(gallery)), gallery.identity
    )
    count = np.zeros(len(query), np.int64)
    match_row = np.zeros(len(query), np.int64)
    match_row[query_rows] = first_match
    junk = Junk(query, gallery, rule)
    for part in chunks(*scores.shape):
        part_scores = scores.rows(part).cpu().numpy()  # [q, G]
        part_scores[junk.pairs(part)] = -np.inf
        for i, q in enumerate(range(part.start, part.stop)):
            match_score = part_scores[i, match_row[q]]
            ranks_before = part_scores[i] > match_score  # [G]
            ranks_before[: match_row[q]] |= part_scores[i, : match_row[q]] == match_score
            count[q] = len(np.unique(identity[ranks_before]))
    return count[query_rows]


def why_nothing(queries: int, by_rule: int, rule: Rule) -> str:
    """Return the error text for a ranking without any match."""
    if by_rule:
        return (
            f"no query has a match left: of {queries} queries, the rule {rule.name!r} removed every match of {by_rule} "
            f"(it leaves out the query's own file and {rule.words}); use --junk none to keep them"
        )
    return f"no query has a match: none of the identities of the {queries} queries is in the gallery"
