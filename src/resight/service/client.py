"""`resight.Client`: the methods of a gallery, for a service on another machine or in another process."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, TypeAdapter

from resight.errors import GalleryError, require_extra
from resight.gallery.record import LABELS, Filter, Value
from resight.service.client_uploads import Picture, Query, picture_bytes, upload_files, upload_groups
from resight.service.messages import schemas
from resight.service.messages.schemas_admin import ModelOut

if TYPE_CHECKING:
    import httpx

M = TypeVar("M", bound=BaseModel)
_PER_REQUEST: Final = 16  # pictures, as many as a service takes by default
_ANSWERS = TypeAdapter(list[schemas.AnswerOut])


class Client(AbstractContextManager["Client"]):
    """A gallery behind a service: the methods of `resight.Gallery`, whose answers are typed models.

    Pictures are read here, and their bytes are sent.

    >>> with Client("http://127.0.0.1:8000", "resight_...") as gallery:
    ...     answers = gallery.search("query.jpg", k=5)[0]

    Args:
        url: of the service, without a path.
        key: as `resight keys create` printed it; None where the service requires none.
        seconds: longest time for one answer.
        transport: of httpx, for those who have their own.
        per_request: pictures in one request of `embed` and `search`, which send as many requests as they need; at most
            the setting `max_images` of the service.

    Raises:
        ConfigError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        seconds: float = 60.0,
        transport: Any = None,
        per_request: int = _PER_REQUEST,
    ) -> None:
        self._per_request = per_request
        self._httpx: ModuleType = require_extra("httpx", "service")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http: httpx.Client = self._httpx.Client(
            base_url=url, headers=headers, timeout=seconds, transport=transport, trust_env=False
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.stats().records

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def embed(self, images: Query | Sequence[Query], camera: str | None = None, view: str | None = None) -> np.ndarray:
        """Embed pictures or sightings: float32 [N, E] of unit length."""
        form = {"query_camera": camera, "query_view": view}
        bodies = (
            self._post("/v1/embed", schemas.EmbeddingsOut, form, files)
            for files in upload_groups(images, self._per_request)
        )
        return np.concatenate([np.array(body.embeddings, np.float32) for body in bodies])

    def search(
        self,
        images: Query | Sequence[Query],
        k: int = 10,
        where: Filter | None = None,
        group: str | None = None,
        **options: Any,
    ) -> list[list[schemas.AnswerOut]]:
        """Return for each query its at most k nearest records, nearest first.

        Args:
            images: one query, or several.
            k: number of answers, or of groups.
            where: only records that match are searched.
            group: `identity` or `tracklet`: one answer for each.
            options: other fields of the route `/v1/search`: `rerank`, `same_object` (all images in one request),
                `exclude`, `query_camera`, `query_view`.
        """
        form = {"k": k, "group": group, **_filter_form(where), **options}
        groups = [upload_files(images)] if options.get("same_object") else upload_groups(images, self._per_request)
        return [row for files in groups for row in self._post("/v1/search", schemas.SearchOut, form, files).answers]

    def similar(self, record_id: str, k: int = 10, group: str | None = None) -> list[schemas.AnswerOut]:
        """Search with a record of the gallery as the query; the record itself is left out of the answers."""
        response = self._send("GET", f"/v1/similar/{quote(record_id)}", params=_present({"k": k, "group": group}))
        return _ANSWERS.validate_json(response)

    def similarity(
        self, first: Picture, second: Picture, cameras: tuple[str | None, str | None] = (None, None)
    ) -> schemas.CompareOut:
        """Compare two pictures: similarity, and the probability of the same identity."""
        files = [(name, ("picture", picture_bytes(image))) for name, image in (("first", first), ("second", second))]
        form = {"first_camera": cameras[0], "second_camera": cameras[1]}
        return self._post("/v1/compare", schemas.CompareOut, form, files)

    def add(
        self, image: Query, metadata: Mapping[str, Value] | None = None, replace: bool = False, **labels: Any
    ) -> schemas.RecordOut:
        """Store a sighting, and return its record, which is on disk then. To repeat a call is safe.

        Args:
            image: a picture, or pictures by modality.
            metadata: further fields.
            replace: store it also where its id exists.
            labels: `id`, `identity`, `camera`, `view`, `tracklet`, `time` (seconds).
        """
        form = {**labels, "replace": replace, "metadata": json.dumps(dict(metadata)) if metadata else None}
        return self._post("/v1/records", schemas.AddedOut, form, upload_files(image)).record

    def record(self, record_id: str, vector: bool = False) -> schemas.RecordOut:
        """Return the record with an id, and its embedding where that is requested."""
        response = self._send("GET", f"/v1/records/{quote(record_id)}", params={"vector": vector})
        return schemas.RecordOut.model_validate_json(response)

    def records(self, where: Filter | None = None, offset: int = 0, limit: int = 100) -> schemas.RecordsOut:
        """Return a part of the records that match, in the order in which they were added.

        Raises:
            GalleryError: the filter has metadata, which a list cannot be filtered by.
        """
        form = _filter_form(where)
        if form.get("metadata") is not None:
            raise GalleryError("a list of records cannot be filtered by metadata: search, or filter the list")
        params = _present({**form, "offset": offset, "limit": limit})
        return schemas.RecordsOut.model_validate_json(self._send("GET", "/v1/records", params=params))

    def time_line(self, identity: str) -> list[schemas.RecordOut]:
        """Return the records of an identity by time."""
        response = self._send("GET", "/v1/timeline", params={"identity": identity})
        return schemas.RecordsOut.model_validate_json(response).records

    def remove(self, ids: Sequence[str] = (), identity: str | None = None) -> int:
        """Remove records, or all of an identity; return their number."""
        return self._change("/v1/remove", schemas.CountOut, ids=list(ids), identity=identity).records

    def assign(self, ids: Sequence[str] = (), identity: str | None = None, of: str | None = None) -> int:
        """Assign records to an identity, and return their number."""
        return self._change("/v1/assign", schemas.CountOut, ids=list(ids), identity=identity, of=of).records

    def merge(self, identity: str, into: str) -> int:
        """Assign all records of one identity to another, and return their number."""
        return self._change("/v1/merge", schemas.CountOut, identity=identity, into=into).records

    def undo(self) -> schemas.UndoOut:
        """Undo the last assignment."""
        return schemas.UndoOut.model_validate_json(self._send("POST", "/v1/undo"))

    def cluster(
        self, threshold: float | None = None, neighbors: int = 20, include_named: bool = False
    ) -> list[list[str]]:
        """Group records by their similarity, and return the ids of each group."""
        options = {"threshold": threshold, "neighbors": neighbors, "include_named": include_named}
        return self._change("/v1/cluster", schemas.ClusterOut, **options).groups

    def stats(self) -> schemas.StatsOut:
        """Count the records by label."""
        return schemas.StatsOut.model_validate_json(self._send("GET", "/v1/stats"))

    def model(self) -> ModelOut:
        """Return the model card."""
        return ModelOut.model_validate_json(self._send("GET", "/v1/model"))

    def _change(self, path: str, kind: type[M], **body: Any) -> M:
        return kind.model_validate_json(self._send("POST", path, json=body))

    def _post(self, path: str, kind: type[M], form: Mapping[str, Any], files: list[Any]) -> M:
        return kind.model_validate_json(self._send("POST", path, data=_present(form), files=files))

    def _send(self, method: str, path: str, **content: Any) -> bytes:
        """The body of the answer.

        Raises:
            GalleryError: the service cannot be reached, or refuses the request; the text says why.
        """
        try:
            response = self._http.request(method, path, **content)
        except self._httpx.HTTPError as error:
            raise GalleryError(f"the service at {self._http.base_url} does not answer: {error}") from error
        if response.is_success:
            return response.content
        try:
            reason = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            reason = "no reason is given"
        raise GalleryError(f"the service answers with status {response.status_code}: {reason}")


def _present(form: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in form.items() if value is not None}


def _filter_form(where: Filter | None) -> dict[str, Any]:
    if where is None:
        return {}
    labels = {name: list(getattr(where, name)) for name in LABELS if getattr(where, name)}
    metadata = json.dumps(dict(where.metadata)) if where.metadata else None
    return {**labels, "after": where.after, "before": where.before, "metadata": metadata}
