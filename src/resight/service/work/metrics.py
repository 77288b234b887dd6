"""Metrics in Prometheus' text format: counts, times and queue lengths; no label has a name of a person or file."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from resight.service.work.batching import Batcher
from resight.service.work.decoding import DecodePool
from resight.service.work.gallery_threads import GalleryThread

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "resight_requests_total", "Requests, by route and status.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "resight_request_seconds", "Seconds from the first byte to the last, by route.", ["method", "route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self._batch_images = Histogram(
            "resight_batch_pictures", "Pictures in a batch.", buckets=_IMAGES, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "resight_batch_seconds", "Seconds that the model takes for a batch.", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._undecodable = Counter(
            "resight_undecodable_requests_total", "Requests with a picture that cannot be decoded.",
            registry=self.registry,
        )  # fmt: skip
        self._removed = Counter(
            "resight_removed_by_retention_total", "Records that were removed because of their age.",
            registry=self.registry,
        )  # fmt: skip

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def observe_batch(self, image_count: int, seconds: float) -> None:
        """Count a batch of the model."""
        self._batch_images.observe(image_count)
        self._batch_seconds.observe(seconds)

    def count_undecodable(self) -> None:
        """Count a request with a picture that cannot be decoded."""
        self._undecodable.inc()

    def count_removed(self, records: int) -> None:
        """Count records that were removed because of their age."""
        self._removed.inc(records)

    def follow_queues(self, pool: DecodePool, batcher: Batcher, gallery: GalleryThread) -> None:
        """Report the lengths of the queues, which are read when the metrics are read."""
        values: dict[str, tuple[str, Callable[[], float]]] = {
            "resight_decode_queue": ("Requests that wait for a decoding process.", lambda: pool.waiting),
            "resight_forward_queue": ("Pictures that wait for the model.", lambda: batcher.waiting),
            "resight_gallery_queue": ("Calls of the gallery that have not ended.", lambda: gallery.waiting),
            "resight_replaced_decoders": ("Decoding processes that were replaced.", lambda: pool.replaced),
        }
        for name, (text, value) in values.items():
            Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
