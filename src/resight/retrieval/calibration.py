"""From a similarity to the probability of the same identity.

What the probability is depends on how likely a pair was to be of one identity before it was looked at: the prior. Both
curves are fitted with the two kinds of pairs weighted to a prior of 1/2; `probability` moves them to another by Bayes'
rule.
"""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from resight.config.sections import Section
from resight.errors import EvaluationError
from resight.retrieval.open_set import BINS, Pairs, edge

Method = Literal["logistic", "isotonic"]
_STEPS = 4096  # of similarity, that an isotonic curve is fitted at
_NO_MORE = 1e-6  # a probability stays this far from 0 and 1: a finite set of pairs proves no more


class Calibration(Section):
    """Kept as `calibration.json` in a model's folder."""

    slope: float
    """Of the logistic curve: log odds = slope x similarity + offset."""
    offset: float
    similarity: tuple[float, ...]
    """Where the isotonic curve is known, ascending; straight lines lie between."""
    probability: tuple[float, ...]
    """The isotonic curve there."""
    threshold: float
    """The similarity at which the false match rate is `false_match_rate`: below it, nobody known."""
    false_match_rate: float = Field(gt=0, lt=1)
    true_match_rate: float
    """Share of pairs of one identity at or over the threshold."""
    dataset: str
    """What it was measured on."""
    embedding_id: str | None = None
    """Of the embeddings that it was measured on, and holds for; None for embeddings from elsewhere."""
    same: int
    """Pairs of one identity."""
    different: int
    """Pairs of different identities."""

    def of(self, similarity: np.ndarray, prior: float = 0.5, method: Method = "isotonic") -> np.ndarray:
        """float64: the probability of the same identity, given its prior probability."""
        if method == "logistic":
            odds = self.slope * np.asarray(similarity, np.float64) + self.offset
        else:
            p = np.interp(similarity, self.similarity, self.probability)
            odds = np.log(p) - np.log1p(-p)
        return expit(odds + np.log(prior) - np.log1p(-prior))


def calibrate(pairs: Pairs, false_match_rate: float, dataset: str) -> Calibration:
    """Fits both curves and the threshold.

    Raises:
        EvaluationError: there are too few pairs of different identities for such a false match rate.
    """
    different = int(pairs.different.sum())
    if different * false_match_rate < 1:
        raise EvaluationError(
            f"a false match rate of {false_match_rate:g} cannot be measured with {different} pairs of different "
            f"identities: it takes {int(np.ceil(1 / false_match_rate))} at least"
        )
    threshold, tar = pairs.at_far(false_match_rate)
    share, weight, where = _shares(pairs)
    curve = isotonic_regression(share, weights=weight).x.clip(_NO_MORE, 1 - _NO_MORE)
    slope, offset = _logistic(share, weight, where)
    ends = (np.diff(curve, prepend=-1) != 0) | (np.diff(curve, append=2) != 0)  # of each level stretch, both
    return Calibration(
        slope=slope,
        offset=offset,
        similarity=tuple(where[ends].round(6).tolist()),
        probability=tuple(curve[ends].round(7).tolist()),
        threshold=threshold,
        false_match_rate=false_match_rate,
        true_match_rate=tar,
        dataset=dataset,
        same=int(pairs.same.sum()),
        different=different,
    )


def reliability(calibration: Calibration, pairs: Pairs, method: Method, bins: int = 10) -> tuple[np.ndarray, float]:
    """How often pairs of a given probability are of one identity, both kinds weighted alike.

    Returns:
        float64 [bins, 3]: mean probability, share of one identity (NaN both where there is no pair), and weight; and
        the expected calibration error, the mean difference of the two by weight.
    """
    share, weight, where = _shares(pairs)
    given = calibration.of(where, method=method)
    place = np.minimum((given * bins).astype(int), bins - 1)
    total = np.bincount(place, weight, bins)
    with np.errstate(invalid="ignore"):
        found = np.stack([np.bincount(place, weight * v, bins) / total for v in (given, share)] + [total], axis=1)
    return found, float(np.nansum(np.abs(found[:, 0] - found[:, 1]) * total) / total.sum())


def _shares(pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs in 4,096 steps of similarity, those without any left out: the share that is of one identity, their weight
    (one half in all for each kind), and the similarity in the middle."""
    width = BINS // _STEPS
    kinds = [c.reshape(_STEPS, width).sum(1) / max(1, c.sum()) / 2 for c in (pairs.same, pairs.different)]
    weight = kinds[0] + kinds[1]
    held = weight > 0
    where = np.array([edge(n * width + width // 2) for n in range(_STEPS)])
    return kinds[0][held] / weight[held], weight[held], where[held]


def _logistic(share: np.ndarray, weight: np.ndarray, where: np.ndarray) -> tuple[float, float]:
    """The slope and offset of least cross-entropy (Platt 1999), with his targets a little inside of 0 and 1."""

    def loss(line: np.ndarray) -> float:
        odds = line[0] * where + line[1]
        return float((weight * (np.logaddexp(0, odds) - share.clip(_NO_MORE, 1 - _NO_MORE) * odds)).sum())

    def gradient(line: np.ndarray) -> np.ndarray:
        off = weight * (expit(line[0] * where + line[1]) - share.clip(_NO_MORE, 1 - _NO_MORE))
        return np.array([(off * where).sum(), off.sum()])

    slope, offset = minimize(loss, np.array([10.0, -3.0]), jac=gradient, method="BFGS").x
    return float(slope), float(offset)
