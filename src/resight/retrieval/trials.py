"""Trials of a protocol: draw galleries, rank and measure each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resight.errors import EvaluationError
from resight.retrieval.junk import Pairs, Rule, matching
from resight.retrieval.labels import Labels
from resight.retrieval.metrics import Metrics, rank, why_nothing
from resight.retrieval.protocols import Protocol, Selection
from resight.retrieval.scores import Scores


@dataclass(frozen=True)
class Ranking:
    """A subset of the queries, ranked in a subset of the gallery."""

    query: np.ndarray
    """int64 [q]: rows of the query table."""
    gallery: np.ndarray
    """int64 [g]: rows of the gallery table."""
    scores: Scores
    metrics: Metrics


@dataclass(frozen=True)
class Trial:
    """One draw of the gallery, ranked."""

    rankings: tuple[Ranking, ...]
    """One, or one for each camera of the queries; no query is in two of them."""

    @property
    def query_rows(self) -> np.ndarray:
        """int64 [q]: the rows of the query table that are ranked."""
        return np.concatenate([ranking.query for ranking in self.rankings])

    @property
    def gallery_rows(self) -> np.ndarray:
        """int64 [g]: the rows of the gallery table that are in any ranking, ascending."""
        return np.unique(np.concatenate([ranking.gallery for ranking in self.rankings]))

    @property
    def metrics(self) -> Metrics:
        """The figures of all queries, in the order of `query_rows`."""
        parts = [ranking.metrics for ranking in self.rankings]
        names = ("ap", "inp", "first", "by_rule")
        return Metrics(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def measure_trials(
    protocol: Protocol, rule: Rule, query: Labels, gallery: Labels, score: Callable[[np.ndarray, np.ndarray], Scores]
) -> tuple[Trial, ...]:
    """Measure every trial of a protocol.

    Args:
        protocol: which rows are queries and how the gallery is drawn.
        rule: what is left out (the protocol's own rule, or another).
        query: labels of the query table.
        gallery: labels of the gallery table.
        score: a function from rows of both tables, int64 [q] and [g], to their scores.

    Raises:
        EvaluationError: the protocol selects no query or no gallery item, or no query has a match left.
    """
    return tuple(_trial(protocol, rule, query, gallery, score, number) for number in range(protocol.trials))


def require_any_match(protocol: Protocol, rule: Rule, query: Labels, gallery: Labels) -> None:
    """Check, from the labels alone, that a query of the first trial has a match.

    Raises:
        EvaluationError: the protocol selects no query or no gallery item, or no query has a match left; the message
            tells how many matches the rule removed.
    """
    queries = 0
    by_rule = 0
    for query_rows, gallery_rows in draws(protocol, query, gallery, 0):
        matches, removed = matching(query.take(query_rows), gallery.take(gallery_rows), rule)
        if len(matches[0]):
            return
        queries += len(query_rows)
        by_rule += int(removed.sum())
    raise EvaluationError(why_nothing(queries, by_rule, rule))


def _trial(
    protocol: Protocol,
    rule: Rule,
    query: Labels,
    gallery: Labels,
    score: Callable[[np.ndarray, np.ndarray], Scores],
    number: int,
) -> Trial:
    rankings = list[Ranking]()
    for query_rows, gallery_rows in draws(protocol, query, gallery, number):
        scores = score(query_rows, gallery_rows)
        metrics = rank(scores, query.take(query_rows), gallery.take(gallery_rows), rule, protocol.once)
        rankings.append(Ranking(query_rows, gallery_rows, scores, metrics))
    if not any(ranking.metrics.valid.any() for ranking in rankings):
        queries = sum(len(ranking.query) for ranking in rankings)
        by_rule = sum(ranking.metrics.unmatched_by_rule for ranking in rankings)
        raise EvaluationError(why_nothing(queries, by_rule, rule))
    return Trial(tuple(rankings))


def draws(protocol: Protocol, query: Labels, gallery: Labels, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw trial `number`: query rows and gallery rows, int64 [q] and [g].

    Returns:
        one pair, or one for each camera of the queries where the protocol draws a gallery for each.

    Raises:
        EvaluationError: the protocol selects no query or no gallery item, or it needs a camera that is unknown.
    """
    query_rows = np.flatnonzero(query.where(protocol.query))
    candidates = np.flatnonzero(gallery.where(protocol.gallery))
    _require_rows(query_rows, protocol, protocol.query, "query")
    _require_rows(candidates, protocol, protocol.gallery, "gallery")
    rng = np.random.default_rng(number)
    if protocol.other_camera:
        return _draw_by_camera(protocol, query, gallery, (query_rows, candidates), rng)
    gallery_rows = _draw(protocol, gallery, candidates, rng)
    if protocol.rest_is_query:
        query_rows = query_rows[~np.isin(query["picture"][query_rows], gallery["picture"][gallery_rows])]
    return [(query_rows, gallery_rows)]


def _require_rows(rows: np.ndarray, protocol: Protocol, selection: Selection, role: str) -> None:
    if not len(rows):
        labels = " and ".join(f"{column} {', '.join(names)}" for column, names in selection.items())
        raise EvaluationError(
            f"protocol {protocol.name!r} finds no {role} sighting: it selects {labels or 'any'}, which the data "
            "set does not have"
        )


def _draw_by_camera(
    protocol: Protocol, query: Labels, gallery: Labels, rows: Pairs, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw for each camera's queries a gallery from the other cameras; a camera without one is left out."""
    query_rows, candidates = rows
    query_camera = query["camera"][query_rows]
    gallery_camera = gallery["camera"][candidates]
    if (query_camera < 0).any():
        raise EvaluationError(f"protocol {protocol.name!r} needs every query's camera, and some are unknown")
    rankings = list[tuple[np.ndarray, np.ndarray]]()
    for camera in np.unique(query_camera):
        other_candidates = candidates[gallery_camera != camera]
        if len(other_candidates):
            gallery_rows = _draw(protocol, gallery, other_candidates, rng)
            rankings.append((query_rows[query_camera == camera], gallery_rows))
    return rankings


def _draw(protocol: Protocol, gallery: Labels, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw rows from `candidates`, ascending; an item with an unknown label in the columns of `draw` is not drawn."""
    if not protocol.draw:
        return candidates
    groups = gallery.take(candidates).groups(protocol.draw)
    shuffled = rng.permutation(len(candidates))
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]  # by group, at random within a group
    sorted_groups = groups[order]
    position = np.arange(len(sorted_groups)) - np.searchsorted(sorted_groups, sorted_groups, "left")
    return np.sort(candidates[order[(position < protocol.shots) & (sorted_groups >= 0)]])
