"""Measuring a model: embed query and gallery, rank, count."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resight.config import Evaluation, JunkRule, Pictures, Precision
from resight.embed import embed_table
from resight.loading.batch import Vocabulary
from resight.model.transreid import TransReID
from resight.retrieval.junk import Keys
from resight.retrieval.metrics import Metrics, Scores, inner_products, measure, top
from resight.retrieval.rerank import rerank
from resight.sightings import MODALITIES, SightingTable


@dataclass(frozen=True)
class Result:
    """A measured model, with what is needed to look into the ranking."""

    metrics: Metrics
    scores: Scores
    """What was ranked by."""
    query_keys: Keys
    gallery_keys: Keys
    junk: JunkRule

    def top(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest gallery rows of each query and whether each is right: int64 and bool [Q, k]."""
        return top(self.scores, self.query_keys, self.gallery_keys, self.junk, k)


def evaluate(
    model: TransReID,
    query: SightingTable,
    gallery: SightingTable,
    vocabulary: Vocabulary,
    pictures: Pictures,
    settings: Evaluation,
    precision: Precision = "fp32",
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Embeds both tables and measures the ranking, in float32.

    Where query and gallery are the same table it is embedded once.

    Raises:
        EvaluationError: no query has a match.
        PictureError: a picture cannot be decoded.
    """
    asked = embed_table(model, query, vocabulary, pictures, settings, precision, progress)
    searched = asked
    if gallery is not query:
        searched = embed_table(
            model, gallery, vocabulary, pictures, settings, precision, lambda done: progress(len(query) + done)
        )
    query_keys, gallery_keys = keys(query, gallery)
    scores = (-rerank(asked, searched)).__getitem__ if settings.rerank else inner_products(asked, searched)
    metrics = measure(scores, query_keys, gallery_keys, settings.junk)
    return Result(metrics, scores, query_keys, gallery_keys, settings.junk)


def keys(query: SightingTable, gallery: SightingTable) -> tuple[Keys, Keys]:
    """The labels of both tables as numbers that mean the same in both."""
    return tuple(  # pyright: ignore[reportReturnType]
        Keys(identity, camera, picture)
        for identity, camera, picture in zip(
            _numbers(query.column("identity"), gallery.column("identity")),
            _numbers(query.column("camera"), gallery.column("camera")),
            _numbers(_files(query), _files(gallery)),
            strict=True,
        )
    )


def _files(table: SightingTable) -> list[str | None]:
    return ["|".join(str(row[m]) for m in MODALITIES) for row in table.arrow.select(list(MODALITIES)).to_pylist()]


def _numbers(*columns: list[str | None]) -> tuple[np.ndarray, ...]:
    known = {label: n for n, label in enumerate(sorted({x for column in columns for x in column if x is not None}))}
    return tuple(np.array([-1 if x is None else known[x] for x in column], np.int64) for column in columns)
