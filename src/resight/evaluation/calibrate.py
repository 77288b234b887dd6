"""Calibrating a model on a data set: what its similarities are worth."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from resight.config.evaluation import Evaluation
from resight.data.sightings import Split
from resight.errors import ConfigError, EvaluationError
from resight.evaluation.evaluate import evaluate
from resight.evaluation.matrix import measure_subsets
from resight.evaluation.result import Result
from resight.files import write_file
from resight.inference.embedder import Embedder
from resight.inference.load import load
from resight.models.calibration import CALIBRATION
from resight.retrieval.calibration import Calibration, Curve, SubsetCurve, fit_curve, reliability
from resight.retrieval.open_set import Pairs, open_set
from resight.retrieval.scores import InnerProducts

_MIN_PAIRS: Final = 50
"""Pairs of one identity that curves of two modality subsets need at least."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration and how it stood the test."""

    calibration: Calibration
    """Fitted on all pairs."""
    checked: dict[str, tuple[np.ndarray, float]]
    """By curve: the reliability (`calibration.reliability`) and its mean error, fitted on half of the identities and
    measured on the others."""
    checked_subsets: dict[tuple[str, str], tuple[np.ndarray, float]] = field(default_factory=dict)
    """The same of the isotonic curves of modality subsets, by query and gallery, such as `("tir", "rgb")`."""
    file: Path | None = None
    """Where the calibration is stored; None if it is not."""


def calibrate(
    model: Embedder | str | Path,
    split: Split,
    false_match_rate: float = 1e-3,
    settings: Evaluation | None = None,
    progress: Callable[[int], None] = lambda count: None,
    store: bool = True,
) -> Calibrated:
    """Embed a data set's query and gallery, fit what their pairs show, and store it in the model folder.

    A model that is loaded from the folder afterwards gives probabilities and has a threshold.

        result = resight.calibrate("runs/mine/best", resight.read_dataset("own", "my_images"))
        print(result.calibration.threshold, result.file)

    For a model of several modalities, curves are also fitted to each pair of modality subsets that has enough pairs, so
    that a similarity of a thermal query to a colour image has a probability of its own.

    Args:
        model: a model folder, or an embedder; the calibration holds for its `embedding_id`.
        split: the data set.
        false_match_rate: share of pairs of different identities that may reach the threshold.
        settings: protocol; None for the data set's own.
        progress: is called with the number of sightings that are embedded.
        store: write `calibration.json` into the model folder, if the model is in one.

    Raises:
        ConfigError: the rate is not between 0 and 1.
        EvaluationError: there are too few pairs for such a false match rate, or none of a kind.
        PictureError: a picture cannot be decoded.
        StorageError: the calibration cannot be written.
    """
    if not 0 < false_match_rate < 1:
        raise ConfigError(f"the false match rate must lie between 0 and 1, not {false_match_rate:g}")
    embedder = model if isinstance(model, Embedder) else load(model)
    result = evaluate(embedder, split, settings, progress)
    curve, checked = _fit(result, false_match_rate)
    subsets: list[SubsetCurve] = []
    checked_subsets: dict[tuple[str, str], tuple[np.ndarray, float]] = {}
    if len(embedder.card.vocabulary.modalities) > 1:
        for query, gallery, measured in measure_subsets(embedder, split, settings):
            try:
                fitted, reliabilities = _fit(measured, false_match_rate, _MIN_PAIRS)
            except EvaluationError:  # too few pairs of these subsets
                continue
            subsets.append(SubsetCurve(query=query, gallery=gallery, **fitted.model_dump()))
            checked_subsets[query, gallery] = reliabilities["isotonic"]
    calibration = Calibration(
        dataset=split.name, embedding_id=embedder.embedding_id, subsets=tuple(subsets), **curve.model_dump()
    )
    file = write_calibration(embedder.folder, calibration) if store and embedder.folder is not None else None
    return Calibrated(calibration, checked, checked_subsets, file)


def _fit(
    result: Result, false_match_rate: float, min_pairs: int = 1
) -> tuple[Curve, dict[str, tuple[np.ndarray, float]]]:
    """Fit the pairs of all identities; and check a fit of half of them on the others."""
    identities = np.unique(result.query_labels.identity[result.query_labels.identity >= 0])
    everything = _pairs(result, identities)
    if everything.same.sum() < min_pairs:
        raise EvaluationError(f"{everything.same.sum()} pairs of one identity are too few to calibrate")
    shuffled = np.random.default_rng(0).permutation(identities)
    fitted, unseen = (_pairs(result, half) for half in (shuffled[::2], shuffled[1::2]))
    trial = fit_curve(fitted, max(false_match_rate, 2 / max(1, fitted.different.sum())))
    checked = {name: reliability(trial, unseen, name) for name in ("logistic", "isotonic")}
    return fit_curve(everything, false_match_rate), checked


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Store a calibration in its model's folder; returns the file.

    Raises:
        StorageError: it cannot be written.
    """
    file = folder / CALIBRATION
    write_file(file, calibration.model_dump_json(indent=2) + "\n")
    return file


def _pairs(result: Result, identities: np.ndarray) -> Pairs:
    """The pairs among some of the identities."""
    query_rows, gallery_rows = (
        np.flatnonzero(np.isin(labels.identity, identities)) for labels in (result.query_labels, result.gallery_labels)
    )
    scores = InnerProducts(result.query.vectors[query_rows], result.gallery.vectors[gallery_rows])
    return open_set(
        scores, result.query_labels.take(query_rows), result.gallery_labels.take(gallery_rows), result.rule
    ).pairs
