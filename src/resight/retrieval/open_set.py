"""Is this anyone I know? Pairs compared with a threshold (verification), and queries that may be of nobody known.

Similarities of pairs are counted in 2**20 bins over [-1, 1], so that thresholds are good to 2e-6 and a million gallery
items need no more memory than a thousand. FAR (false accept rate) and FMR (false match rate) are one thing: the share
of pairs of different identities at or over the threshold; FNMR = 1 - TAR, the share of pairs of the same one under it.
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
    """What similarities pairs of the same identity have, and pairs of different ones."""

    same: np.ndarray
    """int64 [2**20]: pairs of one identity in each bin of similarity."""
    different: np.ndarray
    """int64 [2**20]: pairs of different identities."""

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """TAR and FAR, float64 [2**20 + 1], where the threshold is the lower edge of bin n (the last accepts
        nothing)."""
        return tuple(  # pyright: ignore[reportReturnType]
            np.append(np.cumsum(counts[::-1])[::-1], 0) / max(1, counts.sum()) for counts in (self.same, self.different)
        )

    def at_far(self, far: float) -> tuple[float, float]:
        """The lowest threshold whose FAR is at most `far`, and the TAR there."""
        tar, found = self.rates()
        at = int(np.argmax(found <= far))
        return edge(at), float(tar[at])

    def curve(self, points: int = 61) -> list[dict[str, float]]:
        """The ROC from a FAR of 1e-6 to 1: threshold, FAR (also FMR), TAR and FNMR."""
        tar, far = self.rates()
        places = [int(np.argmax(far <= wanted)) for wanted in np.logspace(-6, 0, points)]
        return [
            {"threshold": edge(n), "FAR": float(far[n]), "TAR": float(tar[n]), "FNMR": float(1 - tar[n])}
            for n in places
        ]

    def equal_error(self) -> tuple[float, float]:
        """The threshold where FMR and FNMR are nearest to each other, and the mean of the two there."""
        tar, far = self.rates()
        at = int(np.argmin(np.abs(far - (1 - tar))))
        return edge(at), float((far[at] + 1 - tar[at]) / 2)


@dataclass(frozen=True)
class NonMated:
    """Identification of queries that may be of nobody known: the best score each finds."""

    known: np.ndarray
    """float32 [n]: of queries with a match, the best match's score where it is the best item of all; -inf elsewhere."""
    unmatched: np.ndarray
    """float32 [m]: of queries without a match, the best item's score."""
    left_out: bool
    """Every query has a match; strangers are the same queries with their own identity left out of the gallery."""

    def at_fpir(self, rate: float) -> tuple[float, float]:
        """The lowest threshold that lets at most `rate` of the strangers pass (FPIR), and the share of known queries
        that are named rightly there (DIR, detection and identification rate at rank 1)."""
        ordered = np.sort(self.unmatched)[::-1]
        passed = int(np.floor(rate * len(ordered) + 1e-9))
        over = float(ordered[passed]) if passed < len(ordered) else -np.inf  # the first that must not pass
        threshold = float(np.nextafter(np.float32(over), np.float32(np.inf)))
        return threshold, float((self.known >= threshold).mean())


@dataclass(frozen=True)
class OpenSet:
    """Both views of a gallery that may not know everyone."""

    pairs: Pairs
    non_mated: NonMated

    def summary(self) -> dict[str, float]:
        """TAR at FAR, DIR at FPIR, their thresholds, and the equal error rate."""
        threshold, error = self.pairs.equal_error()
        figures = {"EER": error, "EER threshold": threshold}
        for rate in FALSE_RATES:
            threshold, tar = self.pairs.at_far(rate)
            figures |= {f"TAR@FAR={rate:g}": tar, f"threshold@FAR={rate:g}": threshold}
        for rate in FALSE_RATES[:2]:
            threshold, named = self.non_mated.at_fpir(rate)
            figures |= {f"DIR@FPIR={rate:g}": named, f"threshold@FPIR={rate:g}": threshold}
        return figures


def edge(bin: int) -> float:
    """The lower edge of a bin of similarity."""
    return 2 * bin / BINS - 1


def open_set(scores: InnerProducts, query: Labels, gallery: Labels, rule: Rule) -> OpenSet:
    """Compares every query with every gallery item, junk left out; items of unknown identity take no part.

    Args:
        scores: of embeddings of unit length.
        query: labels of the queries.
        gallery: labels of the gallery.
        rule: what is junk.

    Raises:
        EvaluationError: there is no pair of one identity, or none of different ones.
    """
    matches, _ = matching(query, gallery, rule)
    start = np.searchsorted(matches[0], np.arange(len(query) + 1))
    pairs = Pairs(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    best_match, best_other = (np.full(len(query), -np.inf, np.float32) for _ in range(2))
    junk = Junk(query, gallery, rule)
    nobody = gallery.identity < 0
    for part in chunks(*scores.shape):
        found = scores.rows(part).cpu().numpy()  # [q, G]
        found[junk.pairs(part)] = -np.inf
        found[:, nobody] = -np.inf
        some = slice(start[part.start], start[part.stop])
        at = (matches[0][some] - part.start, matches[1][some])
        np.maximum.at(best_match, matches[0][some], found[at])
        _count(found[at], pairs.same)
        found[at] = -np.inf
        best_other[part] = found.max(1)
        found[query.identity[part] < 0] = -np.inf
        _count(found, pairs.different)
    if not pairs.same.sum() or not pairs.different.sum():
        which = "of one identity" if not pairs.same.sum() else "of different identities"
        raise EvaluationError(f"open-set figures need pairs {which}, and there are none under the rule {rule.name!r}")
    named, known = query.identity >= 0, np.isfinite(best_match)
    right = np.where(best_match > best_other, best_match, -np.inf)[known]
    non_mated = np.isfinite(best_other) & ~known & named
    left_out = not non_mated.any()
    return OpenSet(
        pairs, NonMated(right, best_other[known & np.isfinite(best_other) if left_out else non_mated], left_out)
    )


def _count(scores: np.ndarray, counts: np.ndarray) -> None:
    """Adds scores to the bins, a few million at a time; -inf is no pair."""
    for part in np.array_split(scores.ravel(), 1 + scores.size // (4 << 20)):
        bins = np.floor((part[np.isfinite(part)].astype(np.float64) + 1) * (BINS / 2)).astype(np.int64)
        counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
