"""Ranking as a protocol says: galleries drawn, each trial measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resight.errors import EvaluationError
from resight.retrieval.junk import Rule, matching
from resight.retrieval.labels import Labels
from resight.retrieval.metrics import Metrics, rank, why_nothing
from resight.retrieval.protocols import Protocol
from resight.retrieval.scores import Scores


@dataclass(frozen=True)
class Ranking:
    """Some of the queries, ranked in some of the gallery."""

    query: np.ndarray
    """int64 [q]: rows of the whole query table."""
    gallery: np.ndarray
    """int64 [g]: rows of the whole gallery table."""
    scores: Scores
    metrics: Metrics


@dataclass(frozen=True)
class Trial:
    """One draw of the gallery, ranked."""

    rankings: tuple[Ranking, ...]
    """One, or one for each camera that asks; no query asks in two of them."""

    @property
    def asked(self) -> np.ndarray:
        """int64 [q]: the rows of the query table that ask."""
        return np.concatenate([ranking.query for ranking in self.rankings])

    @property
    def searched(self) -> np.ndarray:
        """int64 [g]: the rows of the gallery table that some of them search, ascending."""
        return np.unique(np.concatenate([ranking.gallery for ranking in self.rankings]))

    @property
    def metrics(self) -> Metrics:
        """Of all of its queries, in the order of `asked`."""
        parts = [ranking.metrics for ranking in self.rankings]
        names = ("ap", "inp", "first", "by_rule")
        return Metrics(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def measure_trials(
    protocol: Protocol, rule: Rule, query: Labels, gallery: Labels, score: Callable[[np.ndarray, np.ndarray], Scores]
) -> tuple[Trial, ...]:
    """Measures every trial of a protocol.

    Args:
        protocol: who asks and what is drawn.
        rule: what is left out (the protocol's own, or another).
        query: labels of all that may ask.
        gallery: labels of all that may be searched.
        score: given rows of both, int64 [q] and [g], their scores.

    Raises:
        EvaluationError: nobody asks, nothing is searched, or no query has a match left.
    """
    return tuple(_trial(protocol, rule, query, gallery, score, number) for number in range(protocol.trials))


def require_any_match(protocol: Protocol, rule: Rule, query: Labels, gallery: Labels) -> None:
    """Makes sure, from the labels alone, that some query of the first trial has a match.

    Raises:
        EvaluationError: nobody asks, nothing is searched, or no query has a match left; says which rule removed what.
    """
    asks, by_rule = 0, 0
    for asked, searched in draws(protocol, query, gallery, 0):
        matches, removed = matching(query.take(asked), gallery.take(searched), rule)
        if len(matches[0]):
            return
        asks, by_rule = asks + len(asked), by_rule + int(removed.sum())
    raise EvaluationError(why_nothing(asks, by_rule, rule))


def _trial(
    protocol: Protocol,
    rule: Rule,
    query: Labels,
    gallery: Labels,
    score: Callable[[np.ndarray, np.ndarray], Scores],
    number: int,
) -> Trial:
    done = list[Ranking]()
    for asked, searched in draws(protocol, query, gallery, number):
        scores = score(asked, searched)
        done.append(
            Ranking(
                asked, searched, scores, rank(scores, query.take(asked), gallery.take(searched), rule, protocol.once)
            )
        )
    if not any(ranking.metrics.valid.any() for ranking in done):
        by_rule = sum(ranking.metrics.unmatched_by_rule for ranking in done)
        raise EvaluationError(why_nothing(sum(len(ranking.query) for ranking in done), by_rule, rule))
    return Trial(tuple(done))


def draws(protocol: Protocol, query: Labels, gallery: Labels, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows that ask and rows that are searched, in trial `number`; more than one pair where cameras search apart.

    Raises:
        EvaluationError: nobody asks or nothing is searched.
    """
    asked, pool = np.flatnonzero(query.where(protocol.query)), np.flatnonzero(gallery.where(protocol.gallery))
    for rows, wanted, does in ((asked, protocol.query, "asks"), (pool, protocol.gallery, "is searched")):
        if not len(rows):
            labels = " and ".join(f"{column} {', '.join(names)}" for column, names in wanted.items())
            raise EvaluationError(f"protocol {protocol.name!r}: nothing {does}; it wants {labels or 'any sighting'}")
    rng = np.random.default_rng(number)
    if protocol.other_camera:
        cameras = query["camera"][asked]
        if (cameras < 0).any():
            raise EvaluationError(f"protocol {protocol.name!r} needs every query's camera, and some are not known")
        others = [(asked[cameras == c], pool[gallery["camera"][pool] != c]) for c in np.unique(cameras)]
        return [(some, _drawn(protocol, gallery, rows, rng)) for some, rows in others if len(rows)]
    searched = _drawn(protocol, gallery, pool, rng)
    if protocol.rest_asks:
        asked = asked[~np.isin(query["picture"][asked], gallery["picture"][searched])]
    return [(asked, searched)]


def _drawn(protocol: Protocol, gallery: Labels, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows drawn from `pool`, ascending; an item that lacks one of the labels is not drawn."""
    if not protocol.draw:
        return pool
    groups = gallery.take(pool).groups(protocol.draw)
    shuffled = rng.permutation(len(pool))
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]  # by group, at random within one
    found = groups[order]
    place = np.arange(len(found)) - np.searchsorted(found, found, "left")
    return np.sort(pool[order[(place < protocol.shots) & (found >= 0)]])
