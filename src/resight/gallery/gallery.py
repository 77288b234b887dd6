"""A gallery of one model's embeddings: have I seen this one before, and where?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from resight.config.sections import Precision
from resight.data.sightings import SightingTable
from resight.errors import ConfigError, GalleryError
from resight.gallery import maintenance
from resight.gallery.cluster import Clustering, cluster_records
from resight.gallery.engines.contract import EVERYTHING, Engine
from resight.gallery.ingest import IngestReport, ingest, ingest_embeddings
from resight.gallery.record import Filter, GalleryInfo, Near, Record, Value
from resight.inference.embedder import Embedder, Image, load
from resight.inference.inputs import Label
from resight.retrieval.calibration import Calibration
from resight.retrieval.rerank import rerank as rerank_scores
from resight.retrieval.scores import InnerProducts

_RERANKED: Final = 200  # records that re-ranking orders
_MORE: Final = 4  # times as many candidates are fetched where answers are grouped


@dataclass(frozen=True)
class Answer:
    """One record that a search returned."""

    record: Record
    similarity: float
    """Inner product, from -1 to 1."""
    probability: float | None
    """That it is the same identity, by the model's calibration; None where the model has none."""
    known: bool | None
    """Whether it reaches the calibration's threshold; where no answer does, the query is unknown."""
    members: int = 1
    """Records of its group among those that were compared, where answers are grouped."""


class Gallery:
    """Records of one model's embeddings in an engine; a context manager that closes the engine.

    `resight.create_gallery` and `resight.open_gallery` make one.

    Args:
        engine: stores the records.
        calibration: of the model; gives answers a probability and a threshold.
        prior: probability, before a comparison, that two records are of one identity.
        embedder: of the gallery's model; None loads the model that the gallery names when it is first needed.
        device: where that model is loaded.
        precision: of that model.
    """

    def __init__(
        self,
        engine: Engine,
        calibration: Calibration | None = None,
        prior: float = 0.5,
        embedder: Embedder | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        if not 0 < prior < 1:
            raise ConfigError(f"the prior probability must lie between 0 and 1, not {prior:g}")
        self.engine = engine
        self.calibration = calibration
        self.prior = prior
        self._embedder = embedder
        self._device = device
        self._precision: Precision = precision
        if calibration is not None and calibration.embedding_id is not None:
            engine.info.require(calibration.embedding_id, "the calibration is of")

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.engine.count()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    @property
    def info(self) -> GalleryInfo:
        """What the gallery knows of its model."""
        return self.engine.info

    @property
    def embedder(self) -> Embedder:
        """Of the gallery's model.

        Raises:
            GalleryError: the gallery names no model, or another than that folder now holds.
        """
        if self._embedder is None:
            if self.info.model is None:
                raise GalleryError("the gallery does not name its model's folder: give the embedder, or embeddings")
            settings = self.info.embedding
            self._embedder = load(
                self.info.model, self._device, self._precision, settings.flip, settings.fusion, settings.unknown
            )
        self.info.require(self._embedder.embedding_id, "the model gives")
        return self._embedder

    def ingest(
        self,
        sightings: SightingTable,
        thumbnails: bool = False,
        metadata: Mapping[str, Value] | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> IngestReport:
        """Embed sightings and add a record for each; see `resight.gallery.ingest.ingest`."""
        return ingest(self.engine, self.embedder, sightings, thumbnails, metadata, progress)

    def ingest_embeddings(
        self,
        file: str | Path,
        metadata: Mapping[str, Value] | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> IngestReport:
        """Add a record for each row of a file of embeddings; see `resight.gallery.ingest.ingest_embeddings`."""
        return ingest_embeddings(self.engine, Path(file), metadata, progress)

    def add(self, records: Sequence[Record]) -> list[str]:
        """Store records; after the return they are on disk. Returns their ids.

        Raises:
            GalleryError: a vector has another width, is not finite, or not of unit length.
        """
        width = self.info.width
        for record in records:
            vector = np.asarray(record.vector)
            if vector.shape != (width,) or not np.isfinite(vector).all() or abs(np.linalg.norm(vector) - 1) > 1e-2:
                raise GalleryError(
                    f"the vector of record {record.id!r} is not {width} finite numbers of unit length, as the gallery's "
                    "model gives them"
                )
        self.engine.add(records)
        return [record.id for record in records]

    def search(
        self,
        query: np.ndarray | Image | Sequence[Image],
        k: int = 10,
        where: Filter = EVERYTHING,
        group: str | None = None,
        rerank: bool = False,
        camera: Label | Sequence[Label] = None,
        view: Label | Sequence[Label] = None,
        modality: Label | Sequence[Label] = None,
    ) -> list[list[Answer]]:
        """Search for each query its at most k answers, nearest first.

        Args:
            query: float32 [Q, D] embeddings of unit length, or pictures and sightings, which the gallery's model embeds.
            k: answers, or groups of them.
            where: the records to search.
            group: `identity` or `tracklet`: one answer for each, its nearest record. Records without it stand alone.
            rerank: order the nearest records by k-reciprocal neighbours among themselves (Zhong et al. 2017); their
                similarities stay what they are.
            camera: of the query's pictures, as `Embedder.embed` takes it.
            view: likewise.
            modality: likewise.

        Raises:
            ConfigError: k is less than 1, there is no such group, or a filter names a field that no record has.
            GalleryError: query vectors have another width.
        """
        if k < 1:
            raise ConfigError(f"k must be 1 or more, not {k}")
        if group not in (None, "identity", "tracklet"):
            raise ConfigError(f"answers can be grouped by identity or tracklet, not by {group!r}")
        self._require_fields(where)
        is_vectors = isinstance(query, np.ndarray) and query.dtype.kind == "f"
        vectors: Any = query if is_vectors else self.embedder.embed(query, camera, view, modality)  # pyright: ignore[reportArgumentType]
        vectors = np.atleast_2d(np.asarray(vectors, np.float32))
        if vectors.shape[1] != self.info.width:
            raise GalleryError(
                f"a query has {vectors.shape[1]} numbers, and the gallery's records have {self.info.width}"
            )
        if not np.isfinite(vectors).all():
            raise GalleryError("a query vector is not finite (NaN or infinity)")
        return self._search(vectors, k, where, group, rerank)

    def similar(
        self, record_id: str, k: int = 10, where: Filter = EVERYTHING, group: str | None = None
    ) -> list[Answer]:
        """`search` by a record of the gallery, which is itself left out.

        Raises:
            GalleryError: there is no such record.
        """
        answers = self.search(self.record(record_id).vector[None], k + 1, where, group)[0]
        return [answer for answer in answers if answer.record.id != record_id][:k]

    def record(self, record_id: str) -> Record:
        """The record of an id.

        Raises:
            GalleryError: there is no such record.
        """
        records = self.engine.get([record_id])
        if not records:
            raise GalleryError(f"there is no record {record_id!r} in the gallery")
        return records[0]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """float32 [N, E]: the embeddings of some records.

        Raises:
            GalleryError: there is no record of an id.
        """
        return np.stack([self.record(record_id).vector for record_id in ids])

    def assign(self, ids: Sequence[str] = (), identity: str | None = None, of: str | None = None) -> int:
        """Assign records to an identity; merges and splits identities. `undo` takes it back.

        Args:
            ids: of the records.
            identity: None for unknown.
            of: also all records of this identity.

        Returns:
            how many records were assigned.

        Raises:
            GalleryError: there is no record of an id, or there is nothing to assign.
        """
        ids = list(ids)
        if of is not None:
            ids += [record.id for record in self.engine.scan(Filter(identity=(of,)))]
        if not ids:
            raise GalleryError("there is nothing to assign: give record ids, or an identity that has records")
        records = {record.id: record.identity for record in self.engine.get(ids)}
        absent = [record_id for record_id in ids if record_id not in records]
        if absent:
            raise GalleryError(f"there is no record {absent[0]!r} in the gallery")
        self.engine.name(list(records), identity)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"at": now, "did": "name", "identity": identity, "before": records}
        self.engine.write_log([*self.engine.read_log(), entry])
        return len(records)

    def assign_clusters(self, clustering: Clustering, name: str) -> int:
        """Assign each group to `name-1`, `name-2`, ...; returns how many groups there are."""
        groups = len(clustering.sizes)
        for group in range(groups):
            self.assign(clustering.ids(group), f"{name}-{group + 1}")
        return groups

    def undo(self) -> dict[str, Any]:
        """Take the last assignment back, and return what it was.

        Raises:
            GalleryError: there is no assignment left to take back.
        """
        log = self.engine.read_log()
        if not log:
            raise GalleryError("there is no assignment to take back")
        last = log[-1]
        present = {record.id for record in self.engine.get(list(last["before"]))}
        for identity in set(last["before"].values()):
            ids = [i for i, before in last["before"].items() if before == identity and i in present]
            self.engine.name(ids, identity)
        self.engine.write_log(log[:-1])
        return last

    def remove(self, ids: Sequence[str] = (), identity: str | None = None) -> int:
        """Remove records, or all of an identity: record, vector, thumbnail, and their part in the log. Returns how many
        there were."""
        removed = set(ids)
        if identity is not None:
            removed |= {record.id for record in self.engine.scan(Filter(identity=(identity,)))}
        log = list[dict[str, Any]]()
        for entry in self.engine.read_log():
            before = {i: name for i, name in entry["before"].items() if i not in removed}
            before = {i: None if identity is not None and name == identity else name for i, name in before.items()}
            if before and (identity is None or entry["identity"] != identity):
                log.append({**entry, "before": before})
        self.engine.write_log(log)  # first: stopped between the two, the records still say what is to be removed
        return self.engine.delete(sorted(removed))

    def cluster(self, threshold: float | None = None, neighbors: int = 20, include_named: bool = False) -> Clustering:
        """Group records into identities; see `resight.gallery.cluster.cluster_records`.

        Args:
            threshold: the lowest mean similarity of groups that are joined; None for the calibrated threshold.
            neighbors: of each record, that it can be joined through.
            include_named: also records that have an identity, to compare the groups with the names.

        Raises:
            ConfigError: no threshold is given and the model has no calibration.
        """
        if threshold is None:
            if self.calibration is None:
                raise ConfigError("the gallery's model has no calibration: give a threshold, or run resight calibrate")
            threshold = self.calibration.threshold
        return cluster_records(self.engine, threshold, neighbors, include_named)

    def verify(self, identity: str | None = None) -> list[str]:
        """What is wrong with the gallery, or what is left of an identity; empty where nothing is."""
        return maintenance.verify(self.engine, identity)

    def stats(self) -> maintenance.Stats:
        """Counts of records by label."""
        return maintenance.stats(self.engine)

    def copy_to(self, other: "Gallery") -> int:
        """Add every record, and the log, to another gallery of the same model; returns how many records.

        Raises:
            GalleryError: the other is of another model.
        """
        return maintenance.copy(self.engine, other.engine)

    def _search(self, vectors: np.ndarray, k: int, where: Filter, group: str | None, again: bool) -> list[list[Answer]]:
        """All queries at once; those whose candidates make fewer than k groups once more with more candidates."""
        total = self.engine.count(where)
        size = max(_RERANKED if again else 0, _MORE * k if group else k)
        answers: list[list[Answer]] = [[] for _ in vectors]
        pending = list(range(len(vectors)))
        while pending:
            hits = self.engine.search(vectors[pending], size, where)
            records = self._records(hits)
            incomplete = list[int]()
            for row, near in zip(pending, hits, strict=True):
                candidates = [self._answer(records[n.id], n.similarity) for n in near if n.id in records]
                if again:
                    candidates = _reranked(vectors[row], candidates)
                answers[row] = candidates[:k] if group is None else _grouped(candidates, group)
                if group is not None and len(answers[row]) < k and size < total:
                    incomplete.append(row)
                answers[row] = answers[row][:k]
            pending = incomplete
            size *= _MORE
        return answers

    def _records(self, hits: Sequence[Sequence[Near]]) -> dict[str, Record]:
        ids = list(dict.fromkeys(near.id for row in hits for near in row))
        return {record.id: record for record in self.engine.get(ids)}

    def _answer(self, record: Record, similarity: float) -> Answer:
        if self.calibration is None:
            return Answer(record, similarity, None, None)
        probability = float(self.calibration.of(np.array([similarity]), self.prior)[0])
        return Answer(record, similarity, probability, similarity >= self.calibration.threshold)

    def _require_fields(self, where: Filter) -> None:
        if not where.metadata or self.engine.count(where):
            return
        known = self.engine.fields()
        unknown = sorted(set(where.metadata) - known)
        if unknown:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"no record has a field {unknown[0]!r}; the fields of metadata are: {names}")


def _grouped(answers: Sequence[Answer], group: str) -> list[Answer]:
    groups: dict[str, Answer] = {}
    for answer in answers:
        label = getattr(answer.record, group)
        key = f"record {answer.record.id}" if label is None else f"group {label}"
        first = groups.setdefault(key, replace(answer, members=0))
        groups[key] = replace(first, members=first.members + 1)
    return list(groups.values())


def _reranked(vector: np.ndarray, answers: list[Answer]) -> list[Answer]:
    if len(answers) < 2:
        return answers
    scores = InnerProducts(vector[None], np.stack([answer.record.vector for answer in answers]))
    order = rerank_scores(scores).rows(slice(0, 1))[0].argsort(descending=True, stable=True)
    return [answers[n] for n in order.tolist()]


def mean_query(vectors: np.ndarray) -> np.ndarray:
    """Embeddings of one object, float32 [N, D], as a single query [1, D] of unit length: their mean."""
    mean = np.asarray(vectors, np.float32).mean(0, keepdims=True)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)
