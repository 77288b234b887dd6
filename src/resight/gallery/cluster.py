"""An unlabelled gallery into identities: which records are of the same one?"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from resight.gallery.engines.contract import Engine
from resight.gallery.record import Record
from resight.retrieval.neighbors import nearest
from resight.retrieval.scores import InnerProducts


@dataclass(frozen=True)
class Agreement:
    """How groups agree with labels, over the records that have one."""

    precision: float
    """Share of the pairs of one group that are of one label."""
    recall: float
    """Share of the pairs of one label that are of one group."""
    f1: float
    """Their harmonic mean."""
    nmi: float
    """Mutual information over the mean of both entropies (Vinh et al. 2010, NMI_sum)."""
    groups: int
    labels: int


def cluster(
    vectors: np.ndarray,
    threshold: float,
    must_link: Sequence[Hashable | None],
    cannot_link: Sequence[Hashable | None],
    neighbors: int = 20,
) -> np.ndarray:
    """Group records by agglomerative clustering with average linkage, over the graph of nearest neighbours.

    Of the groups that the graph connects, the two with the highest mean similarity between their members are joined
    first, until that mean falls below the threshold. Groups that share a value of `cannot_link` are never joined.

    Args:
        vectors: float32 [N, D] of unit length.
        threshold: the lowest mean similarity of groups that are joined.
        must_link: of each record a value that records of one group share from the start, such as a tracklet; None for
            nothing.
        cannot_link: of each record a value that no two records of one identity share, such as (camera, time); None for
            nothing. Records that `must_link` joins are exempt.
        neighbors: of each record, that it can be joined through.

    Returns:
        int64 [N]: the group of each record, numbered in the order of their first records.
    """
    if not len(vectors):
        return np.zeros(0, np.int64)
    place: dict[Hashable, int] = {}
    start = [n if key is None else place.setdefault(key, n) for n, key in enumerate(must_link)]
    members: dict[int, list[int]] = {}
    for n, group in enumerate(start):
        members.setdefault(group, []).append(n)
    sums = {group: vectors[rows].astype(np.float64).sum(0) for group, rows in members.items()}
    marks = {group: {cannot_link[n] for n in rows} - {None} for group, rows in members.items()}

    found = nearest(InnerProducts(vectors, vectors), neighbors + 1)
    edges: dict[int, set[int]] = {group: set() for group in members}
    for n, row in zip(*np.nonzero(found.rows >= 0), strict=True):
        a, b = start[int(n)], start[int(found.rows[n, row])]
        if a != b:
            edges[a].add(b)
            edges[b].add(a)

    def mean(a: int, b: int) -> float:
        return float(sums[a] @ sums[b]) / (len(members[a]) * len(members[b]))

    heap = [(-mean(a, b), a, b) for a in edges for b in edges[a] if a < b]
    heapify(heap)
    while heap:
        far, a, b = heappop(heap)
        if a not in members or b not in members or b not in edges[a] or -far != mean(a, b):
            continue  # one of them has been joined since: what it became stands in the heap by itself
        if -far < threshold:
            break
        if marks[a] & marks[b]:
            continue
        if len(edges[a]) < len(edges[b]):
            a, b = b, a
        members[a] += members.pop(b)
        sums[a] = sums[a] + sums.pop(b)
        marks[a] |= marks.pop(b)
        for other in edges.pop(b) - {a}:
            edges[other].discard(b)
            edges[other].add(a)
            edges[a].add(other)
        edges[a].discard(b)
        for other in edges[a]:
            low, high = min(a, other), max(a, other)
            heappush(heap, (-mean(low, high), low, high))
    groups = np.empty(len(vectors), np.int64)
    for number, rows in enumerate(sorted(members.values(), key=min)):
        groups[rows] = number
    return groups


def agreement(groups: np.ndarray, labels: Sequence[str | None]) -> Agreement:
    """How groups agree with labels; records without a label are left out."""
    kept = np.array([label is not None for label in labels], bool)
    _, a = np.unique(groups[kept], return_inverse=True)
    _, b = np.unique(np.array([label for label in labels if label is not None], str), return_inverse=True)
    if not len(a):
        return Agreement(0.0, 0.0, 0.0, 0.0, 0, 0)
    both = np.unique(a * (b.max() + 1) + b, return_counts=True)[1].astype(np.float64)
    of_a, of_b = np.bincount(a).astype(np.float64), np.bincount(b).astype(np.float64)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1)).sum() / 2)

    def entropy(counts: np.ndarray) -> float:
        share = counts / len(a)
        return float(-(share * np.log(share)).sum())

    shared, found, wanted = pairs(both), pairs(of_a), pairs(of_b)
    precision, recall = shared / found if found else 1.0, shared / wanted if wanted else 1.0
    total = entropy(of_a) + entropy(of_b)
    return Agreement(
        precision,
        recall,
        2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        2 * (total - entropy(both)) / total if total else 1.0,
        len(of_a),
        len(of_b),
    )


@dataclass(frozen=True)
class Clustering:
    """Records in groups that look like one identity each."""

    records: list[Record]
    groups: np.ndarray
    """int64, the group of each record, from 0."""

    @property
    def sizes(self) -> np.ndarray:
        """int64: the records of each group."""
        return np.bincount(self.groups) if len(self.groups) else np.zeros(0, np.int64)

    @property
    def agreement(self) -> Agreement:
        """How the groups agree with the records' identities."""
        return agreement(self.groups, [record.identity for record in self.records])

    def ids(self, group: int) -> list[str]:
        """The ids of a group's records."""
        return [self.records[n].id for n in np.flatnonzero(self.groups == group)]


def cluster_records(engine: Engine, threshold: float, neighbors: int = 20, include_named: bool = False) -> Clustering:
    """Group the records of a gallery: tracklets stay together, and one camera sees an identity once at a time.

    Args:
        engine: of the gallery.
        threshold: the lowest mean similarity of groups that are joined.
        neighbors: of each record, that it can be joined through.
        include_named: also records that have an identity.
    """
    records = [record for record in engine.scan() if include_named or record.identity is None]
    vectors = np.stack([record.vector for record in records]) if records else np.zeros((0, 1), np.float32)
    must_link = [None if r.tracklet is None else (r.camera, r.tracklet) for r in records]
    cannot_link = [None if r.camera is None or r.time is None else (r.camera, r.time) for r in records]
    return Clustering(records, cluster(vectors, threshold, must_link, cannot_link, neighbors))
