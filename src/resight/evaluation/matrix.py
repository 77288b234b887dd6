"""Evaluation with missing modalities: every subset of modalities as query, searched in every subset as gallery."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

from resight.config.evaluation import Evaluation
from resight.data.augment.augment import normalize
from resight.data.sightings import SightingTable, Split
from resight.data.subsets import all_subsets, reduce_to
from resight.device import autocast
from resight.errors import EvaluationError
from resight.evaluation.cost import SubsetCost, subset_cost
from resight.evaluation.evaluate import describe, measure
from resight.evaluation.result import Result
from resight.inference.decoding import decoded_batches
from resight.inference.embedder import Embedder
from resight.inference.embeddings import Embeddings
from resight.inference.inputs import as_inputs


@dataclass(frozen=True)
class _Embedded:
    """Query and gallery, reduced to a subset of modalities."""

    query: Embeddings
    gallery: Embeddings
    images_per_second: float


@dataclass(frozen=True)
class ModalityMatrix:
    """Figures of S query subsets (rows) in S gallery subsets (columns); NaN where nothing can be compared."""

    modalities: tuple[str, ...]
    """The model's, in its order."""
    subsets: tuple[str, ...]
    """Names such as `rgb+tir`; the last one is all modalities."""
    mean_ap: np.ndarray
    """float64 [S, S], from 0 to 1."""
    rank1: np.ndarray
    """float64 [S, S], from 0 to 1."""
    weights: dict[str, list[float]]
    """The mean share of each modality in the query's embedding, by query subset; empty without a learned fusion."""
    cost: dict[str, SubsetCost]
    """Of embedding a sighting, by subset."""

    @property
    def missing(self) -> tuple[float, float]:
        """mAP and R1, averaged over the patterns in which query and gallery lack the same modalities, as papers do."""
        diagonal = [figure.diagonal()[:-1] for figure in (self.mean_ap, self.rank1)]
        return float(np.nanmean(diagonal[0])), float(np.nanmean(diagonal[1]))

    def rows(self, figure: str = "mAP") -> list[dict[str, str | float]]:
        """Return a row for each query subset: its name and a figure for each gallery subset."""
        values = self.mean_ap if figure == "mAP" else self.rank1
        return [
            {"query": name} | dict(zip(self.subsets, row, strict=True))
            for name, row in zip(self.subsets, values.tolist(), strict=True)
        ]


def evaluate_matrix(
    embedder: Embedder,
    split: Split,
    settings: Evaluation | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> ModalityMatrix:
    """Measure every subset of the model's modalities as query against every one as gallery.

    A sighting takes part in a subset if it has all of its modalities; the images of the others are left out.

    Args:
        embedder: of a model of several modalities.
        split: the data set.
        settings: protocol and ranking; None for the data set's own.
        progress: is called with the number of sightings that are embedded, of `matrix_size`.

    Raises:
        EvaluationError: the model has one modality, or no pair of subsets can be compared.
        PictureError: a picture cannot be decoded.
    """
    modalities = embedder.card.vocabulary.modalities
    if len(modalities) < 2:
        raise EvaluationError(f"the model knows one modality, {', '.join(modalities)}: a matrix needs two or more")
    subsets = all_subsets(modalities)
    shape = (len(subsets), len(subsets))
    mean_ap, rank1 = np.full(shape, np.nan), np.full(shape, np.nan)
    embedded = _embed_subsets(embedder, split, subsets, progress)
    for query, gallery, result in _measure(embedded, split, settings):
        cell = subsets.index(query), subsets.index(gallery)
        summary = result.summary()
        mean_ap[cell], rank1[cell] = summary["mAP"], summary["R1"]
    if np.isnan(mean_ap).all():
        raise EvaluationError(f"no two subsets of {', '.join(modalities)} can be compared on {split.name}")
    weights = {}
    if embedder.fusion == "learned":
        reduced = {name: reduce_to(split.query, name) for name in subsets}
        weights = {n: modality_weights(embedder, table).mean(0).tolist() for n, table in reduced.items() if len(table)}
    cost = {name: subset_cost(embedder, name, embedded[name].images_per_second) for name in subsets}
    return ModalityMatrix(modalities, tuple(subsets), mean_ap, rank1, weights, cost)


def measure_subsets(
    embedder: Embedder,
    split: Split,
    settings: Evaluation | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[str, str, Result]]:
    """Measure each pair of modality subsets that can be compared: its query and gallery subset, and the result.

    The arguments and exceptions are those of `evaluate_matrix`.
    """
    subsets = all_subsets(embedder.card.vocabulary.modalities)
    yield from _measure(_embed_subsets(embedder, split, subsets, progress), split, settings)


def _measure(
    embedded: dict[str, _Embedded], split: Split, settings: Evaluation | None
) -> Iterator[tuple[str, str, Result]]:
    for query, queries in embedded.items():
        for gallery, items in embedded.items():
            try:
                result = measure(queries.query, items.gallery, settings or Evaluation(), split.protocol)
            except EvaluationError:  # nothing in common, or no match among the sightings that have these modalities
                continue
            yield query, gallery, result


def matrix_size(embedder: Embedder, split: Split) -> int:
    """Return the number of sightings that `evaluate_matrix` embeds."""
    return split.tested * len(all_subsets(embedder.card.vocabulary.modalities))


def _embed_subsets(
    embedder: Embedder, split: Split, subsets: list[str], progress: Callable[[int], None]
) -> dict[str, _Embedded]:
    """Embed query and gallery reduced to each subset; one table for both is embedded once."""
    embedded: dict[str, _Embedded] = {}
    count = 0
    for name in subsets:
        parts = [split.query] if split.gallery is split.query else [split.query, split.gallery]
        started = perf_counter()
        items = [_embed(embedder, reduce_to(table, name), split) for table in parts]
        images = sum(len(item.sightings) for item in items) * len(name.split("+"))
        rate = images / (perf_counter() - started) if images else float("nan")
        embedded[name] = _Embedded(items[0], items[-1], rate)
        count += sum(map(len, parts))
        progress(count)
    return embedded


def _embed(embedder: Embedder, table: SightingTable, split: Split) -> Embeddings:
    return Embeddings(embedder.embed(table), table, describe(embedder, split))


def modality_weights(embedder: Embedder, sightings: SightingTable) -> np.ndarray:
    """Return the share of each modality in the embedding of each sighting: float32 [N, M], with a sum of 1.

    Raises:
        ConfigError: the model has no fusion of its own.
        PictureError: a picture cannot be decoded.
    """
    known, device, preprocessing = embedder.card.vocabulary, embedder.device, embedder.card.preprocessing
    inputs = as_inputs(sightings, None, None, None, known.modalities)
    numbers = inputs.numbers(known.cameras, known.views, known.modalities)
    weights = np.zeros((inputs.count, len(known.modalities)), np.float32)
    with embedder.evaluation_mode(), torch.inference_mode(), autocast(device, embedder.compute.precision):
        for part, pixels in decoded_batches(inputs, embedder.batch_size, preprocessing, embedder.scaling):
            side_info = {kind: torch.from_numpy(labels[part]).to(device) for kind, labels in numbers.items()}
            first, rows = inputs.rows(part, numbers["modality"], len(known.modalities))
            images = normalize(pixels.to(device), preprocessing.mean, preprocessing.std)
            fused = embedder.model.fuse(images, side_info, torch.from_numpy(rows).to(device))
            weights[first : first + len(rows)] = fused.weights.float().cpu().numpy()
    return weights
