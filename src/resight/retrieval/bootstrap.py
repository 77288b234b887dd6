"""How sure a figure is: bootstrap over identities.

Queries of one identity resemble one another, so identities are drawn, not queries (a cluster bootstrap; Davison and
Hinkley 1997, section 3.8). Two runs on the same queries are compared by their difference under the same draws.
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A figure and where 95 % of its draws lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """What a second run has more than a first."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided: twice the share of draws in which the difference is not on the side where it was found."""


def interval(values: np.ndarray, identity: np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """The mean of per-query values (AP, or 1 where the first item is right) and its 95 % confidence interval.

    Args:
        values: float64 [Q]; NaN where a query takes no part.
        identity: int64 [Q], the queries' identities.
        seed: of the draws.
        draws: how many.
    """
    means = _means(values, identity, seed, draws)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.nanmean(values)), float(low), float(high))


def difference(
    first: np.ndarray, second: np.ndarray, identity: np.ndarray, seed: int = 0, draws: int = DRAWS
) -> Difference:
    """The mean of `second` less that of `first`, of the same queries, with its 95 % confidence interval and p-value.

    Args:
        first: float64 [Q]; a query takes part where neither value is NaN.
        second: float64 [Q].
        identity: int64 [Q].
        seed: of the draws.
        draws: how many.
    """
    more = second - first
    means, value = _means(more, identity, seed, draws), float(np.nanmean(more))
    low, high = np.quantile(means, [0.025, 0.975])
    other_side = (means <= 0).mean() if value > 0 else (means >= 0).mean()
    return Difference(value, float(low), float(high), float(min(1.0, 2 * max(other_side, 1 / draws))))


def _means(values: np.ndarray, identity: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """float64 [draws]: the mean over the queries of identities drawn with replacement."""
    held = ~np.isnan(values)
    _, place = np.unique(identity[held], return_inverse=True)
    total, count = np.bincount(place, values[held]), np.bincount(place)
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    for n in range(draws):
        times = np.bincount(rng.integers(len(total), size=len(total)), minlength=len(total))
        found[n] = (times * total).sum() / (times * count).sum()
    return found
