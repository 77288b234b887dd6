"""The evaluation of a walkthrough: embeddings, similarities, CMC and mAP of the example's queries and gallery."""

import numpy as np
import torch

from resight.config.sections import Fusion
from resight.data.sightings import Split
from resight.evaluation.evaluate import describe, measure
from resight.evaluation.result import Result
from resight.inference.embedder import Embedder
from resight.inference.embeddings import Embeddings
from resight.report.walkthrough.record import content_of
from resight.report.walkthrough.value import Step
from resight.training.context import TrainContext
from resight.training.state import State

_FUSIONS: dict[Fusion, str] = {
    "learned": "the network fuses what is present",
    "concat": "the features of a sighting's modalities are put side by side",
    "mean": "the features of a sighting's modalities are averaged",
}


def evaluation_steps(context: TrainContext, state: State, split: Split) -> list[Step]:
    """Embed queries and gallery with the model in evaluation mode, rank and measure, as `resight evaluate` does.

    Raises:
        EvaluationError: nothing can be compared.
    """
    embedder = Embedder(state.eval_model, context.card, compute=context.compute, digest="example")  # one model alone
    info = describe(embedder, split)
    query, gallery = (Embeddings(embedder.embed(t), t, info) for t in (split.query, split.gallery))
    result = measure(query, gallery, context.run.evaluation, split.protocol)
    similarity = result.score(np.arange(len(split.query)), np.arange(len(split.gallery))).rows(slice(None))
    how = "" if len(info.modalities) < 2 else f"; {_FUSIONS[embedder.fusion]}"
    neck = "after" if context.run.model.feature == "after" else "before"
    embed = f"The feature {neck} BNNeck of each {{}} in evaluation mode{how}; then it is divided by its length."
    source = "inference/embedder.py Embedder.embed"
    return [
        Step("features of the queries", embed.format("query"), query.vectors.shape, ("Q", "E"), "float32",
             source=source),
        Step("features of the gallery", embed.format("gallery sighting"), gallery.vectors.shape, ("G", "E"), "float32",
             source=source),
        Step("similarities", "The inner product of every query with every gallery sighting: 1 is the same direction.",
             tuple(similarity.shape), ("Q", "G"), "float32", content_of(similarity.cpu()),
             source="retrieval/scores.py InnerProducts.rows"),
        *_figures(result),
    ]  # fmt: skip


def _figures(result: Result) -> list[Step]:
    metrics, summary = result.metrics, result.summary()
    source = "retrieval/metrics.py rank"
    first = torch.from_numpy(metrics.first)
    return [
        Step("rank of the first match", f"The gallery is sorted for each query, without {result.rule.words}; this is "
             "the position of the first sighting of the same identity.", tuple(first.shape), ("Q",), "int64",
             content_of(first), source=source),
        Step("CMC", "Over the queries, the fraction with a match among the first k sightings, for k from 1 to 50.",
             metrics.cmc.shape, (), "float64", figures={name: summary[name] for name in ("R1", "R5", "R10")},
             source="retrieval/metrics.py Metrics.cmc"),
        Step("mAP", "For each query the precision at every match, averaged over its matches, then over the queries.",
             figures={"mAP": summary["mAP"]}, source="retrieval/metrics.py Metrics.map"),
    ]  # fmt: skip
