"""What the routes and the tools for agents call: a model and a gallery, with their queues between them.

A picture passes through three stages, which work at the same time: processes decode it, threads embed it together with
the pictures of other requests, and one thread searches or changes the gallery.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import torch

from resight.device import available_cores
from resight.gallery.answers import Answer, SearchOptions, common_modality, mean_query
from resight.gallery.gallery import Gallery
from resight.gallery.record import Filter, Record
from resight.inference.embedder import Embedder
from resight.inference.similarity import Similarity, compared
from resight.service.errors import ServiceError
from resight.service.messages.schemas import UndoOut
from resight.service.messages.schemas_admin import RetentionOut
from resight.service.security.audit import AuditLog
from resight.service.security.keys import KeyStore
from resight.service.security.session import Sessions
from resight.service.settings import ServiceSettings
from resight.service.work.background import Background
from resight.service.work.batching import Batcher
from resight.service.work.decode_worker import DecodedPicture, DecodeFailure, DecodeTask
from resight.service.work.decoding import DecodePool
from resight.service.work.gallery_threads import GalleryThread
from resight.service.work.metrics import Metrics
from resight.service.work.record_ids import require_records
from resight.service.work.retention import expired_ids, remove_expired
from resight.service.work.searches import Searches

T = TypeVar("T")
_MAX_DECODERS: Final = 4


@dataclass(frozen=True)
class Embedded:
    """The sightings of one request, embedded."""

    vectors: np.ndarray
    """float32 [N, E]."""
    modalities: list[str]
    """Of each sighting; several are joined by `+`."""
    thumbnails: list[bytes | None]


class Service:
    """One model, one gallery, and the processes and threads that use them.

    Args:
        settings: of the service.
        embedder: of the gallery's model.
        open_gallery: opens the gallery; it is called once for each thread that uses it.
    """

    def __init__(self, settings: ServiceSettings, embedder: Embedder, open_gallery: Callable[[], Gallery]) -> None:
        self.settings = settings
        self.embedder = embedder
        self.key_store = KeyStore(settings.state)
        settings.require_safe(len(self.key_store) > 0)
        self.audit = AuditLog(settings.state)
        self.sessions = Sessions(settings.state)
        self.metrics = Metrics()
        self.calibration = embedder.calibration_for_use()
        modalities = embedder.card.vocabulary.modalities
        self.default_modality = "rgb" if "rgb" in modalities else modalities[0]
        self.gallery = GalleryThread(open_gallery())
        self.reader = GalleryThread(open_gallery())
        self._searches = Searches(self.gallery)
        count = settings.decoders or min(_MAX_DECODERS, available_cores())
        self.pool = DecodePool(embedder.card.preprocessing, count, settings.max_megapixels, settings.max_queue)
        self._mode = embedder.evaluation_mode()  # entered once: of two batches at a time, one must not end it
        self._mode.__enter__()
        self.batcher = Batcher(
            embedder.embed, embedder.batch_size, settings.max_queue, self.metrics.observe_batch, embedder.threads
        )
        self.background = Background(open_gallery())
        self.metrics.follow_queues(self.pool, self.batcher, self.gallery)

    @property
    def requires_key(self) -> bool:
        """Whether a request needs a key: where there are keys, or other machines can connect."""
        return not self.settings.is_loopback or len(self.key_store) > 0

    @property
    def is_ready(self) -> bool:
        """Whether pictures are embedded."""
        return self.batcher.is_running

    def close(self) -> None:
        """Finish what was accepted, in the order of the stages, and release everything."""
        self.pool.close()
        self.batcher.close()
        self.gallery.close()
        self.reader.close()
        self.background.close()
        self._mode.__exit__(None, None, None)

    async def embed(
        self,
        sightings: Sequence[Mapping[str, bytes]],
        camera: str | None = None,
        view: str | None = None,
        thumbnails: bool = False,
    ) -> Embedded:
        """Decode and embed sightings.

        Args:
            sightings: the bytes of pictures by field name: `image` or a modality.
            camera: of all.
            view: of all.
            thumbnails: make a small JPEG of the first picture of each sighting.

        Raises:
            ServiceError: there are too many pictures, a picture cannot be decoded, the model does not know a modality
                (422), or a queue is full (503).
        """
        named = [self._by_modality(sighting) for sighting in sightings]
        encoded = [data for sighting in named for data in sighting.values()]
        if len(encoded) > self.settings.max_images:
            raise ServiceError(
                422, f"the request has {len(encoded)} pictures, and the limit is {self.settings.max_images}"
            )
        with self.batcher.expected(len(encoded)):
            rows = iter(await self.decode(DecodeTask(tuple(encoded), thumbnails)))
            by_sighting = [{modality: next(rows) for modality in sighting} for sighting in named]
            pixels = [{m: torch.from_numpy(row.pixels) for m, row in sighting.items()} for sighting in by_sighting]
            embedding = self.batcher.submit(pixels, camera, view)
        vectors = await asyncio.wrap_future(embedding)
        small = [next(iter(sighting.values())).thumbnail for sighting in by_sighting]
        return Embedded(vectors, ["+".join(sighting) for sighting in named], small)

    async def decode(self, task: DecodeTask) -> list[DecodedPicture]:
        """Decode pictures; a `ServiceError` says which one cannot be decoded (422), or that the queue is full (503)."""
        result = await asyncio.wrap_future(self.pool.submit(task))
        if isinstance(result, DecodeFailure):
            self.metrics.count_undecodable()
            raise ServiceError(422, result.reason)
        return result

    async def search(self, queries: Embedded, options: SearchOptions, same_object: bool = False) -> list[list[Answer]]:
        """Search the gallery with embedded sightings; a `ConfigError` says which field no record has."""
        vectors, modalities = queries.vectors, list[str | None](queries.modalities)
        if same_object:
            vectors, modalities = mean_query(vectors), [common_modality(modalities)]
        return await asyncio.wrap_future(self._searches.submit(vectors, options, modalities))

    async def compare(
        self, first: Mapping[str, bytes], second: Mapping[str, bytes], cameras: tuple[str | None, str | None]
    ) -> Similarity:
        """Compare two sightings, each as in `embed`, with the camera of each.

        Raises:
            ServiceError: as `embed`.
        """
        if cameras[0] == cameras[1]:
            both = await self.embed([first, second], cameras[0])
            (a, b), names = both.vectors, both.modalities
        else:
            one, other = await asyncio.gather(self.embed([first], cameras[0]), self.embed([second], cameras[1]))
            a, b, names = one.vectors[0], other.vectors[0], one.modalities + other.modalities
        curve = None if self.calibration is None else self.calibration.between(*names)
        return compared(float(a @ b), curve, self.settings.prior)

    async def add(self, record: Record, replace: bool) -> tuple[Record, bool]:
        """Store a record, unless its id exists; return the stored record, and whether it is new. It is on disk then."""

        def add(gallery: Gallery) -> tuple[Record, bool]:
            existing = gallery.engine.get([record.id])
            if existing and not replace:
                return existing[0], False
            gallery.add([record])
            return record, not existing

        return await self.with_gallery(add)

    async def assign(self, ids: Sequence[str], identity: str | None, of: str | None = None) -> int:
        """Assign records, and all of the identity `of`, to an identity; return their number.

        Raises:
            ServiceError: a record does not exist, or none has the identity `of` (404).
        """

        def change(gallery: Gallery) -> int:
            require_records(gallery, ids)
            if not ids and not (of and gallery.engine.count(Filter(identity=(of,)))):
                raise ServiceError(404, f"no record has the identity {of!r:.80}")
            return gallery.assign(ids, identity, of)

        return await self.with_gallery(change)

    async def undo(self) -> UndoOut:
        """Undo the last assignment.

        Raises:
            ServiceError: there is none (409).
        """

        def take_back(gallery: Gallery) -> UndoOut:
            if not gallery.engine.assignments():
                raise ServiceError(409, "there is no assignment to undo")
            last = gallery.undo()
            return UndoOut(at=last.at, identity=last.identity, records=len(last.before))

        return await self.with_gallery(take_back)

    async def with_gallery(self, function: Callable[[Gallery], T]) -> T:
        """Call a function in the thread that searches and changes the gallery."""
        return await asyncio.wrap_future(self.gallery.submit(function))

    async def with_reader(self, function: Callable[[Gallery], T]) -> T:
        """Call a function that reads many records and changes nothing, in a thread that no search waits for."""
        return await asyncio.wrap_future(self.reader.submit(function))

    async def remove_expired(self) -> RetentionOut:
        """Remove the records that are older than the settings say."""
        days = self.settings.retention_days
        if days is None:
            raise ServiceError(409, "the service has no retention: start it with --retention-days")
        ids, without_date = await self.with_reader(lambda gallery: expired_ids(gallery, days))
        report = await self.with_gallery(lambda gallery: remove_expired(gallery, ids, without_date))
        self.metrics.count_removed(report.removed)
        return report

    async def time_line(self, identity: str) -> list[Record]:
        """Return the records of an identity by time; those without a time come last.

        Raises:
            ServiceError: no record has the identity (404).
        """
        where = Filter(identity=(identity,))
        records = await self.with_reader(lambda gallery: list(gallery.engine.scan(where)))
        if not records:
            raise ServiceError(404, f"no record has the identity {identity!r:.80}")
        return sorted(records, key=lambda record: math.inf if record.time is None else record.time)

    def _by_modality(self, sighting: Mapping[str, bytes]) -> dict[str, bytes]:
        known = self.embedder.card.vocabulary.modalities
        named = {self.default_modality if name == "image" else name: data for name, data in sighting.items()}
        for name in named:
            if name not in known:
                raise ServiceError(422, f"the model knows no modality {name!r:.60}, only {', '.join(known)}")
        return {name: named[name] for name in known if name in named}
