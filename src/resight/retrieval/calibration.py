"""From a similarity to the probability of the same identity.

The probability depends on the prior: how likely a pair is to be of one identity before its similarity is known. Both
curves are fitted with the two kinds of pairs weighted to a prior of 1/2; `Calibration.of` converts them to another
prior by Bayes' rule.

SciPy takes 0.5 s to import, so only the functions that use it do: every model's folder is read through this module.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from resight.config.document import Document
from resight.config.section import Section
from resight.errors import EvaluationError
from resight.retrieval.open_set import BINS, Pairs, edge

Method = Literal["logistic", "isotonic"]
Similarity = Annotated[float, Field(ge=-1, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
_STEPS = 4096  # intervals of similarity from -1 to 1 that the curves are fitted to
_MARGIN = 1e-6  # distance of a probability from 0 and 1: a finite number of pairs proves no more


class Curve(Section):
    """Both curves and the threshold of one kind of pairs."""

    model_config = ConfigDict(allow_inf_nan=False)
    slope: float
    """Slope of the logistic curve: log odds = slope x similarity + offset."""
    offset: float
    """Offset of the logistic curve."""
    similarity: tuple[Similarity, ...] = Field(min_length=1)
    """The similarities at the points of the isotonic curve, ascending; straight lines connect the points."""
    probability: tuple[Probability, ...]
    """The probabilities at these points, in no place descending."""
    threshold: float
    """The similarity at which the false match rate is `false_match_rate`: a lower one is no match."""
    false_match_rate: float = Field(gt=0, lt=1)
    """Fraction of the pairs of different identities at or above the threshold."""
    true_match_rate: Probability
    """Fraction of the pairs of one identity at or above the threshold."""
    same: int = Field(ge=0)
    """Number of pairs of one identity."""
    different: int = Field(ge=0)
    """Number of pairs of different identities."""

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        if len(self.similarity) != len(self.probability):
            raise ValueError(f"{len(self.similarity)} similarities have {len(self.probability)} probabilities")
        if any(a >= b for a, b in pairwise(self.similarity)):
            raise ValueError("similarity is not ascending")
        if any(a > b for a, b in pairwise(self.probability)):
            raise ValueError("probability is descending")
        return self

    def of(self, similarity: np.ndarray, prior: float = 0.5, method: Method = "isotonic") -> np.ndarray:
        """Compute the probability of the same identity from the similarity of two embeddings.

        Args:
            similarity: inner products of embeddings of unit length, of any shape.
            prior: the probability of the same identity before the similarity is known.
            method: the curve.

        Returns:
            float64, of the same shape.
        """
        from scipy.special import expit

        if method == "logistic":
            odds = self.slope * np.asarray(similarity, np.float64) + self.offset
        else:
            probability = np.interp(similarity, self.similarity, self.probability)
            odds = np.log(probability) - np.log1p(-probability)
        return expit(odds + np.log(prior) - np.log1p(-prior))


class SubsetCurve(Curve):
    """The curves of queries with some modalities against gallery sightings with some."""

    query: str
    """The modalities of the query, such as `tir`."""
    gallery: str
    """The modalities of the gallery sighting, such as `rgb+nir`."""


class Calibration(Curve, Document):
    """The curves and the threshold of a model, stored as `calibration.json` in its folder."""

    dataset: str
    """The data set that it was measured on."""
    embedding_id: str | None = None
    """Id of the embeddings that it was measured on and is valid for; None for embeddings of another program."""
    subsets: tuple[SubsetCurve, ...] = ()
    """For models of several modalities: the curves of pairs of modality subsets with enough pairs of images."""

    def between(self, query: str | None, gallery: str | None) -> Curve:
        """Return the curves for the modalities of a query and of a gallery sighting, such as `tir` and `rgb+nir`.

        They are those of all pairs where none were fitted to these subsets, or a subset is not known (None).
        """
        if query is None or gallery is None:
            return self
        subsets = set(query.split("+")), set(gallery.split("+"))
        fitted = (c for c in self.subsets if (set(c.query.split("+")), set(c.gallery.split("+"))) == subsets)
        return next(fitted, self)


def calibrate(pairs: Pairs, false_match_rate: float, dataset: str) -> Calibration:
    """Fit both curves and the threshold.

    Args:
        pairs: counts of pairs by similarity.
        false_match_rate: that the threshold must not exceed.
        dataset: the name of the data set of the pairs.

    Raises:
        EvaluationError: there are too few pairs of different identities for such a false match rate.
    """
    return Calibration(dataset=dataset, **fit_curve(pairs, false_match_rate).model_dump())


def fit_curve(pairs: Pairs, false_match_rate: float) -> Curve:
    """Fit both curves and the threshold to pairs, as `calibrate` does.

    Raises:
        EvaluationError: there are too few pairs of different identities for such a false match rate.
    """
    from scipy.optimize import isotonic_regression

    different = int(pairs.different.sum())
    if different * false_match_rate < 1:
        raise EvaluationError(
            f"a false match rate of {false_match_rate:g} cannot be measured with {different} pairs of different "
            f"identities: it takes {int(np.ceil(1 / false_match_rate))} at least"
        )
    threshold, tar = pairs.at_far(false_match_rate)
    # Fit both curves to the fraction of pairs of one identity at each similarity: [steps].
    fraction, weight, similarity = _fractions(pairs)
    curve = isotonic_regression(fraction, weights=weight).x.clip(_MARGIN, 1 - _MARGIN)
    slope, offset = _logistic(fraction, weight, similarity)
    # Store both ends of each constant interval of the isotonic curve.
    ends = (np.diff(curve, prepend=-1) != 0) | (np.diff(curve, append=2) != 0)
    return Curve(
        slope=slope,
        offset=offset,
        similarity=tuple(similarity[ends].round(8).tolist()),
        probability=tuple(curve[ends].round(7).tolist()),
        threshold=threshold,
        false_match_rate=false_match_rate,
        true_match_rate=tar,
        same=int(pairs.same.sum()),
        different=different,
    )


def reliability(calibration: Curve, pairs: Pairs, method: Method, bins: int = 10) -> tuple[np.ndarray, float]:
    """Measure how often pairs of a predicted probability are of one identity, at a prior of 1/2.

    Args:
        calibration: the curves to check.
        pairs: counts of pairs by similarity, other ones than the curves were fitted to.
        method: the curve to check.
        bins: number of equal intervals of the probability.

    Returns:
        float64 [bins, 3]: mean predicted probability, fraction of one identity (both NaN without pairs), and weight;
        and the expected calibration error, the weighted mean of the difference of the two.
    """
    fraction, weight, similarity = _fractions(pairs)
    predicted = calibration.of(similarity, method=method)
    bin_index = np.minimum((predicted * bins).astype(int), bins - 1)
    total = np.bincount(bin_index, weight, bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bin_index, weight * values, bins) / total for values in (predicted, fraction)]
    table = np.stack([*means, total], axis=1)
    error = np.nansum(np.abs(table[:, 0] - table[:, 1]) * total) / total.sum()
    return table, float(error)


def _fractions(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group pairs by steps of similarity and leave out the steps without pairs.

    The range of the similarities is divided into 2,048 steps or more, as far as the bins allow, so that a model whose
    similarities are all close to 1 has a curve, too.

    Returns:
        float64 [steps] each: the fraction of pairs of one identity, the weight of the pairs (which sums to one half for
        each of the two kinds), and the similarity in the middle of the step.
    """
    width = _step_width(pairs)
    same, different = (
        counts.reshape(-1, width).sum(1) / max(1, counts.sum()) / 2 for counts in (pairs.same, pairs.different)
    )
    weight = same + different
    occupied = weight > 0
    similarity = np.array([edge(step * width + width // 2) for step in np.flatnonzero(occupied).tolist()])
    return same[occupied] / weight[occupied], weight[occupied], similarity


def _step_width(pairs: Pairs) -> int:
    """The bins in a step: fewer where all similarities lie close together."""
    bins = np.flatnonzero(pairs.same + pairs.different)
    span = int(bins[-1] - bins[0]) + 1 if len(bins) else BINS
    width = BINS // _STEPS
    while width > 1 and span < _STEPS // 2 * width:
        width //= 2
    return width


def _logistic(fraction: np.ndarray, weight: np.ndarray, similarity: np.ndarray) -> tuple[float, float]:
    """Fit the slope and offset of least cross-entropy (Platt 1999), with targets clipped to the inside of 0 and 1."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(line: np.ndarray) -> float:
        odds = line[0] * similarity + line[1]
        return float((weight * (np.logaddexp(0, odds) - fraction.clip(_MARGIN, 1 - _MARGIN) * odds)).sum())

    def gradient(line: np.ndarray) -> np.ndarray:
        probability = expit(line[0] * similarity + line[1])
        residual = weight * (probability - fraction.clip(_MARGIN, 1 - _MARGIN))
        return np.array([(residual * similarity).sum(), residual.sum()])

    slope, offset = minimize(loss, np.array([10.0, -3.0]), jac=gradient, method="BFGS").x
    return float(slope), float(offset)
