"""`qdrant://HOST:PORT/COLLECTION`: a gallery on a Qdrant server or cluster, which many machines can use at once.

The collection stores the records; the id of a point is computed from the record's id, so that adding a record twice
stores it once. A second collection has the gallery's `GalleryInfo` and the log. A change is several requests to the
server, in an order that an interruption leaves fit to be run again. The server's administrator configures sharding and
replication. `qdrant+https://` uses TLS; the environment variable QDRANT_API_KEY gives the key.
"""

import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np

from resight.errors import GalleryError
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.points import conditions, number_of, to_point, to_record
from resight.gallery.engines.qdrant_collections import InfoCollection, collections_exist, create_collections
from resight.gallery.engines.qdrant_server import translated_errors
from resight.gallery.identities import new_assignment, require_assignable, without_records
from resight.gallery.record import Assignment, Filter, GalleryInfo, Hit, Record

_CANDIDATES: Final = 512  # of HNSW, as for `FOLDER`
_FILTERED_CANDIDATES: Final = 1024  # of HNSW with a filter, which rejects many of them
_OVERSAMPLING: Final = 3.0  # times k records from the index over int8 are scored again with the float32 vectors
_REQUEST_BYTES: Final = 8_000_000  # the server accepts 32 MiB
_PAGE: Final = 1000
_MAX_FIELDS: Final = 10_000  # metadata fields that are listed


class QdrantEngine:
    """A gallery in a collection.

    Args:
        client: `qdrant_client.QdrantClient`, connected.
        collection: the name of the records' collection.
        exact_under: searches are exact while at most this many records match the filter.

    Raises:
        GalleryError: the server cannot be reached, or has no such gallery.
    """

    def __init__(self, client: Any, collection: str, exact_under: int = EXACT_UNDER) -> None:
        self.exact_under = exact_under
        self._client = client
        self._collection = collection
        self._models: Any = import_module("qdrant_client.models")
        if not self.exists(client, collection):
            raise GalleryError(f"the server has no gallery {collection!r}; create one with resight gallery create")
        self._info_collection = InfoCollection(client, collection)
        self._info = self._info_collection.info()

    @classmethod
    def create(cls, client: Any, collection: str, info: GalleryInfo) -> "QdrantEngine":
        """Create an empty gallery.

        Raises:
            GalleryError: the server has a collection of that name.
        """
        create_collections(client, collection, info)
        return cls(client, collection)

    @staticmethod
    def exists(client: Any, collection: str) -> bool:
        """Return whether the server has the gallery; one whose creation was interrupted does not count."""
        return collections_exist(client, collection)

    @property
    def info(self) -> GalleryInfo:
        """The model whose embeddings the gallery stores."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """Write the records in several requests.

        After an interruption the records of the first requests are stored; adding all of them again is safe.
        """
        by_id = {record.id: record for record in records}  # of records with the same id the last one is stored
        first_number = time.time_ns() // 1000  # microseconds: the server compares numbers as float64
        points = list[Any]()
        size = 0  # bytes of the request, estimated
        for n, record in enumerate(by_id.values()):
            points.append(to_point(self._models, first_number + n, record))
            size += 16 * len(record.vector) + 2 * len(record.thumbnail or b"") + 1000
            if size > _REQUEST_BYTES or n == len(by_id) - 1:
                with translated_errors():
                    self._client.upsert(self._collection, points, wait=True)
                points = []
                size = 0

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Search exactly, or through HNSW over int8 if many records match the filter."""
        models = self._models
        params = models.SearchParams(
            exact=self.count(where) <= self.exact_under,
            hnsw_ef=max(_CANDIDATES if where == EVERYTHING else _FILTERED_CANDIDATES, 4 * k),
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
        )
        query_filter = conditions(models, where)
        hits = list[list[Hit]]()
        for vector in np.asarray(vectors, np.float32):
            with translated_errors():
                points = self._client.query_points(
                    self._collection,
                    query=vector.tolist(),
                    query_filter=query_filter,
                    limit=k,
                    search_params=params,
                    with_payload=["id", "number"],
                ).points
            nearest = sorted((-float(point.score), point.payload["number"], point.payload["id"]) for point in points)
            hits.append([Hit(record_id, -distance) for distance, _, record_id in nearest])
        return hits

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Read the points of the records in one request."""
        with translated_errors():
            points = self._client.retrieve(
                self._collection,
                [number_of(record_id) for record_id in dict.fromkeys(ids)],
                with_payload=True,
                with_vectors=True,
            )
        records = {point.payload["id"]: to_record(point) for point in points}
        return [records[record_id] for record_id in ids if record_id in records]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Read page by page, in the order of the points' numbers."""
        models = self._models
        last_number = -1
        matches = conditions(models, where)
        while True:
            later = models.FieldCondition(key="number", range=models.Range(gt=last_number))
            with translated_errors():
                points, _ = self._client.scroll(
                    self._collection,
                    scroll_filter=models.Filter(must=[later, *matches.must]),
                    order_by=models.OrderBy(key="number"),
                    limit=_PAGE,
                    with_payload=True,
                    with_vectors=True,
                )
            if not points:
                return
            yield from map(to_record, points)
            last_number = points[-1].payload["number"]

    def count(self, where: Filter = EVERYTHING) -> int:
        """Count on the server."""
        with translated_errors():
            return self._client.count(self._collection, count_filter=conditions(self._models, where), exact=True).count

    def assign(self, ids: Sequence[str], identity: str | None, of: str | None = None) -> int:
        """Write the log, then the identities: after an interruption, undoing the assignment changes nothing else."""
        members = [] if of is None else [record.id for record in self.scan(Filter(identity=(of,)))]
        stored = {record.id: record.identity for record in self.get([*ids, *members])}
        before = require_assignable(stored, ids)
        self._info_collection.write_log([*self.assignments(), new_assignment(identity, before)])
        self._set_identity(list(before), identity)
        return len(before)

    def undo(self) -> Assignment:
        """Restore the identities, then remove the assignment from the log: an interrupted undo can be run again."""
        log = self.assignments()
        if not log:
            raise GalleryError("there is no assignment to take back")
        for identity in dict.fromkeys(log[-1].before.values()):
            self._set_identity([i for i, before in log[-1].before.items() if before == identity], identity)
        self._info_collection.write_log(log[:-1])
        return log[-1]

    def remove(self, ids: Sequence[str], identity: str | None = None) -> int:
        """Remove the log's entries, then the points; the server frees their space when it optimizes its segments."""
        members = [] if identity is None else [record.id for record in self.scan(Filter(identity=(identity,)))]
        removed = {*ids, *members}
        rest = [without_records(entry, removed, identity) for entry in self.assignments()]
        self._info_collection.write_log([entry for entry in rest if entry is not None])
        if points := self._existing(sorted(removed)):
            with translated_errors():
                self._client.delete(self._collection, points, wait=True)
        return len(points)

    def fields(self) -> set[str]:
        """Collect the names on the server."""
        with translated_errors():
            return {str(hit.value) for hit in self._client.facet(self._collection, "fields", limit=_MAX_FIELDS).hits}

    def assignments(self) -> list[Assignment]:
        """Read the log from the second collection, after its first point, the gallery's `GalleryInfo`."""
        return self._info_collection.log()

    def add_assignments(self, entries: Sequence[Assignment]) -> None:
        """Write the log with the new entries."""
        self._info_collection.write_log([*self.assignments(), *entries])

    def faults(self) -> list[str]:
        """None are known: the server checks its own storage."""
        return []

    def _set_identity(self, ids: Sequence[str], identity: str | None) -> None:
        if points := self._existing(ids):
            with translated_errors():
                self._client.set_payload(self._collection, {"identity": identity}, points, wait=True)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _existing(self, ids: Sequence[str]) -> list[str]:
        """The point ids of the records that exist."""
        point_ids = [number_of(record_id) for record_id in dict.fromkeys(ids)]
        with translated_errors():
            return [str(p.id) for p in self._client.retrieve(self._collection, point_ids, with_payload=False)]
