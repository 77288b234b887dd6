"""Measuring a model: embed query and gallery, rank as a protocol says, count."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from resight.config.sections import Evaluation, Pooling, Precision, Preprocessing
from resight.data.sightings import Split
from resight.data.vocabulary import Vocabulary
from resight.device import Compute, resolve_compute
from resight.errors import ConfigError
from resight.evaluation.labels import keys
from resight.inference.embed import embed_table
from resight.inference.embeddings import Embedded
from resight.models.transreid import TransReID
from resight.retrieval.junk import Rule, rule_of
from resight.retrieval.labels import Labels
from resight.retrieval.metrics import Metrics
from resight.retrieval.neighbors import top
from resight.retrieval.protocols import Protocol, find
from resight.retrieval.query_expansion import expand, pool
from resight.retrieval.rerank import rerank
from resight.retrieval.scores import InnerProducts, Scores
from resight.retrieval.trials import Ranking, Trial, measure_trials


@dataclass(frozen=True)
class Result:
    """A measured ranking, with what is needed to look into it. Q and G count what was left after pooling."""

    protocol: Protocol
    rule: Rule
    query: Embedded
    gallery: Embedded
    query_labels: Labels
    gallery_labels: Labels
    score: Callable[[np.ndarray, np.ndarray], Scores]
    """Scores of some rows of both."""
    trials: tuple[Trial, ...]
    compute: Compute | None = None
    """What the embeddings were computed with; None for embeddings from disk."""

    @property
    def metrics(self) -> Metrics:
        """Of the first trial."""
        return self.trials[0].metrics

    def figures(self) -> list[dict[str, float]]:
        """What papers print, of each trial."""
        return [trial.metrics.summary() for trial in self.trials]

    def summary(self) -> dict[str, float]:
        """What papers print, as the mean over the trials."""
        rows = self.figures()
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def spread(self) -> dict[str, float]:
        """The standard deviation of each figure over the trials; 0 with one trial."""
        rows = self.figures()
        return {name: float(np.std([row[name] for row in rows])) for name in rows[0]}

    def per_query(self, value: Callable[[Metrics], np.ndarray]) -> np.ndarray:
        """float64 [Q]: the mean of a value over the trials in which the query takes part; NaN where there is none."""
        total, count = np.zeros(len(self.query_labels)), np.zeros(len(self.query_labels))
        for trial in self.trials:
            rows, metrics = trial.asked, trial.metrics
            valid = metrics.valid
            total[rows[valid]] += value(metrics)[valid]
            count[rows[valid]] += 1
        with np.errstate(invalid="ignore"):
            return total / count

    @property
    def ap(self) -> np.ndarray:
        """float64 [Q]: average precision."""
        return self.per_query(lambda metrics: metrics.ap)

    @property
    def hit(self) -> np.ndarray:
        """float64 [Q]: whether the first item is right."""
        return self.per_query(lambda metrics: metrics.first == 1)

    def top(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest gallery rows of each query in the first trial and whether each is right: int64 and bool [Q, k];
        -1 where fewer are left or the query does not ask."""
        rows, hits = np.full((len(self.query_labels), k), -1), np.zeros((len(self.query_labels), k), bool)
        for ranking in self.trials[0].rankings:
            found, right = self._top(ranking, k)
            rows[ranking.query, : found.shape[1]] = np.where(found >= 0, ranking.gallery[found], -1)
            hits[ranking.query, : found.shape[1]] = right
        return rows, hits

    def _top(self, ranking: Ranking, k: int) -> tuple[np.ndarray, np.ndarray]:
        query, gallery = self.query_labels.take(ranking.query), self.gallery_labels.take(ranking.gallery)
        return top(ranking.scores, query, gallery, self.rule, k)


def evaluate(
    model: TransReID,
    split: Split,
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
    settings: Evaluation,
    precision: Precision = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Embeds a data set's query and gallery and measures the ranking, exactly.

    Where query and gallery are the same table it is embedded once.

    Raises:
        ConfigError: there is no such protocol.
        EvaluationError: no query has a match.
        PictureError: a picture cannot be decoded.
    """
    device = next(model.parameters()).device
    compute = resolve_compute(device, precision, settings.batch)
    asked = Embedded(
        embed_table(model, split.query, vocabulary, preprocessing, settings, compute.precision, progress), split.query
    )
    searched = asked
    if split.gallery is not split.query:
        done = len(split.query)
        found = embed_table(
            model,
            split.gallery,
            vocabulary,
            preprocessing,
            settings,
            compute.precision,
            lambda more: progress(done + more),
        )
        searched = Embedded(found, split.gallery)
    result = measure_embedded(asked, searched, settings, split.protocol, "cuda" if device.type == "cuda" else "cpu")
    return replace(result, compute=compute)


def measure_embedded(
    query: Embedded, gallery: Embedded, settings: Evaluation, protocol: str = "market", device: str = "cpu"
) -> Result:
    """Measures embeddings under `settings.protocol`, or else under the data set's own.

    Args:
        query: what asks.
        gallery: what is searched.
        settings: how.
        protocol: the data set's own.
        device: `cpu`, or `cuda` to rank there.

    Raises:
        ConfigError: there is no such protocol.
        EvaluationError: no query has a match.
    """
    chosen, rule = measured_by(settings, protocol)
    query_labels, gallery_labels = keys(query.sightings, gallery.sightings)
    query, query_labels = _pooled(query, query_labels, settings, asks=True)
    gallery, gallery_labels = _pooled(gallery, gallery_labels, settings, asks=False)

    def score(asked: np.ndarray, searched: np.ndarray) -> Scores:
        return scores(_rows(query.vectors, asked), _rows(gallery.vectors, searched), settings, device)

    trials = measure_trials(chosen, rule, query_labels, gallery_labels, score)
    return Result(chosen, rule, query, gallery, query_labels, gallery_labels, score, trials)


def measured_by(settings: Evaluation, protocol: str) -> tuple[Protocol, Rule]:
    """The protocol and the rule that the settings come to, for a data set whose own protocol is given.

    Raises:
        ConfigError: there is no such protocol, or it draws nothing that trials could differ in.
    """
    chosen = find(settings.protocol or protocol)
    if settings.trials is not None:
        if not chosen.draw:
            raise ConfigError(
                f"protocol {chosen.name} draws no gallery, so trials would all be the same: leave --trials out"
            )
        chosen = replace(chosen, trials=settings.trials)
    return chosen, rule_of(settings.junk or chosen.rule, settings.window)


def scores(query: np.ndarray, gallery: np.ndarray, settings: Evaluation, device: str = "cpu") -> Scores:
    """What the ranking is by: similarity, expanded and re-ranked where the settings say so."""
    if settings.expand_gallery:
        gallery = expand(np.asarray(gallery, np.float32), gallery, settings.expand_gallery, settings.expand_power, True)
    if settings.expand_query:
        query = expand(np.asarray(query, np.float32), gallery, settings.expand_query, settings.expand_power)
    found = InnerProducts(query, gallery, device)
    return rerank(found, settings.k1, settings.k2, settings.rerank_weight) if settings.rerank else found


def _pooled(items: Embedded, keys: Labels, settings: Evaluation, asks: bool) -> tuple[Embedded, Labels]:
    """Tracklets as one item, and then the queries of one identity under one camera, where the settings say so."""
    steps: list[tuple[Pooling, tuple[str, ...]]] = [(settings.tracklets, ("identity", "camera", "tracklet"))]
    if asks:
        steps.append((settings.multi_query, ("identity", "camera")))
    for how, columns in steps:
        if how != "off":
            vectors, first = pool(items.vectors, keys, columns, how)
            items, keys = Embedded(vectors, items.sightings.take(first.tolist())), keys.take(first)
    return items, keys


def _rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows; all of them as they are, so that what is memory-mapped stays so."""
    return x if len(rows) == len(x) and bool((np.diff(rows) == 1).all()) else x[rows]
