"""Confidence intervals of a figure: bootstrap over identities.

Queries of one identity resemble one another, so identities are drawn, not queries (a cluster bootstrap; Davison and
Hinkley 1997, section 3.8). Two runs on the same queries are compared by their difference under the same draws.
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The difference of a second run from a first, with its 95 % confidence interval and p-value."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided p-value: twice the fraction of draws in which the difference has another sign than `value`, or is 0."""


def interval(values: np.ndarray, identity: np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Compute the mean of per-query values and its 95 % confidence interval.

    Args:
        values: float64 [Q], such as AP, or 1 where the first item matches and 0 elsewhere; NaN where a query is left
            out.
        identity: int64 [Q], the queries' identities.
        seed: of the draws.
        draws: the number of draws.
    """
    means = _means(values, identity, seed, draws)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.nanmean(values)), float(low), float(high))


def difference(
    first: np.ndarray, second: np.ndarray, identity: np.ndarray, seed: int = 0, draws: int = DRAWS
) -> Difference:
    """Compare two runs on the same queries by the mean of their differences, `second` minus `first`.

    Args:
        first: float64 [Q]; a query is left out where either value is NaN.
        second: float64 [Q].
        identity: int64 [Q], the queries' identities.
        seed: of the draws.
        draws: the number of draws.
    """
    differences = second - first
    means = _means(differences, identity, seed, draws)
    value = float(np.nanmean(differences))
    low, high = np.quantile(means, [0.025, 0.975])
    other_side = (means <= 0).mean() if value > 0 else (means >= 0).mean()
    return Difference(value, float(low), float(high), float(min(1.0, 2 * max(other_side, 1 / draws))))


def _means(values: np.ndarray, identity: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """Compute the mean over the queries of identities that are drawn with replacement: float64 [draws]."""
    # Sum the values of each identity's queries: [identities].
    measured = ~np.isnan(values)
    _, identity_index = np.unique(identity[measured], return_inverse=True)
    total = np.bincount(identity_index, values[measured])
    count = np.bincount(identity_index)
    # Draw as many identities as there are, and weight each by how often it was drawn.
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for n in range(draws):
        weights = np.bincount(rng.integers(len(total), size=len(total)), minlength=len(total))
        means[n] = (weights * total).sum() / (weights * count).sum()
    return means
