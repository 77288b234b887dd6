"""The two collections of a gallery in Qdrant: `COLLECTION` has the records, `COLLECTION.info` what is said of them.

The first point of `COLLECTION.info` is the gallery's `GalleryInfo`; the points after it are the log of assignments.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from resight.errors import GalleryError
from resight.gallery.engines.qdrant_server import require_collection_name, translated_errors
from resight.gallery.identities import entry_to_text
from resight.gallery.record import LABELS, Assignment, GalleryInfo, read_gallery_info

_PAGE: Final = 1000


def info_collection(collection: str) -> str:
    """Return the name of the collection that stores a gallery's `GalleryInfo` and log."""
    return f"{collection}.info"


def collections_exist(client: Any, collection: str) -> bool:
    """Return whether the server has the gallery; one whose creation was interrupted does not count."""
    require_collection_name(collection)
    with translated_errors():
        both = client.collection_exists(collection) and client.collection_exists(info_collection(collection))
        return both and client.count(info_collection(collection), exact=True).count > 0


def create_collections(client: Any, collection: str, info: GalleryInfo) -> None:
    """Create the collections of an empty gallery; its `GalleryInfo` is written last.

    Raises:
        GalleryError: the server has a collection of that name.
    """
    require_collection_name(collection)
    models = import_module("qdrant_client.models")
    with translated_errors():
        for name in (collection, info_collection(collection)):
            if client.collection_exists(name):
                raise GalleryError(f"the server has a collection {name!r} already; use another name")
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
        client.create_collection(info_collection(collection), vectors_config={})
        first = models.PointStruct(id=0, vector={}, payload={"entry": info.model_dump_json()})
        client.upsert(info_collection(collection), [first], wait=True)


class InfoCollection:
    """The collection `COLLECTION.info` of a gallery.

    Args:
        client: `qdrant_client.QdrantClient`, connected.
        collection: the name of the records' collection.
    """

    def __init__(self, client: Any, collection: str) -> None:
        self._client = client
        self._name = info_collection(collection)
        self._models: Any = import_module("qdrant_client.models")

    def info(self) -> GalleryInfo:
        """Read the model whose embeddings the gallery stores.

        Raises:
            GalleryError: it is corrupt, or has another format number.
        """
        return read_gallery_info(json.dumps(self._entries()[0]), "the gallery")

    def log(self) -> list[Assignment]:
        """Read the log of assignments, oldest first."""
        return [Assignment(**entry) for entry in self._entries()[1:]]

    def write_log(self, entries: Sequence[Assignment]) -> None:
        """Write the new entries, then delete old ones that are left over."""
        count = len(self._entries())
        points = [
            self._models.PointStruct(id=n, vector={}, payload={"entry": entry_to_text(entry)})
            for n, entry in enumerate(entries, 1)
        ]
        with translated_errors():
            if points:
                self._client.upsert(self._name, points, wait=True)
            if count > len(entries) + 1:
                left_over = list(range(len(entries) + 1, count))
                self._client.delete(self._name, left_over, wait=True)

    def _entries(self) -> list[dict[str, Any]]:
        entries = list[dict[str, Any]]()
        offset = None
        while True:
            with translated_errors():
                points, offset = self._client.scroll(self._name, limit=_PAGE, offset=offset)
            entries += [json.loads(point.payload["entry"]) for point in points]
            if offset is None:
                return entries
