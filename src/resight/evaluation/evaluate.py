"""Measuring a model: embed query and gallery, rank as a protocol says, count."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from resight.config.evaluation import Evaluation, Pooling
from resight.data.sightings import SightingTable, Split
from resight.device import pick_device
from resight.errors import ConfigError, EvaluationError
from resight.evaluation.as_trained import load_as_trained
from resight.evaluation.labels import encode_labels
from resight.evaluation.result import Result
from resight.inference.embedder import Embedder
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, read_embeddings
from resight.retrieval.junk import Rule, rule_of
from resight.retrieval.labels import Labels
from resight.retrieval.protocols import Protocol, find
from resight.retrieval.query_expansion import expand, pool
from resight.retrieval.rerank import rerank
from resight.retrieval.scores import InnerProducts, Scores
from resight.retrieval.trials import measure_trials

Embed = Callable[[SightingTable, Callable[[int], None]], np.ndarray]
"""Embeds a table, and reports how many sightings are done: float32 [N, E]."""


def evaluate(
    model: Embedder | str | Path,
    split: Split,
    settings: Evaluation | None = None,
    progress: Callable[[int], None] = lambda count: None,
    embed: Embed | None = None,
) -> Result:
    """Embed a data set's query and gallery and measure the ranking, exactly.

    Where query and gallery are the same table it is embedded once.

    Args:
        model: an embedder, or a model folder; the checkpoint of a run computes as the run did and gives its figures.
        split: the data set.
        settings: protocol and ranking; None for the data set's own.
        progress: is called with the number of sightings that are embedded.
        embed: embeds a table; None for `model.embed`. Processes that train together share the work.

    Raises:
        ConfigError: there is no such protocol.
        EvaluationError: no query has a match, or embeddings are concatenated and no modality is on both sides.
        PictureError: a picture cannot be decoded.
    """
    settings = settings or Evaluation()
    embedder = model if isinstance(model, Embedder) else load_as_trained(Path(model))
    embed = embed or (lambda table, report: embedder.embed(table, progress=report))
    protocol, _ = measured_by(settings, split.protocol)
    if embedder.concatenates:
        require_shared_modality(split.query, split.gallery, embedder.card.vocabulary.modalities, protocol)
    info = describe(embedder, split)
    query = gallery = Embeddings(embed(split.query, progress), split.query, info)
    if split.gallery is not split.query:
        before = len(split.query)
        vectors = embed(split.gallery, lambda count: progress(before + count))
        gallery = Embeddings(vectors, split.gallery, info)
    result = measure(query, gallery, settings, split.protocol, "cuda" if embedder.device.type == "cuda" else "cpu")
    return replace(result, compute=embedder.compute)


def evaluate_embeddings(
    file: str | Path, settings: Evaluation | None = None, device: str = "auto"
) -> tuple[str, Result]:
    """Measure a file of embeddings; returns the name of its data set, and the result.

    Raises:
        ConfigError: there is no such protocol or device.
        DatasetError: it is no file of embeddings.
        EvaluationError: no query has a match.
    """
    query, gallery = read_embeddings(Path(file))
    place = "cuda" if pick_device(device).type == "cuda" else "cpu"
    result = measure(query, gallery, settings or Evaluation(), query.info.protocol or "market", place)
    return query.info.dataset or Path(file).stem, result


def describe(embedder: Embedder, split: Split) -> EmbeddingsInfo:
    """What a file of these embeddings states."""
    return EmbeddingsInfo(
        embedding_id=embedder.embedding_id,
        fusion="concat" if embedder.concatenates else embedder.fusion,
        modalities=embedder.card.vocabulary.modalities,
        dataset=split.name,
        protocol=split.protocol,
    )


def require_shared_modality(
    query: SightingTable, gallery: SightingTable, modalities: Sequence[str], protocol: Protocol
) -> None:
    """Make sure that concatenated embeddings of queries and gallery share a part that is not zero.

    Args:
        query: the queries, with those that the protocol leaves out.
        gallery: the gallery, likewise.
        modalities: the model's.
        protocol: selects queries and gallery by modality, such as infrared queries from a table of both.

    Raises:
        EvaluationError: no modality is on both sides.
    """
    of_query = [m for m in query.modalities if m in protocol.query.get("modality", query.modalities)]
    of_gallery = [m for m in gallery.modalities if m in protocol.gallery.get("modality", gallery.modalities)]
    if len(modalities) > 1 and of_query and of_gallery and not set(of_query) & set(of_gallery):
        raise EvaluationError(
            f"queries have the modalities {', '.join(of_query)} and the gallery {', '.join(of_gallery)}, "
            "so concatenated embeddings of them have nothing in common and every similarity is 0: use --fusion mean"
        )


def measure(
    query: Embeddings, gallery: Embeddings, settings: Evaluation, protocol: str = "market", device: str = "cpu"
) -> Result:
    """Measure embeddings under `settings.protocol`, or else under the data set's own.

    Args:
        query: of the queries.
        gallery: of what is searched.
        settings: how.
        protocol: the data set's own.
        device: `cpu`, or `cuda` to rank there.

    Raises:
        ConfigError: there is no such protocol.
        EvaluationError: no query has a match, embeddings of two models are compared, or concatenated embeddings share
            no modality.
    """
    if query.info.embedding_id != gallery.info.embedding_id:
        raise EvaluationError(
            f"query and gallery have different embeddings ({query.info.embedding_id} and {gallery.info.embedding_id}), "
            "which cannot be compared: embed both with one model and the same settings"
        )
    used, rule = measured_by(settings, protocol)
    if query.info.fusion == "concat":
        require_shared_modality(query.sightings, gallery.sightings, query.info.modalities, used)
    query_labels, gallery_labels = encode_labels(query.sightings, gallery.sightings)
    query, query_labels = _pooled(query, query_labels, settings, is_query=True)
    gallery, gallery_labels = _pooled(gallery, gallery_labels, settings, is_query=False)

    def score(query_rows: np.ndarray, gallery_rows: np.ndarray) -> Scores:
        return scores(_rows(query.vectors, query_rows), _rows(gallery.vectors, gallery_rows), settings, device)

    trials = measure_trials(used, rule, query_labels, gallery_labels, score)
    return Result(used, rule, query, gallery, query_labels, gallery_labels, score, settings, trials)


def measured_by(settings: Evaluation, protocol: str) -> tuple[Protocol, Rule]:
    """Return the protocol and the junk rule of the settings, for a data set that has a protocol of its own.

    Raises:
        ConfigError: there is no such protocol, or it draws nothing that trials could differ in.
    """
    used = find(settings.protocol or protocol)
    if settings.trials is not None:
        if not used.draw:
            raise ConfigError(
                f"protocol {used.name} draws no gallery, so all trials would be the same: leave --trials out"
            )
        used = replace(used, trials=settings.trials)
    return used, rule_of(settings.junk or used.rule, settings.window)


def scores(query: np.ndarray, gallery: np.ndarray, settings: Evaluation, device: str = "cpu") -> Scores:
    """Return the scores of a ranking: similarities, expanded and re-ranked as the settings say."""
    if settings.expand_gallery:
        gallery = expand(np.asarray(gallery, np.float32), gallery, settings.expand_gallery, settings.expand_power, True)
    if settings.expand_query:
        query = expand(np.asarray(query, np.float32), gallery, settings.expand_query, settings.expand_power)
    similarity = InnerProducts(query, gallery, device)
    return rerank(similarity, settings.k1, settings.k2, settings.rerank_weight) if settings.rerank else similarity


def _pooled(items: Embeddings, labels: Labels, settings: Evaluation, is_query: bool) -> tuple[Embeddings, Labels]:
    """Pool tracklets, and then the queries of one identity under one camera, as the settings say."""
    steps: list[tuple[Pooling, tuple[str, ...]]] = [(settings.tracklets, ("identity", "camera", "tracklet"))]
    if is_query:
        steps.append((settings.multi_query, ("identity", "camera")))
    for how, columns in steps:
        if how != "off":
            vectors, first = pool(items.vectors, labels, columns, how)
            items = Embeddings(vectors, items.sightings.take(first.tolist()), items.info)
            labels = labels.take(first)
    return items, labels


def _rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows; all of them without a copy, so that a memory-mapped array stays one."""
    return x if len(rows) == len(x) and bool((np.diff(rows) == 1).all()) else x[rows]
