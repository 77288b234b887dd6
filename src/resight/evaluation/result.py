"""A measured ranking as figures and as JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from resight.config.evaluation import Evaluation
from resight.data.modalities import ordered
from resight.data.sightings import Sighting
from resight.device import Compute
from resight.inference.embeddings import Embeddings
from resight.progress import counted
from resight.retrieval.bootstrap import interval
from resight.retrieval.junk import Rule
from resight.retrieval.labels import Labels
from resight.retrieval.metrics import Metrics, rank
from resight.retrieval.neighbors import top
from resight.retrieval.open_set import open_set
from resight.retrieval.protocols import Protocol
from resight.retrieval.scores import InnerProducts, Scores
from resight.retrieval.trials import Ranking, Trial

FORMAT: Final = 2


@dataclass(frozen=True)
class Result:
    """A measured ranking, with what is needed to look into it. Q and G count what was left after pooling."""

    protocol: Protocol
    rule: Rule
    query: Embeddings
    gallery: Embeddings
    query_labels: Labels
    gallery_labels: Labels
    score: Callable[[np.ndarray, np.ndarray], Scores]
    """Scores of some rows of both."""
    settings: Evaluation
    """How the ranking was computed."""
    trials: tuple[Trial, ...]
    compute: Compute | None = None
    """What the embeddings were computed with; None for embeddings from disk."""

    @property
    def gallery_size(self) -> int:
        """G of the largest ranking of the first trial."""
        return max(len(ranking.gallery) for ranking in self.trials[0].rankings)

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
            rows, metrics = trial.query_rows, trial.metrics
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
        -1 where fewer remain or the query takes no part."""
        rows = np.full((len(self.query_labels), k), -1)
        hits = np.zeros((len(self.query_labels), k), bool)
        for ranking in self.trials[0].rankings:
            nearest, right = self._top(ranking, k)
            rows[ranking.query, : nearest.shape[1]] = np.where(nearest >= 0, ranking.gallery[nearest], -1)
            hits[ranking.query, : nearest.shape[1]] = right
        return rows, hits

    def _top(self, ranking: Ranking, k: int) -> tuple[np.ndarray, np.ndarray]:
        query, gallery = self.query_labels.take(ranking.query), self.gallery_labels.take(ranking.gallery)
        return top(ranking.scores, query, gallery, self.rule, k)


@dataclass(frozen=True)
class CameraPair:
    """How well queries of one camera find their matches among the images of another; rates in [0, 1]."""

    query_camera: str
    gallery_camera: str
    queries: int
    mAP: float  # noqa: N815
    R1: float


@dataclass(frozen=True)
class OpenSetRow:
    """A rate of the open-set evaluation, in [0, 1], and the threshold that it is reached at."""

    figure: str
    rate: float
    threshold: float


@dataclass(frozen=True)
class OpenSetFigures:
    """The open-set evaluation."""

    words: str
    """What was compared."""
    rows: list[OpenSetRow]
    roc: list[tuple[float, float]]
    """False and true match rates."""


def figures(result: Result, dataset: str) -> dict[str, Any]:
    """Everything that was measured, as JSON for `result.json` and `evaluate --json`; rates are in [0, 1].

    The means over the trials, their spread, 95 % intervals over query identities, and the figures of each query.
    """
    identity = result.query_labels.identity
    intervals = {name: interval(values, identity) for name, values in (("mAP", result.ap), ("R1", result.hit))}
    cmc = np.mean([trial.metrics.cmc for trial in result.trials], axis=0)
    return {
        "format": FORMAT,
        "dataset": dataset,
        "protocol": result.protocol.name,
        "junk": result.rule.name,
        "settings": result.settings.model_dump(exclude={"protocol", "junk", "trials"}),
        "queries": len(result.trials[0].query_rows),
        "gallery": result.gallery_size,
        **result.summary(),
        "trials": len(result.trials),
        "spread": result.spread(),
        "interval_95": {name: [bounds.low, bounds.high] for name, bounds in intervals.items()},
        "cmc": cmc.tolist(),
        "embedding_id": result.query.info.embedding_id,
        "compute": None if result.compute is None else asdict(result.compute),
        "unmatched": result.metrics.unmatched,
        "unmatched_by_rule": result.metrics.unmatched_by_rule,
        "per_query": [
            {"query": _name(sighting), "identity": sighting.identity, "AP": _number(ap), "R1": _number(hit)}
            for sighting, ap, hit in zip(result.query.sightings, result.ap, result.hit, strict=True)
        ],
    }


def open_set_figures(result: Result) -> OpenSetFigures:
    """Measure a threshold on known and unknown queries, over the first gallery of the protocol."""
    first = result.trials[0].rankings[0]
    scores = InnerProducts(result.query.vectors[first.query], result.gallery.vectors[first.gallery])
    labels = (result.query_labels.take(first.query), result.gallery_labels.take(first.gallery))
    measured = open_set(scores, *labels, result.rule)
    same, different = int(measured.pairs.same.sum()), int(measured.pairs.different.sum())
    unmatched = counted(len(measured.non_mated.unmatched), "query", "queries")
    unknown = (
        "every query has a match, so each is searched a second time with its own identity left out of the gallery"
        if measured.non_mated.left_out
        else f"non-mated: {unmatched} without a match"
    )
    summary = measured.summary()
    rows = [OpenSetRow("EER", summary["EER"], summary["EER threshold"])]
    for name, value in summary.items():
        kind, _, rate = name.partition("@")
        if kind in ("TAR", "DIR"):
            rows.append(OpenSetRow(name, value, summary[f"threshold@{rate}"]))
    pairs = f"{counted(same, 'same-identity pair')}, {counted(different, 'different-identity pair')}"
    words = f"open set: {pairs}; {unknown}"
    return OpenSetFigures(words, rows, [(row["FAR"], row["TAR"]) for row in measured.pairs.curve()])


def camera_pairs(result: Result) -> list[CameraPair]:
    """How well each camera's queries find their matches among each other camera's images alone, worst first."""
    pairs = list[CameraPair]()
    query_rows, gallery_rows = result.trials[0].query_rows, result.trials[0].gallery_rows
    query, gallery = result.query_labels.take(query_rows), result.gallery_labels
    query_camera, gallery_camera = query["camera"], gallery["camera"][gallery_rows]
    for camera in np.unique(gallery_camera[gallery_camera >= 0]):
        rows = gallery_rows[gallery_camera == camera]
        metrics = rank(result.score(query_rows, rows), query, gallery.take(rows), result.rule, result.protocol.once)
        for other in np.unique(query_camera[(query_camera >= 0) & metrics.valid]):
            compared = (query_camera == other) & metrics.valid
            pairs.append(
                CameraPair(
                    query.name("camera", int(other)),
                    gallery.name("camera", int(camera)),
                    int(compared.sum()),
                    float(metrics.ap[compared].mean()),
                    float((metrics.first[compared] == 1).mean()),
                )
            )
    return sorted(pairs, key=lambda pair: pair.mAP)


def _name(sighting: Sighting) -> str:
    return "|".join(sighting.images[m].name for m in ordered(sighting.images))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
