"""Calibrating a model on a data set: what its similarities are worth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resight.config.sections import Evaluation, Precision
from resight.data.sightings import Split
from resight.evaluation.evaluate import Result, evaluate
from resight.models.checkpoint import ModelCard
from resight.models.transreid import TransReID
from resight.retrieval.calibration import Calibration, calibrate, reliability
from resight.retrieval.open_set import Pairs, open_set
from resight.retrieval.scores import InnerProducts


@dataclass(frozen=True)
class Calibrated:
    """A calibration and how it stood the test."""

    calibration: Calibration
    """Fitted on all pairs."""
    checked: dict[str, tuple[np.ndarray, float]]
    """By curve: the reliability (`calibration.reliability`) and its mean error, fitted on half of the identities and
    measured on the others."""


def calibrate_model(
    model: TransReID,
    card: ModelCard,
    split: Split,
    settings: Evaluation,
    false_match_rate: float,
    precision: Precision = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> Calibrated:
    """Embeds a data set's query and gallery and fits what their pairs show.

    Raises:
        EvaluationError: there are too few pairs for such a false match rate, or none of a kind.
        PictureError: a picture cannot be decoded.
    """
    found = evaluate(model, split, card.vocabulary, card.preprocessing, settings, precision, progress)
    identities = np.unique(found.query_labels.identity[found.query_labels.identity >= 0])
    shuffled = np.random.default_rng(0).permutation(identities)
    fitted, unseen = (_pairs(found, half) for half in (shuffled[::2], shuffled[1::2]))
    trial = calibrate(fitted, max(false_match_rate, 2 / fitted.different.sum()), split.name)
    checked = {name: reliability(trial, unseen, name) for name in ("logistic", "isotonic")}
    return Calibrated(calibrate(_pairs(found, identities), false_match_rate, split.name), checked)


def _pairs(result: Result, identities: np.ndarray) -> Pairs:
    """The pairs among some of the identities."""
    asked, searched = (
        np.flatnonzero(np.isin(keys.identity, identities)) for keys in (result.query_labels, result.gallery_labels)
    )
    scores = InnerProducts(result.query.vectors[asked], result.gallery.vectors[searched])
    return open_set(scores, result.query_labels.take(asked), result.gallery_labels.take(searched), result.rule).pairs
