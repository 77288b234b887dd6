"""What is extracted from: pictures in files, or boxes in a video. A part of either is read where it is embedded."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor

from resight.data.boxes import Box
from resight.data.image import decode
from resight.data.sightings import LABELS, MODALITIES, Sighting, SightingTable
from resight.data.video import Video
from resight.errors import PictureError

_AHEAD: Final = 64  # pictures that are decoded before they are asked for
Row = dict[str, Any]
"""What is known of a picture, by column."""


class Source(Protocol):
    """Rows that are embedded, each of one picture."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is known of each."""
        ...

    def __len__(self) -> int: ...

    def digest(self) -> str:
        """Says which rows they are; other ones have another."""
        ...

    def part(self, rows: slice) -> "Source":
        """Some of them, small enough to be sent to another process."""
        ...

    def read(self) -> Iterator[tuple[Row, Tensor | str]]:
        """Of each what is known of it, and uint8 [3, h, w], or why that cannot be decoded."""
        ...


@dataclass(frozen=True)
class PictureSource:
    """A row for each modality of each sighting."""

    rows: Sequence[tuple[Sighting, str]]

    @classmethod
    def of(cls, sightings: SightingTable) -> "PictureSource":
        """Those of a table."""
        return cls([(s, m) for s in sightings for m in MODALITIES if m in s.images])

    @property
    def columns(self) -> tuple[str, ...]:
        """File and labels."""
        return ("picture", "modality", *LABELS, "time")

    def __len__(self) -> int:
        return len(self.rows)

    def digest(self) -> str:
        """From paths and what side information is embedded with them."""
        return _digest((str(s.images[m]), m, s.camera, s.view) for s, m in self.rows)

    def part(self, rows: slice) -> "PictureSource":
        """Some of them."""
        return PictureSource(self.rows[rows])

    def read(self) -> Iterator[tuple[Row, Tensor | str]]:
        """By several threads, some at a time, in order."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self.rows), _AHEAD):
                some = self.rows[start : start + _AHEAD]
                decoded = pool.map(_decoded, [s.images[m] for s, m in some])
                for (sighting, modality), picture in zip(some, decoded, strict=True):
                    labels = {name: getattr(sighting, name) for name in (*LABELS, "time")}
                    yield {"picture": str(sighting.images[modality]), "modality": modality, **labels}, picture


@dataclass(frozen=True)
class VideoSource:
    """A row for each box in a video."""

    video: Path
    boxes: Sequence[Box]
    camera: str | None = None
    modality: str = "rgb"
    start: float = 0.0
    """When the video begins, in seconds on the clock of all cameras."""

    @property
    def columns(self) -> tuple[str, ...]:
        """File, labels, and the box."""
        labels = ("picture", "modality", "identity", "camera", "tracklet", "time")
        return (*labels, "frame", "left", "top", "right", "bottom", "confidence")

    def __len__(self) -> int:
        return len(self.boxes)

    def digest(self) -> str:
        """From the file's name and size, the boxes, and what they are labelled with."""
        about = (str(self.video), self.video.stat().st_size, self.camera, self.modality, self.start)
        return _digest([about, *self.boxes])

    def part(self, rows: slice) -> "VideoSource":
        """Some of them."""
        return replace(self, boxes=self.boxes[rows])

    def read(self) -> Iterator[tuple[Row, Tensor | str]]:
        """Frame by frame."""
        for box, seconds, picture in Video(self.video).crops(self.boxes):
            edges = {"left": box.left, "top": box.top, "right": box.right, "bottom": box.bottom}
            yield (
                {
                    "picture": str(self.video),
                    "modality": self.modality,
                    "identity": box.identity,
                    "camera": self.camera,
                    "tracklet": box.tracklet,
                    "time": self.start + seconds,
                    "frame": box.frame,
                    **edges,
                    "confidence": box.confidence,
                },
                picture,
            )


def _decoded(path: Path) -> Tensor | str:
    try:
        return decode(path)
    except PictureError as error:
        return str(error)


def _digest(rows: Any) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()
