"""Cluster the records of a gallery into identities."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from resight.errors import ConfigError
from resight.gallery.engines.contract import Engine
from resight.gallery.record import Record
from resight.gallery.values import require_count, require_number
from resight.retrieval.neighbors import nearest
from resight.retrieval.scores import InnerProducts


@dataclass(frozen=True)
class Agreement:
    """Agreement of groups with labels, over the records that have a label."""

    precision: float
    """Fraction of the pairs in the same group that have the same label."""
    recall: float
    """Fraction of the pairs with the same label that are in the same group."""
    f1: float
    """Harmonic mean of precision and recall."""
    nmi: float
    """Normalized mutual information: mutual information divided by the mean of both entropies (Vinh et al. 2010)."""
    groups: int
    labels: int


def cluster(
    vectors: np.ndarray,
    threshold: float,
    must_link: Sequence[Hashable | None],
    cannot_link: Sequence[Hashable | None],
    neighbors: int = 20,
) -> np.ndarray:
    """Group records by agglomerative clustering with average linkage, over the graph of nearest neighbors.

    Of the groups that an edge of the graph connects, the two with the highest mean similarity are joined first, until
    that mean falls below the threshold. Groups that share a value of `cannot_link` are never joined.

    Args:
        vectors: float32 [N, D] of unit length.
        threshold: the lowest mean similarity at which groups are joined.
        must_link: a value for each record, such as a tracklet; records with the same value start in the same group.
            None for no constraint.
        cannot_link: a value for each record, such as (camera, time); records with the same value are not joined, unless
            `must_link` joins them. None for no constraint.
        neighbors: nearest neighbors of each record that are edges of the graph.

    Returns:
        int64 [N], the group of each record; groups are numbered in the order of their first records.
    """
    if not len(vectors):
        return np.zeros(0, np.int64)
    # Start with one group for each `must_link` value, and for each record without one
    first_rows: dict[Hashable, int] = {}
    start = [row if value is None else first_rows.setdefault(value, row) for row, value in enumerate(must_link)]
    groups = _Groups(vectors, start, cannot_link, _edges(vectors, start, neighbors))

    # Join the two most similar groups until none reaches the threshold
    heap = [(-groups.similarity(a, b), a, b) for a in groups.edges for b in groups.edges[a] if a < b]
    heapify(heap)
    while heap:
        negative, a, b = heappop(heap)
        if not groups.are_joinable(a, b) or -negative != groups.similarity(a, b):
            continue  # one of the groups has changed since; its new similarity has an entry of its own
        if -negative < threshold:
            break
        if groups.exclude_each_other(a, b):
            continue
        joined = groups.join(a, b)
        for other in groups.edges[joined]:
            low, high = min(joined, other), max(joined, other)
            heappush(heap, (-groups.similarity(low, high), low, high))

    numbers = np.empty(len(vectors), np.int64)
    for number, rows in enumerate(sorted(groups.members.values(), key=min)):
        numbers[rows] = number
    return numbers


class _Groups:
    """Groups of records, each named by its first row, and the edges between them.

    Args:
        vectors: float32 [N, D].
        start: the group of each record.
        cannot_link: as `cluster` takes it.
        edges: the groups that are compared with each group.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        start: Sequence[int],
        cannot_link: Sequence[Hashable | None],
        edges: dict[int, set[int]],
    ) -> None:
        self.edges = edges
        self.members: dict[int, list[int]] = {}
        for row, group in enumerate(start):
            self.members.setdefault(group, []).append(row)
        self._sums = {group: vectors[rows].astype(np.float64).sum(0) for group, rows in self.members.items()}
        self._exclusive = {g: {cannot_link[row] for row in rows} - {None} for g, rows in self.members.items()}

    def similarity(self, a: int, b: int) -> float:
        """The mean similarity of the records of two groups."""
        return float(self._sums[a] @ self._sums[b]) / (len(self.members[a]) * len(self.members[b]))

    def are_joinable(self, a: int, b: int) -> bool:
        """Whether both groups still exist and are connected."""
        return a in self.members and b in self.members and b in self.edges[a]

    def exclude_each_other(self, a: int, b: int) -> bool:
        """Whether the groups share a value of `cannot_link`."""
        return bool(self._exclusive[a] & self._exclusive[b])

    def join(self, a: int, b: int) -> int:
        """Join two groups, and return the one that stays: that with more edges."""
        if len(self.edges[a]) < len(self.edges[b]):
            a, b = b, a
        self.members[a] += self.members.pop(b)
        self._sums[a] = self._sums[a] + self._sums.pop(b)
        self._exclusive[a] |= self._exclusive.pop(b)
        for other in self.edges.pop(b) - {a}:
            self.edges[other].discard(b)
            self.edges[other].add(a)
            self.edges[a].add(other)
        self.edges[a].discard(b)
        return a


def _edges(vectors: np.ndarray, start: Sequence[int], neighbors: int) -> dict[int, set[int]]:
    """The groups that a nearest neighbor of one of their records connects, in both directions."""
    nearest_rows = nearest(InnerProducts(vectors, vectors), neighbors + 1).rows  # [N, neighbors + 1], -1 for none
    edges: dict[int, set[int]] = {group: set() for group in start}
    for row, rank in zip(*np.nonzero(nearest_rows >= 0), strict=True):
        a = start[int(row)]
        b = start[int(nearest_rows[row, rank])]
        if a != b:
            edges[a].add(b)
            edges[b].add(a)
    return edges


def agreement(groups: np.ndarray, labels: Sequence[str | None]) -> Agreement:
    """Compare groups with labels; records without a label are left out.

    Args:
        groups: int64 [N], the group of each record.
        labels: the N labels; None where unknown.
    """
    labelled = np.array([label is not None for label in labels], bool)
    _, group = np.unique(groups[labelled], return_inverse=True)
    _, label = np.unique(np.array([label for label in labels if label is not None], str), return_inverse=True)
    total = len(group)
    if not total:
        return Agreement(0.0, 0.0, 0.0, 0.0, 0, 0)
    joint_sizes = np.unique(group * (label.max() + 1) + label, return_counts=True)[1].astype(np.float64)
    group_sizes = np.bincount(group).astype(np.float64)
    label_sizes = np.bincount(label).astype(np.float64)

    def pairs(sizes: np.ndarray) -> float:
        return float((sizes * (sizes - 1)).sum() / 2)

    def entropy(sizes: np.ndarray) -> float:
        fraction = sizes / total
        return float(-(fraction * np.log(fraction)).sum())

    joint_pairs = pairs(joint_sizes)
    group_pairs = pairs(group_sizes)
    label_pairs = pairs(label_sizes)
    precision = joint_pairs / group_pairs if group_pairs else 1.0
    recall = joint_pairs / label_pairs if label_pairs else 1.0
    entropies = entropy(group_sizes) + entropy(label_sizes)
    return Agreement(
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        nmi=2 * (entropies - entropy(joint_sizes)) / entropies if entropies else 1.0,
        groups=len(group_sizes),
        labels=len(label_sizes),
    )


@dataclass(frozen=True)
class Clustering:
    """Records, and the group that each is in."""

    records: list[Record]
    groups: np.ndarray
    """int64 [N], the group of each record, from 0."""

    @property
    def sizes(self) -> np.ndarray:
        """int64, the number of records in each group."""
        return np.bincount(self.groups) if len(self.groups) else np.zeros(0, np.int64)

    @property
    def agreement(self) -> Agreement:
        """Agreement of the groups with the records' identities."""
        return agreement(self.groups, [record.identity for record in self.records])

    def ids(self, group: int) -> list[str]:
        """Return the ids of a group's records."""
        return [self.records[n].id for n in np.flatnonzero(self.groups == group)]


def cluster_records(
    engine: Engine, threshold: float | None, neighbors: int = 20, include_named: bool = False
) -> Clustering:
    """Group the records of a gallery that have no identity, or all records.

    Records of one tracklet are in the same group. Records of one camera, time and modality are in different groups: one
    camera sees an identity only once at a time.

    Args:
        engine: the engine of the gallery.
        threshold: the lowest mean similarity at which groups are joined; None where the model has no calibration.
        neighbors: nearest neighbors of each record that are considered.
        include_named: also group records that have an identity.

    Raises:
        ConfigError: there is no threshold, it is not between -1 and 1, or there are fewer than 1 neighbors.
    """
    if threshold is None:
        raise ConfigError("the gallery's model has no calibration: give a threshold, or run resight calibrate")
    threshold = require_number(threshold, "a threshold is a similarity, and", -1, 1)
    neighbors = require_count(neighbors, "the number of neighbors")
    records = [record for record in engine.scan() if include_named or record.identity is None]
    vectors = np.stack([record.vector for record in records]) if records else np.zeros((0, 1), np.float32)
    must_link = [None if r.tracklet is None else (r.camera, r.tracklet) for r in records]
    cannot_link = [None if r.camera is None or r.time is None else (r.camera, r.time, r.modality) for r in records]
    return Clustering(records, cluster(vectors, threshold, must_link, cannot_link, neighbors))
