"""Sources of an extraction: sightings in files, or boxes in a video. A part of either is read where it is embedded."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor

from resight.data.boxes import Box
from resight.data.image import decode
from resight.data.sightings import SCHEMA, Sighting, SightingTable
from resight.data.video import Video
from resight.device import available_cores
from resight.errors import PictureError

_AHEAD: Final = 64  # sightings that are decoded in advance
EDGES: Final = ("left", "top", "right", "bottom")
"""Of a box, in pixels."""
Row = dict[str, Any]
"""What is known of a sighting, by column."""
Images = Mapping[str, Tensor]
"""uint8 [3, h, w] by modality."""


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

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """A hash of every row and column."""
        ...

    def part(self, rows: slice) -> "Source":
        """Some of the rows, small enough to be sent to another process."""
        ...

    def read(self) -> Iterator[tuple[Row, Images | str]]:
        """Each row with its decoded images, or the reason why one cannot be decoded."""
        ...


@dataclass(frozen=True)
class SightingSource:
    """A row for each sighting of a table."""

    sightings: SightingTable

    @property
    def columns(self) -> tuple[str, ...]:
        """Files by modality, labels and time."""
        return tuple(SCHEMA.names)

    @property
    def images_per_row(self) -> int:
        """The most modalities that a sighting has."""
        return max((len(sighting.images) for sighting in self.sightings), default=1)

    def __len__(self) -> int:
        return len(self.sightings)

    def digest(self) -> str:
        """A hash of every row and column."""
        return _digest(tuple(row.values()) for row in self.sightings.arrow.to_pylist())

    def part(self, rows: slice) -> "SightingSource":
        """Some of the rows."""
        return SightingSource(self.sightings.take(list(range(*rows.indices(len(self))))))

    def read(self) -> Iterator[tuple[Row, Images | str]]:
        """In order, decoded by several threads, some at a time."""
        rows = self.sightings.arrow.to_pylist()
        sightings = list(self.sightings)
        with ThreadPoolExecutor(available_cores()) as pool:
            for start in range(0, len(rows), _AHEAD):
                chunk = slice(start, start + _AHEAD)
                yield from zip(rows[chunk], pool.map(_decoded, sightings[chunk]), strict=True)


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
        return (*SCHEMA.names, "frame", *EDGES, "confidence")

    def __len__(self) -> int:
        return len(self.boxes)

    def digest(self) -> str:
        """A hash of the file's name and size, the boxes, and their labels."""
        video = (str(self.video), self.video.stat().st_size, self.camera, self.modality, self.start)
        return _digest([video, *self.boxes])

    def part(self, rows: slice) -> "VideoSource":
        """Some of the rows."""
        return replace(self, boxes=self.boxes[rows])

    def read(self) -> Iterator[tuple[Row, Images | str]]:
        """Frame by frame."""
        for box, seconds, image in Video(self.video).crops(self.boxes):
            row: Row = dict.fromkeys(self.columns)
            row |= {self.modality: str(self.video), "identity": box.identity, "camera": self.camera}
            row |= {"tracklet": box.tracklet, "time": self.start + seconds, "frame": box.frame}
            row |= {edge: getattr(box, edge) for edge in (*EDGES, "confidence")}
            yield row, image if isinstance(image, str) else {self.modality: image}


def _decoded(sighting: Sighting) -> Images | str:
    try:
        return {modality: decode(path) for modality, path in sighting.images.items()}
    except PictureError as error:
        return str(error)


def _digest(rows: Any) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()
