"""Averaging an embedding with its neighbours before it is ranked, and pooling embeddings of one object into one."""

from typing import Literal

import numpy as np

from resight.retrieval.labels import Labels
from resight.retrieval.neighbors import nearest
from resight.retrieval.scores import InnerProducts


def expand(x: np.ndarray, pool: np.ndarray, k: int, power: float = 3.0, within: bool = False) -> np.ndarray:
    """Add to each row its k nearest rows of a pool, weighted by similarity ** power.

    With power 0 this is the average query expansion of Chum et al. (2007), with 3 that of Radenović et al. (2018); with
    the gallery as its own pool it is the database-side augmentation of Arandjelović and Zisserman (2012).

    Args:
        x: float32 [n, D], of unit length.
        pool: float32 [N, D], of unit length.
        k: number of neighbours of each row.
        power: 0 weighs all neighbours equally; with any other, a similarity below 0 has weight 0.
        within: whether `x` is the pool itself, so that a row is not its own neighbour.

    Returns:
        float32 [n, D], of unit length.
    """
    # Find and weigh the neighbours: [n, k], one more where each row finds itself.
    neighbours = nearest(InnerProducts(x, pool), k + 1 if within else k)
    weights = np.maximum(neighbours.scores, 0) ** power
    if within:
        weights[neighbours.rows == np.arange(len(x))[:, None]] = 0
        # A row that is not among its own nearest, because it has duplicates, uses the first k of them.
        if weights.shape[1] > k:
            weights[(weights > 0).all(1), -1] = 0
    # Sum each row and its weighted neighbours: [n, D].
    total = x.astype(np.float32)
    for n in range(weights.shape[1]):
        total = total + weights[:, n, None] * pool[neighbours.rows[:, n]]
    return unit_length(total)


def pool(
    x: np.ndarray, labels: Labels, columns: tuple[str, ...], how: Literal["mean", "max"]
) -> tuple[np.ndarray, np.ndarray]:
    """Pool the embeddings of items whose labels agree in every column; an item with an unknown label stays as it is.

    Args:
        x: float32 or float16 [N, D].
        labels: of the N items.
        columns: the columns that must agree.
        how: the mean, or the maximum of each component.

    Returns:
        float32 [n, D], of unit length, in the order of each group's first item; int64 [n], the rows of these first
        items.
    """
    # Number the groups, with a group of its own for each item that lacks a label: [N].
    groups = labels.groups(columns)
    unknown = groups < 0
    groups = np.where(unknown, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
    _, first_row, group = np.unique(groups, return_index=True, return_inverse=True)
    # Sort the items by group and reduce each group to one row: [n, D].
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], np.arange(len(first_row)))
    sorted_items = np.asarray(x, np.float32)[order]
    pooled = (np.add if how == "mean" else np.maximum).reduceat(sorted_items, start)
    # Return the groups in the order of their first items.
    by_first_row = np.argsort(first_row)
    return unit_length(pooled[by_first_row]), first_row[by_first_row]


def unit_length(x: np.ndarray) -> np.ndarray:
    """Divide rows [n, D] by their Euclidean lengths."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
