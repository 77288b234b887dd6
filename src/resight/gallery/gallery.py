"""A gallery of one model's embeddings: store, search, assign, cluster and remove records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resight.config.sections import Precision
from resight.data.sightings import SightingTable
from resight.errors import GalleryError
from resight.gallery import maintenance
from resight.gallery.answers import Answer, SearchOptions, as_queries, find_answers
from resight.gallery.cluster import Clustering, cluster_records
from resight.gallery.engines.contract import EVERYTHING, Engine
from resight.gallery.ingest import IngestReport, ingest, ingest_embeddings
from resight.gallery.parquet import read_parquet, write_parquet
from resight.gallery.record import Assignment, Filter, GalleryInfo, Record, Value, require_valid
from resight.gallery.values import require_label, require_number, require_texts
from resight.inference.inputs import Label, per_item
from resight.retrieval.calibration import Calibration

if TYPE_CHECKING:  # importing the model takes seconds, and a gallery does not always need it
    from resight.inference.embedder import Embedder, Image


class Gallery(AbstractContextManager["Gallery"]):
    """Records of one model's embeddings; a context manager that closes the engine.

    Made by `resight.create_gallery` and `resight.open_gallery`.

    Args:
        engine: stores the records.
        calibration: the model's calibration; it gives answers a probability and a threshold.
        prior: probability, before a comparison, that two records are of the same identity.
        embedder: of the gallery's model; None loads the model of the gallery's model folder when it is first needed.
        device, precision: where that model is loaded, and its arithmetic.
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
        prior = require_number(prior, "the prior probability", 0, 1, inclusive=False)
        self.engine, self.calibration, self.prior = engine, calibration, prior
        self._embedder, self._device = embedder, device
        self._precision: Precision = precision
        if calibration is not None and calibration.embedding_id is not None:
            engine.info.require(calibration.embedding_id, "the calibration is of")

    def __repr__(self) -> str:
        return f"Gallery({type(self.engine).__name__}, width {self.info.width}, model {self.info.model})"

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.engine.count()

    def close(self) -> None:
        """Release the engine."""
        self.engine.close()

    @property
    def info(self) -> GalleryInfo:
        """The model whose embeddings the gallery stores."""
        return self.engine.info

    @property
    def embedder(self) -> Embedder:
        """The embedder of the gallery's model, loaded when it is first needed.

        Raises:
            GalleryError: the gallery has no model folder, or the folder now has another model.
        """
        if self._embedder is None:
            if self.info.model is None:
                raise GalleryError(
                    "the gallery has no model folder: pass an embedder to open_gallery, or search and add embeddings"
                )
            from resight.inference.load import load

            settings = self.info.embedding
            choices = (settings.flip, settings.fusion, settings.unknown)
            self._embedder = load(self.info.model, self._device, self._precision, *choices, scaling=settings.scaling)
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
        """Store records, and return their ids; when the method returns, the records are on disk.

        Raises:
            GalleryError: a vector has another width, is not finite or not of unit length, or a value cannot be stored.
        """
        require_valid(records, self.info.width)
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
        exclude: Sequence[str] = (),
    ) -> list[list[Answer]]:
        """Return for each query its at most k nearest records: the most similar first, or the most probable where the
        model has curves for pairs of modality subsets and the gallery has several subsets.

        Args:
            query: float32 [Q, D] embeddings of unit length; or images or sightings, which the gallery's model embeds.
            k: number of answers, or of groups.
            where: only records that match are searched.
            group: `identity` or `tracklet`: return one answer for each, its nearest record. A record without the label
                is a group of its own.
            rerank: order the nearest records by their k-reciprocal neighbors (Zhong et al. 2017); similarities stay.
            camera, view, modality: of the query images, as in `Embedder.embed`; modality also of embeddings.
            exclude: ids of records that are no answers, such as those that the query is of.

        Raises:
            ConfigError: k is less than 1, the group is unknown, or no record has a metadata field of the filter.
            GalleryError: the query vectors have another width than the gallery's, or are not finite.
        """
        options = SearchOptions(k, where, group, rerank, frozenset(require_texts(exclude, "record ids")))
        options.require_valid(self.engine)
        is_vectors = isinstance(query, np.ndarray) and query.dtype.kind == "f"
        vectors: Any = query if is_vectors else self.embedder.embed(query, camera, view, modality)  # pyright: ignore[reportArgumentType]
        queries = as_queries(vectors, self.info.width)
        if not is_vectors:
            modality = self.embedder.modalities_of(query, modality)  # pyright: ignore[reportArgumentType]
        of_each = per_item("modality", modality, len(queries))
        return find_answers(self.engine, queries, options, self.calibration, self.prior, of_each)

    def similar(
        self, record_id: str, k: int = 10, where: Filter = EVERYTHING, group: str | None = None
    ) -> list[Answer]:
        """Search as `search` does with a record of the gallery as the query; it is left out of the answers."""
        record, options = self.record(record_id), SearchOptions(k, where, group, exclude=frozenset([record_id]))
        options.require_valid(self.engine)
        query, modalities = record.vector[None], [record.modality]
        return find_answers(self.engine, query, options, self.calibration, self.prior, modalities)[0]

    def record(self, record_id: str) -> Record:
        """Return the record with an id, or raise a GalleryError if there is none."""
        records = self.engine.get(require_texts([record_id], "record id"))
        if not records:
            raise GalleryError(f"there is no record {record_id!r} in the gallery")
        return records[0]

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Return the embeddings of records, float32 [N, E].

        Raises:
            GalleryError: an id does not exist.
        """
        vectors = [self.record(record_id).vector for record_id in require_texts(ids, "record ids")]
        return np.stack(vectors) if vectors else np.zeros((0, self.info.width), np.float32)

    def assign(self, ids: Sequence[str] = (), identity: str | None = None, of: str | None = None) -> int:
        """Assign records to an identity, and return their number; this can merge and split identities.

        Args:
            ids: record ids.
            identity: the new identity; None makes the records unknown.
            of: also assign all records of this identity.

        Raises:
            GalleryError: an id does not exist, or there is nothing to assign.
        """
        ids = require_texts(ids, "record ids")
        return self.engine.assign(ids, require_label(identity, "identity"), require_label(of, "identity `of`"))

    def assign_clusters(self, clustering: Clustering, name: str) -> int:
        """Assign each group to `name-1`, `name-2`, ...; return the number of groups."""
        for group in range(len(clustering.sizes)):
            self.assign(clustering.ids(group), f"{name}-{group + 1}")
        return len(clustering.sizes)

    def undo(self) -> Assignment:
        """Undo the last assignment, remove it from the log, and return it.

        Raises:
            GalleryError: there is no assignment to take back.
        """
        return self.engine.undo()

    def remove(self, ids: Sequence[str] = (), identity: str | None = None) -> int:
        """Remove records, or all of an identity, with vectors, thumbnails and log entries; return their number.

        Raises:
            GalleryError: the records are removed, but another process keeps their erasure from disk from being
                completed; that is done when the gallery is next opened.
        """
        return self.engine.remove(require_texts(ids, "record ids"), require_label(identity, "identity"))

    def cluster(self, threshold: float | None = None, neighbors: int = 20, include_named: bool = False) -> Clustering:
        """Group records into identities; see `resight.gallery.cluster.cluster_records`. None: calibrated threshold."""
        calibrated = None if self.calibration is None else self.calibration.threshold
        return cluster_records(self.engine, calibrated if threshold is None else threshold, neighbors, include_named)

    def verify(self, identity: str | None = None) -> list[str]:
        """Return a list of faults, and of traces of a removed identity; an empty list if there are none."""
        return maintenance.verify(self.engine, require_label(identity, "identity"))

    def stats(self) -> maintenance.Stats:
        """Count records by label."""
        return maintenance.stats(self.engine)

    def to_parquet(self, file: str | Path) -> int:
        """Write every record to a Parquet file; see `resight.gallery.parquet.write_parquet`."""
        return write_parquet(self.engine, Path(file))

    def add_parquet(self, file: str | Path) -> int:
        """Add every record of a file that `to_parquet` wrote; see `resight.gallery.parquet.read_parquet`."""
        return read_parquet(self.engine, Path(file))

    def copy_to(self, other: Gallery) -> int:
        """Copy all records and the log to another gallery; see `resight.gallery.maintenance.copy`."""
        return maintenance.copy(self.engine, other.engine)
