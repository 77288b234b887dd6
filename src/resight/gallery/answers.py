"""Answers to a search: hits with their records and probabilities, grouped and re-ranked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from resight.errors import ConfigError, GalleryError
from resight.gallery.engines.contract import Engine
from resight.gallery.record import Filter, Hit, Record
from resight.gallery.values import require_filter
from resight.retrieval.calibration import Calibration
from resight.retrieval.rerank import rerank as rerank_scores
from resight.retrieval.scores import InnerProducts

_RERANKED: Final = 200  # candidates that re-ranking orders
_MORE: Final = 4  # times k candidates are fetched to make k groups; times more whenever they were too few


@dataclass(frozen=True)
class Answer:
    """One record that a search returned."""

    record: Record
    similarity: float
    """Inner product, from -1 to 1."""
    probability: float | None
    """Probability of the same identity by the model's calibration; None if the model has none."""
    known: bool | None
    """Whether the similarity reaches the calibrated threshold; if none of the answers does, the query is unknown."""
    members: int = 1
    """In a grouped search, the number of candidates in the group."""


@dataclass(frozen=True)
class SearchOptions:
    """How hits become answers."""

    k: int
    where: Filter
    group: str | None = None
    rerank: bool = False
    exclude: frozenset[str] = frozenset()
    """Ids of records that are no answers, such as those that the query is of."""

    def require_valid(self, engine: Engine) -> None:
        """Check the options against a gallery.

        Raises:
            ConfigError: k is less than 1, the group is unknown, or no record has a metadata field of the filter.
        """
        require_k(self.k)
        group: Any = self.group
        if not (group is None or (isinstance(group, str) and group in ("identity", "tracklet"))):
            raise ConfigError(f"answers can be grouped by identity or tracklet, not by {group!r:.60}")
        require_filter(self.where)
        if not self.where.metadata or engine.count(self.where):
            return
        known = engine.fields()
        unknown = sorted(set(self.where.metadata) - known)
        if unknown:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"no record has a field {unknown[0]!r}; the fields of metadata are: {names}")


def require_k(k: int) -> None:
    """Check the number of answers.

    Raises:
        ConfigError: k is no whole number of 1 or more.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"k must be 1 or more, not {k!r:.60}")


def as_queries(vectors: np.ndarray, width: int) -> np.ndarray:
    """Check query vectors, and return them as float32 [Q, D].

    Args:
        vectors: [Q, D], or one vector [D].
        width: D of the gallery's embeddings.

    Raises:
        GalleryError: the vectors have another width, are not finite, or zero.
    """
    with np.errstate(over="ignore"):  # infinity is refused below
        queries = np.atleast_2d(np.asarray(vectors, np.float32))
    if queries.ndim != 2:
        raise GalleryError(f"query vectors must be [Q, {width}], not {list(queries.shape)}")
    if queries.shape[1] != width:
        raise GalleryError(f"a query has {queries.shape[1]} numbers, and the gallery's records have {width}")
    if not np.isfinite(queries).all():
        raise GalleryError("a query vector is not finite (NaN or infinity)")
    if not np.linalg.norm(queries, axis=1).all():
        raise GalleryError("a query vector is zero, so no similarity to it is defined")
    return queries


def find_answers(
    engine: Engine,
    vectors: np.ndarray,
    options: SearchOptions,
    calibration: Calibration | None,
    prior: float,
    modalities: Sequence[str | None] | None = None,
) -> list[list[Answer]]:
    """Search an engine and make answers of the hits.

    All queries are searched at once; those whose candidates form fewer than k groups are searched again with more
    candidates.

    Similarities of different pairs of modality subsets are not on one scale. Where the model has a curve for pairs of
    subsets, and the gallery has records of several, each subset is searched, and the answers are in the order of their
    probability.

    Args:
        engine: the engine of the gallery.
        vectors: float32 [Q, D], the queries.
        options: checked.
        calibration: the model's calibration, if it has one.
        prior: probability, before the comparison, that two records are of the same identity.
        modalities: of each query, such as `rgb+tir`, for the calibration of its modalities; None where unknown.

    Returns:
        for each query at most k answers.
    """
    of_queries = modalities or [None] * len(vectors)
    k, group = options.k, options.group
    total = engine.count(options.where)
    subsets = [] if calibration is None else _subsets(engine, options.where, total, calibration, of_queries)
    size = max(_RERANKED if options.rerank else 0, _MORE * k if group else k) + len(options.exclude)
    answers: list[list[Answer]] = [[] for _ in vectors]
    pending = list(range(len(vectors)))
    while pending:
        hits = _search(engine, vectors[pending], size, options.where, subsets)
        records = _read_records(engine, hits)
        pairs = [
            [(records[hit.id], hit.similarity) for hit in row if hit.id in records and hit.id not in options.exclude]
            for row in hits
        ]
        rated = _rate(pairs, calibration, prior, [of_queries[query] for query in pending])
        incomplete = list[int]()
        for query, candidates in zip(pending, rated, strict=True):
            if subsets:
                candidates = _by_probability(candidates, size)
            if options.rerank:
                candidates = _rerank(vectors[query], candidates)
            ordered = candidates if group is None else _group(candidates, group)
            answers[query] = ordered[:k]
            if group is not None and len(ordered) < k and size < total:
                incomplete.append(query)
        pending = incomplete
        size *= _MORE
    return answers


def mean_query(vectors: np.ndarray) -> np.ndarray:
    """Combine embeddings of one object into a single query: their mean, scaled to unit length.

    Args:
        vectors: float32 [N, D].

    Returns:
        float32 [1, D].
    """
    mean = np.asarray(vectors, np.float32).mean(0, keepdims=True)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def common_modality(modalities: Sequence[str | None]) -> str | None:
    """The modalities of a mean query: those of all its sightings; None where they differ."""
    return modalities[0] if len(set(modalities)) == 1 else None


def _subsets(
    engine: Engine, where: Filter, total: int, calibration: Calibration, of_queries: Sequence[str | None]
) -> list[str]:
    """The modality subsets with curves of their own that the records that match have; none where all have one subset,
    or no query has such a curve."""
    curves = [curve for curve in calibration.subsets if curve.query in of_queries]
    names = sorted({curve.gallery for curve in curves}, key=lambda name: -name.count("+"))
    counts = dict[str, int]()
    for name in names:
        if sum(counts.values()) < total and (not where.modality or name in where.modality):
            counts[name] = engine.count(replace(where, modality=(name,)))
    return [] if total in counts.values() else [name for name, count in counts.items() if count]


def _search(engine: Engine, vectors: np.ndarray, size: int, where: Filter, subsets: Sequence[str]) -> list[list[Hit]]:
    """The nearest records that match, and the nearest of each subset besides."""
    rows = [{hit.id: hit for hit in row} for row in engine.search(vectors, size, where)]
    for subset in subsets:
        for row, more in zip(rows, engine.search(vectors, size, replace(where, modality=(subset,))), strict=True):
            row.update((hit.id, hit) for hit in more)
    return [list(row.values()) for row in rows]


def _by_probability(answers: list[Answer], size: int) -> list[Answer]:
    """The answers by probability; those of equal probability by similarity."""
    return sorted(answers, key=lambda a: (-(a.probability or 0.0), -a.similarity))[:size]


def _read_records(engine: Engine, hits: Sequence[Sequence[Hit]]) -> dict[str, Record]:
    ids = list(dict.fromkeys(hit.id for row in hits for hit in row))
    return {record.id: record for record in engine.get(ids)}


def _rate(
    pairs: Sequence[Sequence[tuple[Record, float]]],
    calibration: Calibration | None,
    prior: float,
    of_queries: Sequence[str | None],
) -> list[list[Answer]]:
    """Make answers of the pairs of record and similarity of each query; each curve is computed once for all queries."""
    if calibration is None:
        return [[Answer(record, similarity, None, None) for record, similarity in row] for row in pairs]
    similarities = dict[tuple[str | None, str | None], list[float]]()  # by the modalities of query and record
    for modalities, row in zip(of_queries, pairs, strict=True):
        for record, similarity in row:
            similarities.setdefault((modalities, record.modality), []).append(similarity)
    curves = {kind: calibration.between(*kind) for kind in similarities}
    probabilities = {kind: iter(curves[kind].of(np.array(row), prior).tolist()) for kind, row in similarities.items()}

    def answer(kind: tuple[str | None, str | None], record: Record, similarity: float) -> Answer:
        return Answer(record, similarity, next(probabilities[kind]), similarity >= curves[kind].threshold)

    return [
        [answer((modalities, record.modality), record, similarity) for record, similarity in row]
        for modalities, row in zip(of_queries, pairs, strict=True)
    ]


def _group(answers: Sequence[Answer], group: str) -> list[Answer]:
    """The first answer of each group, with the number of its members; a record without a label is its own group."""
    groups: dict[str, Answer] = {}
    for answer in answers:
        label = getattr(answer.record, group)
        name = f"record {answer.record.id}" if label is None else f"group {label}"
        first = groups.setdefault(name, replace(answer, members=0))
        groups[name] = replace(first, members=first.members + 1)
    return list(groups.values())


def _rerank(query: np.ndarray, answers: list[Answer]) -> list[Answer]:
    if len(answers) < 2:
        return answers
    scores = InnerProducts(query[None], np.stack([answer.record.vector for answer in answers]))
    order = rerank_scores(scores).rows(slice(0, 1))[0].argsort(descending=True, stable=True)
    return [answers[n] for n in order.tolist()]
