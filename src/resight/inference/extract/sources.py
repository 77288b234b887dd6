"""Sources of an extraction: sightings in files, or boxes in a video. A part of either is read where it is embedded."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor

from resight.config.scaling import ScalingRule, rule_of
from resight.data.boxes import Box, read_boxes
from resight.data.modalities import image_column, sightings_schema
from resight.data.picture_notes import PictureNotes
from resight.data.readers.anything import read_images
from resight.data.sightings import Sighting, SightingTable
from resight.data.threads import preparing_threads
from resight.data.video import Video
from resight.device import available_cores
from resight.errors import ConfigError, DatasetError, PictureError
from resight.inference.decoding import Prepare, decode_prepared
from resight.inference.extract.options import ExtractOptions

Rules = Mapping[str, ScalingRule]
"""By modality, how one channel of more than 8 bits becomes 8."""
_NO_RULES: Final[Rules] = {}
_AHEAD: Final = 64  # sightings that are decoded and prepared in advance
EDGES: Final = ("left", "top", "right", "bottom")
"""Of a box, in pixels."""
Row = dict[str, Any]
"""What is known of a sighting, by column."""
Images = Mapping[str, Tensor]
"""uint8 [3, h, w] by modality."""


def _unchanged(image: Tensor) -> Tensor:
    return image


class Source(Protocol):
    """Rows that are embedded, each one sighting."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is known of each: the columns of a table of sightings, and any others."""
        ...

    @property
    def images_per_row(self) -> int:
        """At most."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the images."""
        ...

    @property
    def first_image(self) -> str:
        """The name of the first image, for error texts."""
        ...

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """A hash of every row and column."""
        ...

    def part(self, rows: slice) -> "Source":
        """Some of the rows, small enough to be sent to another process."""
        ...

    def read(
        self, prepare: Prepare = _unchanged, scaling: Rules = _NO_RULES, notes: PictureNotes | None = None
    ) -> Iterator[tuple[Row, Images | str]]:
        """Each row with its decoded and prepared images, or the reason why one cannot be decoded; notes count what is
        left out or converted."""
        ...


@dataclass(frozen=True)
class SightingSource:
    """A row for each sighting of a table."""

    sightings: SightingTable

    @property
    def columns(self) -> tuple[str, ...]:
        """Files by modality, labels and time."""
        return tuple(self.sightings.arrow.column_names)

    @property
    def images_per_row(self) -> int:
        """The most modalities that a sighting has."""
        return max((len(sighting.images) for sighting in self.sightings), default=1)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that at least one sighting has."""
        return self.sightings.modalities

    @property
    def first_image(self) -> str:
        """The path of the first sighting's first image."""
        return next((str(path) for path in self.sightings[0].images.values()), "a row without an image")

    def __len__(self) -> int:
        return len(self.sightings)

    def digest(self) -> str:
        """A hash of every row and column."""
        batches = self.sightings.arrow.to_batches(max_chunksize=4096)
        return _digest("sightings", (tuple(row.items()) for batch in batches for row in batch.to_pylist()))

    def part(self, rows: slice) -> "SightingSource":
        """Some of the rows."""
        return SightingSource(self.sightings.take(range(*rows.indices(len(self)))))

    def read(
        self, prepare: Prepare = _unchanged, scaling: Rules = _NO_RULES, notes: PictureNotes | None = None
    ) -> Iterator[tuple[Row, Images | str]]:
        """In order, decoded by several threads, some in advance."""
        rows = self.sightings.arrow.to_pylist()
        pending = deque[Future[Images | str]]()
        with preparing_threads(available_cores()) as pool:
            sightings = iter(self.sightings)
            for row in rows:
                while len(pending) < _AHEAD and (sighting := next(sightings, None)) is not None:
                    pending.append(pool.submit(_decoded, sighting, prepare, scaling, notes))
                yield row, pending.popleft().result()


@dataclass(frozen=True)
class VideoSource:
    """A row for each box in a video."""

    video: Path
    boxes: Sequence[Box]
    camera: str | None = None
    modality: str = "rgb"
    start: float = 0.0
    """When the video begins, in seconds on the clock of all cameras."""
    images_per_row: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table of sightings, and the box."""
        return (*sightings_schema([self.modality]).names, "frame", *EDGES, "confidence")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The video's."""
        return (self.modality,)

    @property
    def first_image(self) -> str:
        """The first box."""
        return f"{self.video}, frame {self.boxes[0].frame}"

    def __len__(self) -> int:
        return len(self.boxes)

    def digest(self) -> str:
        """A hash of the file's name, size and time of change, the boxes, and their labels."""
        status = self.video.stat()
        video = (str(self.video), status.st_size, status.st_mtime_ns, self.camera, self.modality, self.start)
        return _digest("video", chain([video], self.boxes))

    def part(self, rows: slice) -> "VideoSource":
        """Some of the rows."""
        return replace(self, boxes=self.boxes[rows])

    def read(
        self, prepare: Prepare = _unchanged, scaling: Rules = _NO_RULES, notes: PictureNotes | None = None
    ) -> Iterator[tuple[Row, Images | str]]:
        """Frame by frame; the frames of a video have 8 bits, so there is nothing to scale and nothing to note."""
        for box, seconds, image in Video(self.video).crops(self.boxes):
            row: Row = dict.fromkeys(self.columns)
            row |= {image_column(self.modality): str(self.video), "identity": box.identity, "camera": self.camera}
            row |= {"tracklet": box.tracklet, "time": self.start + seconds, "frame": box.frame}
            row |= {edge: getattr(box, edge) for edge in (*EDGES, "confidence")}
            yield row, image if isinstance(image, str) else {self.modality: prepare(image)}


Readable = str | Path | Sequence[str | Path] | SightingTable | Source
"""A file, folder or table of images, several of them, a table in memory, or a source of one's own."""


def open_source(
    source: Readable, options: ExtractOptions, log: Callable[[str], None] = lambda sentence: None
) -> Source:
    """Return the rows of whatever a user hands in; `log` is called with a sentence about what is not read.

    Raises:
        ConfigError: the options do not suit the source.
        DatasetError: a file, folder or table does not exist, or has no image.
        PictureError: the video cannot be decoded.
    """
    rows = _open(source, options, log)
    if not len(rows):
        raise DatasetError("the source has no sighting: there is nothing to embed")
    return rows


def _open(source: Readable, options: ExtractOptions, log: Callable[[str], None]) -> Source:
    if isinstance(source, str | Path):
        source = [source]
    if not isinstance(source, list | tuple):
        if options.boxes is not None or options.identity_from_folder or options.folder.changed_options:
            names = ["--boxes", "--identity-from-folder", *options.folder.changed_options]
            raise ConfigError(f"{', '.join(names)} are for files and folders, not for a table in memory")
        return SightingSource(source) if isinstance(source, SightingTable) else source  # pyright: ignore[reportReturnType]
    paths = [Path(path).absolute() for path in source]
    if options.boxes is None:
        return SightingSource(read_images(paths, options.identity_from_folder, options.folder, log))
    if len(paths) != 1:
        raise ConfigError("--boxes needs one video as the only source, without --identity-from-folder")
    video = Video(paths[0])
    boxes = read_boxes(Path(options.boxes), options.min_confidence)
    return VideoSource(video.path, boxes, options.camera, options.modality or "rgb", options.start)


def _decoded(sighting: Sighting, prepare: Prepare, scaling: Rules, notes: PictureNotes | None) -> Images | str:
    if not sighting.images:
        return f"a sighting (identity {sighting.identity}, camera {sighting.camera}) has no image"
    try:
        images = sighting.images.items()
        return {name: decode_prepared(path, prepare, rule_of(scaling, name), notes) for name, path in images}
    except PictureError as error:
        return str(error)


def _digest(kind: str, rows: Iterable[Any]) -> str:
    digest = hashlib.sha256(kind.encode())
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()
