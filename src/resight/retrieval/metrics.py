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
    """A measured ranking. Rates are in [0, 1]."""

    ap: np.ndarray
    """float64 [Q], average precision: the mean, over a query's matches, of (matches so far) / rank; NaN without any."""
    inp: np.ndarray
    """float64 [Q], inverse negative penalty (Ye et al. 2021, equation 6): matches over the rank of the hardest one."""
    first: np.ndarray
    """int64 [Q]: rank of the first match, from 1, as the protocol's CMC counts; 0 where there is none."""
    by_rule: np.ndarray
    """bool [Q]: the gallery has matches, beside the query's own file, and the junk rule removed every one."""

    @property
    def valid(self) -> np.ndarray:
        """bool [Q]: the queries with a match; the others are left out of every figure."""
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
        """float64 [50]: the share of queries with a match among the first k."""
        first = self.first[self.valid]
        return np.array([(first <= k).mean() for k in range(1, CMC_RANKS + 1)])

    @property
    def r1(self) -> float:
        """CMC at rank 1."""
        return float(self.cmc[0])

    @property
    def unmatched(self) -> int:
        """Queries without a match."""
        return int((~self.valid).sum())

    @property
    def unmatched_by_rule(self) -> int:
        """Those of them that have a match which the junk rule removed."""
        return int(self.by_rule.sum())

    def summary(self) -> dict[str, float]:
        """The figures that papers print."""
        cmc = self.cmc
        return {"mAP": self.map, "mINP": self.minp, **{f"R{k}": float(cmc[k - 1]) for k in (1, 5, 10)}}


def measure(scores: Scores, query: Labels, gallery: Labels, rule: Rule, once: bool = False) -> Metrics:
    """Ranks the gallery for each query and measures the ranking. Ties go to the earlier gallery row.

    Args:
        scores: of the queries and the gallery.
        query: labels of the queries.
        gallery: labels of the gallery.
        rule: what is left out.
        once: whether CMC counts each identity once, by its best item (SYSU-MM01).

    Raises:
        EvaluationError: no query has a match left, and which rule removed what; or an embedding is not finite.
    """
    found = rank(scores, query, gallery, rule, once)
    if not found.valid.any():
        raise EvaluationError(why_nothing(len(query), found.unmatched_by_rule, rule))
    return found


def rank(scores: Scores, query: Labels, gallery: Labels, rule: Rule, once: bool = False) -> Metrics:
    """`measure`, but of queries that may all be without a match.

    Raises:
        EvaluationError: an embedding is not finite.
    """
    matches, by_rule = matching(query, gallery, rule)
    before = count_before(scores, query, gallery, rule, matches)
    order = np.argsort(matches[0] * (len(gallery) + 1) + before)  # by query, then by rank: no two are the same
    asked, ranks = matches[0][order], before[order] + 1  # ranks ascending within a query

    counts = np.bincount(asked, minlength=len(query))
    begin = np.flatnonzero(np.diff(asked, prepend=-1))  # where each query's ranks begin
    so_far = np.arange(len(asked)) - np.repeat(begin, counts[counts > 0]) + 1
    ap, inp, first = np.full(len(query), np.nan), np.full(len(query), np.nan), np.zeros(len(query), np.int64)
    valid = counts > 0
    if valid.any():
        ap[valid] = np.add.reduceat(so_far / ranks, begin) / counts[valid]
        inp[valid] = counts[valid] / ranks[begin + counts[valid] - 1]
        first[valid] = ranks[begin]
    if once and valid.any():
        best = matches[1][order[begin]]
        first[valid] = 1 + _identities_before(scores, query, gallery, rule, np.flatnonzero(valid), best)
    return Metrics(ap, inp, first, by_rule)


def _identities_before(
    scores: Scores, query: Labels, gallery: Labels, rule: Rule, asked: np.ndarray, best: np.ndarray
) -> np.ndarray:
    """How many identities have an item that ranks before each query's first match, `best`: int64 [asked]."""
    identity = np.where(
        gallery.identity < 0, gallery.identity.max(initial=0) + 1 + np.arange(len(gallery)), gallery.identity
    )
    found, match = np.zeros(len(query), np.int64), np.zeros(len(query), np.int64)
    match[asked] = best
    junk = Junk(query, gallery, rule)
    for part in chunks(*scores.shape):
        score = scores.rows(part).cpu().numpy()  # [q, G]
        score[junk.pairs(part)] = -np.inf
        for i, q in enumerate(range(part.start, part.stop)):
            own = score[i, match[q]]
            ahead = score[i] > own
            ahead[: match[q]] |= score[i, : match[q]] == own
            found[q] = len(np.unique(identity[ahead]))
    return found[asked]


def why_nothing(queries: int, by_rule: int, rule: Rule) -> str:
    """The sentence for a ranking that nothing can be measured of."""
    if by_rule:
        return (
            f"no query has a match left: of {queries} queries, the rule {rule.name!r} removed every match of {by_rule} "
            f"(it leaves out the query's own file and {rule.words}); use --junk none to keep them"
        )
    return f"no query has a match: none of the identities of the {queries} queries is in the gallery"
