"""`qdrant://HOST:PORT/COLLECTION`: a gallery on a Qdrant server or cluster, which many machines may use at once.

The collection has the records, each under a number that follows from its id, so that adding one twice is adding it
once; a second one, `COLLECTION.info`, has what the gallery is of and the log. The server shards and replicates
them as its keeper has set up. QDRANT_API_KEY is taken from the environment; `qdrant+https://` speaks TLS.
"""

import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from resight.errors import GalleryError
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.points import conditions, number_of, to_point, to_record
from resight.gallery.record import LABELS, Filter, GalleryInfo, Near, Record, read_gallery_info

_SEARCH, _FILTERED = 512, 1024  # candidates of HNSW, as `FOLDER` has them; a filter does not mean many of those met
_AGAIN: Final = 3.0  # times k that int8 finds and the vectors themselves put in order
_BYTES: Final = 8_000_000  # of a request; the server takes 32 MiB
_PAGE: Final = 1000
_FIELDS: Final = 10_000  # names of metadata that are listed


class QdrantEngine:
    """A gallery in a collection.

    Args:
        client: `qdrant_client.QdrantClient`, connected.
        collection: its name.
        exact_under: at most so many records are searched exactly.

    Raises:
        GalleryError: the server cannot be reached, or has no such gallery.
    """

    def __init__(self, client: Any, collection: str, exact_under: int = EXACT_UNDER) -> None:
        self.exact_under = exact_under
        self._client, self._name, self._models = client, collection, import_module("qdrant_client.models")
        if not self.exists(client, collection):
            raise GalleryError(f"the server has no gallery {collection!r}: make one with resight gallery create")
        self._info = read_gallery_info(json.dumps(self._entries()[0]), "the gallery")

    @classmethod
    def create(cls, client: Any, collection: str, info: GalleryInfo) -> "QdrantEngine":
        """Makes a gallery.

        Raises:
            GalleryError: there is a collection of that name.
        """
        models = import_module("qdrant_client.models")
        with _said():
            if client.collection_exists(collection):
                raise GalleryError(f"the server has a collection {collection!r} already; use another name")
            client.create_collection(
                collection,
                vectors_config=models.VectorParams(size=info.width, distance=models.Distance.DOT, on_disk=True),
                quantization_config=models.ScalarQuantization(
                    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
                ),
            )
            for name in (*LABELS, "tags", "fields"):
                client.create_payload_index(collection, name, models.PayloadSchemaType.KEYWORD)
            client.create_payload_index(collection, "number", models.PayloadSchemaType.INTEGER)
            client.create_payload_index(collection, "time", models.PayloadSchemaType.FLOAT)
            client.create_collection(_beside(collection), vectors_config={})
            first = models.PointStruct(id=0, vector={}, payload={"entry": info.model_dump_json()})
            client.upsert(_beside(collection), [first], wait=True)
        return cls(client, collection)

    @staticmethod
    def exists(client: Any, collection: str) -> bool:
        """Whether the server has the gallery; what was stopped while it was made is none."""
        with _said():
            there = client.collection_exists(collection) and client.collection_exists(_beside(collection))
            return there and client.count(_beside(collection), exact=True).count > 0

    @property
    def info(self) -> GalleryInfo:
        """What the gallery knows of its model."""
        return self._info

    def add(self, records: Sequence[Record]) -> None:
        """In parts that the server takes; stopped between two, the first are there, and adding all again is safe."""
        last = {record.id: record for record in records}  # of one id given twice the last counts
        first = time.time_ns() // 1000  # microseconds: the server compares numbers as float64
        part, size = list[Any](), 0
        for n, record in enumerate(last.values()):
            part.append(to_point(self._models, first + n, record))
            size += 16 * len(record.vector) + 2 * len(record.thumbnail or b"") + 1000
            if size > _BYTES or n == len(last) - 1:
                with _said():
                    self._client.upsert(self._name, part, wait=True)
                part, size = [], 0

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Near]]:
        """Exactly, or through HNSW over int8 where many records are meant."""
        models = self._models
        params = models.SearchParams(
            exact=self.count(where) <= self.exact_under,
            hnsw_ef=max(_SEARCH if where == EVERYTHING else _FILTERED, 4 * k),
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=_AGAIN),
        )
        asked, found = conditions(models, where), list[list[Near]]()
        for vector in np.asarray(vectors, np.float32):
            with _said():
                points = self._client.query_points(
                    self._name,
                    query=vector.tolist(),
                    query_filter=asked,
                    limit=k,
                    search_params=params,
                    with_payload=["id", "number"],
                ).points
            near = sorted((-float(point.score), point.payload["number"], point.payload["id"]) for point in points)
            found.append([Near(i, -far) for far, _, i in near])
        return found

    def get(self, ids: Sequence[str]) -> list[Record]:
        """By their numbers."""
        with _said():
            points = self._client.retrieve(
                self._name, [number_of(i) for i in dict.fromkeys(ids)], with_payload=True, with_vectors=True
            )
        held = {point.payload["id"]: to_record(point) for point in points}
        return [held[i] for i in ids if i in held]

    def scan(self, where: Filter = EVERYTHING) -> Iterator[Record]:
        """Page by page, in the order of when they were added."""
        models, after = self._models, -1
        asked = conditions(models, where)
        while True:
            later = models.FieldCondition(key="number", range=models.Range(gt=after))
            with _said():
                points, _ = self._client.scroll(
                    self._name,
                    scroll_filter=models.Filter(must=[later, *asked.must]),
                    order_by=models.OrderBy(key="number"),
                    limit=_PAGE,
                    with_payload=True,
                    with_vectors=True,
                )
            if not points:
                return
            yield from map(to_record, points)
            after = points[-1].payload["number"]

    def count(self, where: Filter = EVERYTHING) -> int:
        """By the server."""
        with _said():
            return self._client.count(self._name, count_filter=conditions(self._models, where), exact=True).count

    def name(self, ids: Sequence[str], identity: str | None) -> None:
        """In one request; records that are not there are left out."""
        if there := self._those_of(ids):
            with _said():
                self._client.set_payload(self._name, {"identity": identity}, there, wait=True)

    def delete(self, ids: Sequence[str]) -> int:
        """The server takes what is gone off its disk when it puts its segments in order."""
        if there := self._those_of(ids):
            with _said():
                self._client.delete(self._name, there, wait=True)
        return len(there)

    def fields(self) -> set[str]:
        """By the server."""
        with _said():
            return {str(hit.value) for hit in self._client.facet(self._name, "fields", limit=_FIELDS).hits}

    def read_log(self) -> list[dict[str, Any]]:
        """From the collection beside the records."""
        return self._entries()[1:]

    def write_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """New entries first; then those beyond them go."""
        models, there = self._models, len(self._entries())
        points = [
            models.PointStruct(id=n, vector={}, payload={"entry": json.dumps(entry)})
            for n, entry in enumerate(entries, 1)
        ]
        with _said():
            if points:
                self._client.upsert(_beside(self._name), points, wait=True)
            if there > len(entries) + 1:
                gone = list(range(len(entries) + 1, there))
                self._client.delete(_beside(self._name), gone, wait=True)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _those_of(self, ids: Sequence[str]) -> list[str]:
        """The numbers of records that are there."""
        asked = [number_of(i) for i in dict.fromkeys(ids)]
        with _said():
            return [str(p.id) for p in self._client.retrieve(self._name, asked, with_payload=False)]

    def _entries(self) -> list[dict[str, Any]]:
        found, offset = list[dict[str, Any]](), None
        while True:
            with _said():
                points, offset = self._client.scroll(_beside(self._name), limit=_PAGE, offset=offset)
            found += [json.loads(point.payload["entry"]) for point in points]
            if offset is None:
                return found


def connect(url: str) -> tuple[Any, str]:
    """A client, and the collection that the URL names.

    Raises:
        GalleryError: the URL names none, or qdrant-client is not installed.
    """
    try:
        client = import_module("qdrant_client").QdrantClient
    except ImportError as error:
        raise GalleryError("a gallery on a Qdrant server needs its client: pip install 'resight[qdrant]'") from error
    parts = urlsplit(url)
    collection = parts.path.strip("/")
    if not parts.hostname or not collection:
        raise GalleryError(f"{url} is not qdrant://HOST:PORT/COLLECTION")
    scheme = "https" if parts.scheme == "qdrant+https" else "http"
    with _said():
        address = f"{scheme}://{parts.hostname}:{parts.port or 6333}"
        return client(url=address, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False), collection


def _beside(collection: str) -> str:
    return f"{collection}.info"


@contextmanager
def _said() -> Generator[None]:
    """What the server or the way to it says, in one line, as ours."""
    errors = import_module("qdrant_client.http.exceptions")
    try:
        yield
    except (errors.ApiException, ConnectionError, ValueError) as error:
        raise GalleryError(f"Qdrant says: {' '.join(str(error).split())}") from error
