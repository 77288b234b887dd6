"""Open-set evaluation: verification of pairs by a threshold, and identification of queries that may be non-mated.

A non-mated query is of an identity that the gallery lacks. Similarities of pairs are counted in 2**20 bins over
[-1, 1], so thresholds are precise to 2e-6 and a million gallery items need no more memory than a thousand. FAR (false
accept rate) and FMR (false match rate) are the same: the fraction of pairs of different identities at or above the
threshold. FNMR = 1 - TAR is the fraction of pairs of the same identity below it.
"""

from dataclasses import dataclass

import numpy as np

from resight.errors import EvaluationError
from resight.retrieval.junk import Junk, Rule, matching
from resight.retrieval.labels import Labels
from resight.retrieval.scores import InnerProducts, chunks

BINS = 1 << 20
FALSE_RATES = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Pairs:
    """Histograms of the similarities of pairs of the same identity and of pairs of different identities."""

    same: np.ndarray
    """int64 [2**20]: number of pairs of one identity in each bin of similarity."""
    different: np.ndarray
    """int64 [2**20]: number of pairs of different identities."""

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute TAR and FAR at every threshold.

        Returns:
            float64 [2**20 + 1] each; the threshold of index n is the lower edge of bin n, and the last accepts nothing.
        """
        return tuple(  # pyright: ignore[reportReturnType]
            np.append(np.cumsum(counts[::-1])[::-1], 0) / max(1, counts.sum()) for counts in (self.same, self.different)
        )

    def at_far(self, far: float) -> tuple[float, float]:
        """Find the lowest threshold whose FAR is at most `far`, and the TAR there."""
        tar, all_far = self.rates()
        index = int(np.argmax(all_far <= far))
        return edge(index), float(tar[index])

    def curve(self, points: int = 61) -> list[dict[str, float]]:
        """Compute the ROC at FARs from 1e-6 to 1: threshold, FAR (also FMR), TAR and FNMR of each point."""
        tar, far = self.rates()
        indices = [int(np.argmax(far <= rate)) for rate in np.logspace(-6, 0, points)]
        return [
            {"threshold": edge(n), "FAR": float(far[n]), "TAR": float(tar[n]), "FNMR": float(1 - tar[n])}
            for n in indices
        ]

    def equal_error(self) -> tuple[float, float]:
        """Find the threshold where FMR and FNMR differ least, and the mean of the two there."""
        tar, far = self.rates()
        index = int(np.argmin(np.abs(far - (1 - tar))))
        return edge(index), float((far[index] + 1 - tar[index]) / 2)


@dataclass(frozen=True)
class NonMated:
    """The best scores of queries with a match and of non-mated queries, for identification."""

    known: np.ndarray
    """float32 [n], of queries with a match: the best match's score where no other item scores as high, else -inf."""
    unmatched: np.ndarray
    """float32 [m], of non-mated queries: the score of the best item."""
    left_out: bool
    """Whether every query has a match; `unmatched` is then of the same queries with their own identity left out of the
    gallery."""

    def at_fpir(self, rate: float) -> tuple[float, float]:
        """Find the lowest threshold that at most the fraction `rate` of the non-mated queries reaches (FPIR).

        Returns:
            the threshold; and the detection and identification rate at rank 1 (DIR), the fraction of queries with a
            match that are identified correctly there.
        """
        descending = np.sort(self.unmatched)[::-1]
        accepted = int(np.floor(rate * len(descending) + 1e-9))
        first_rejected = float(descending[accepted]) if accepted < len(descending) else -np.inf
        threshold = float(np.nextafter(np.float32(first_rejected), np.float32(np.inf)))
        return threshold, float((self.known >= threshold).mean())


@dataclass(frozen=True)
class OpenSet:
    """The figures of verification and of identification in a gallery that lacks some identities."""

    pairs: Pairs
    non_mated: NonMated

    def summary(self) -> dict[str, float]:
        """Return TAR at FAR, DIR at FPIR, their thresholds, and the equal error rate, by name."""
        threshold, error = self.pairs.equal_error()
        figures = {"EER": error, "EER threshold": threshold}
        for rate in FALSE_RATES:
            threshold, tar = self.pairs.at_far(rate)
            figures |= {f"TAR@FAR={rate:g}": tar, f"threshold@FAR={rate:g}": threshold}
        for rate in FALSE_RATES[:2]:
            threshold, identified = self.non_mated.at_fpir(rate)
            figures |= {f"DIR@FPIR={rate:g}": identified, f"threshold@FPIR={rate:g}": threshold}
        return figures


def edge(bin: int) -> float:
    """Return the lower edge of a bin of similarity."""
    return 2 * bin / BINS - 1


def open_set(scores: InnerProducts, query: Labels, gallery: Labels, rule: Rule) -> OpenSet:
    """Compare every query with every gallery item; junk and items of unknown identity are left out.

    Args:
        scores: of embeddings of unit length.
        query: labels of the queries.
        gallery: labels of the gallery.
        rule: what is junk.

    Raises:
        EvaluationError: there is no pair of one identity, or none of different identities.
    """
    (match_query, match_item), _ = matching(query, gallery, rule)
    start = np.searchsorted(match_query, np.arange(len(query) + 1))
    pairs = Pairs(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    best_match = np.full(len(query), -np.inf, np.float32)
    best_other = np.full(len(query), -np.inf, np.float32)
    junk = Junk(query, gallery, rule)
    unknown_item = gallery.identity < 0
    for part in chunks(*scores.shape):
        # Score some queries with the whole gallery, -inf where there is no pair: [q, G].
        part_scores = scores.rows(part).cpu().numpy()
        part_scores[junk.pairs(part)] = -np.inf
        part_scores[:, unknown_item] = -np.inf
        # Count the pairs of one identity, and remove them.
        part_matches = slice(start[part.start], start[part.stop])
        cells = (match_query[part_matches] - part.start, match_item[part_matches])
        np.maximum.at(best_match, match_query[part_matches], part_scores[cells])
        _count(part_scores[cells], pairs.same)
        part_scores[cells] = -np.inf
        # Count the pairs of different identities.
        best_other[part] = part_scores.max(1)
        part_scores[query.identity[part] < 0] = -np.inf
        _count(part_scores, pairs.different)
    _require_pairs(pairs, rule)
    return OpenSet(pairs, _non_mated(query, best_match, best_other))


def _require_pairs(pairs: Pairs, rule: Rule) -> None:
    if not pairs.same.sum() or not pairs.different.sum():
        missing = "of one identity" if not pairs.same.sum() else "of different identities"
        raise EvaluationError(f"open-set figures need pairs {missing}, and there are none under the rule {rule.name!r}")


def _non_mated(query: Labels, best_match: np.ndarray, best_other: np.ndarray) -> NonMated:
    """Divide the queries, by their best scores [Q], into those with a match and the non-mated ones."""
    has_match, has_other = np.isfinite(best_match), np.isfinite(best_other)
    identified = np.where(best_match > best_other, best_match, -np.inf)[has_match]
    non_mated = has_other & ~has_match & (query.identity >= 0)
    left_out = not non_mated.any()
    return NonMated(identified, best_other[has_match & has_other if left_out else non_mated], left_out)


def _count(scores: np.ndarray, counts: np.ndarray) -> None:
    """Add scores to the bins, a few million at a time; -inf is no pair."""
    for part in np.array_split(scores.ravel(), 1 + scores.size // (4 << 20)):
        bins = np.floor((part[np.isfinite(part)].astype(np.float64) + 1) * (BINS / 2)).astype(np.int64)
        counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
