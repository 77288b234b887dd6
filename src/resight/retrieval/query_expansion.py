"""Averaging an embedding with its neighbours before it is ranked, and several embeddings of the same one into one."""

from typing import Literal

import numpy as np

from resight.retrieval.labels import Labels
from resight.retrieval.neighbors import nearest
from resight.retrieval.scores import InnerProducts


def expand(x: np.ndarray, pool: np.ndarray, k: int, power: float = 3.0, within: bool = False) -> np.ndarray:
    """Each row plus its k nearest of a pool, weighted by similarity ** power.

    With power 0 the average query expansion of Chum et al. (2007), with 3 that of Radenović et al. (2018); with the
    gallery as its own pool the database-side augmentation of Arandjelović and Zisserman (2012).

    Args:
        x: float32 [n, D], of unit length.
        pool: float32 [N, D], of unit length.
        k: neighbours of each.
        power: 0 weighs all alike; a similarity below 0 weighs nothing otherwise.
        within: whether `x` is the pool itself, so that each row's own place is no neighbour.

    Returns:
        float32 [n, D], of unit length.
    """
    found = nearest(InnerProducts(x, pool), k + 1 if within else k)
    weights = np.maximum(found.scores, 0) ** power  # [n, k]
    if within:
        weights[found.rows == np.arange(len(x))[:, None]] = 0
        if weights.shape[1] > k:  # a row that was not found among its own nearest, for its doubles, keeps k of them
            weights[(weights > 0).all(1), -1] = 0
    total = x.astype(np.float32)
    for n in range(weights.shape[1]):
        total = total + weights[:, n, None] * pool[found.rows[:, n]]
    return unit_length(total)


def pool(
    x: np.ndarray, keys: Labels, columns: tuple[str, ...], how: Literal["mean", "max"]
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one embedding of those whose labels agree in every column; an item that lacks one of them stays alone.

    Returns:
        float32 [n, D], of unit length, in the order in which each is first seen; and int64 [n], the rows of those
        first.
    """
    groups = keys.groups(columns)
    alone = groups < 0
    groups = np.where(alone, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    begin = np.searchsorted(group[order], np.arange(len(first)))
    together = np.asarray(x, np.float32)[order]
    pooled = (np.add if how == "mean" else np.maximum).reduceat(together, begin)
    seen = np.argsort(first)
    return unit_length(pooled[seen]), first[seen]


def unit_length(x: np.ndarray) -> np.ndarray:
    """Rows over their Euclidean lengths."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
