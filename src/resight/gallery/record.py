"""What a gallery stores: records, what it knows of its model, and filters of records."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from resight.config.sections import Embedding, Section
from resight.errors import GalleryError

FORMAT: Final = 2
Value = str | int | float | bool
"""Of free metadata."""

LABELS: Final = ("identity", "camera", "modality", "tracklet")


@dataclass(frozen=True)
class Record:
    """One sighting at rest."""

    id: str
    """Its own; adding another record of the same id takes the first one's place."""
    vector: np.ndarray
    """float32 [D] of unit length."""
    identity: str | None = None
    """None: unknown."""
    camera: str | None = None
    modality: str | None = None
    """Of several, their names joined by `+`."""
    tracklet: str | None = None
    time: float | None = None
    """Seconds, on a clock that all cameras share."""
    images: Mapping[str, str] = field(default_factory=dict[str, str])
    """Paths of the sighting's images, by modality."""
    thumbnail: bytes | None = None
    """A small JPEG, where images do not stay where they are."""
    metadata: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Anything else, by name."""


class GalleryInfo(Section):
    """What a gallery knows of its model."""

    format: int = FORMAT
    width: int
    """E, numbers of an embedding."""
    embedding_id: str
    """Of the embedder; only its embeddings can be stored and searched."""
    embedding: Embedding = Embedding()
    """How the model embeds."""
    model: str | None = None
    """The model's folder; None where it has none."""

    def require(self, embedding_id: str, says: str) -> None:
        """Make sure that embeddings of an id belong into the gallery.

        Args:
            embedding_id: of the embeddings.
            says: how the error begins, such as `the file holds`.

        Raises:
            GalleryError: they are others.
        """
        if embedding_id != self.embedding_id:
            raise GalleryError(
                f"{says} embeddings {embedding_id}, and the gallery has {self.embedding_id}; embeddings of another model, "
                "or made with other settings (flip, fusion, unknown side information), cannot be compared"
            )


def read_gallery_info(text: str, where: str) -> GalleryInfo:
    """Parse what `GalleryInfo.model_dump_json` wrote; `where` names the gallery in errors.

    Raises:
        GalleryError: it is corrupt, or of another format.
    """
    try:
        stated = json.loads(text)
        if isinstance(stated, dict) and isinstance(stated.get("format"), int) and stated["format"] != FORMAT:  # pyright: ignore[reportUnknownMemberType]
            raise GalleryError(
                f"{where} has format {stated['format']}, and this version of resight reads format {FORMAT}: create the "
                "gallery again and add its images"
            )
        return GalleryInfo.model_validate(stated)
    except ValueError as error:  # pydantic's are among them
        raise GalleryError(f"{where} is corrupt: it does not state what the gallery is of") from error


def images_to_text(images: Mapping[str, str]) -> str:
    """Image paths by modality as JSON, as engines store them."""
    return json.dumps(dict(images))


def images_from_text(text: str | None) -> dict[str, str]:
    """`images_to_text`, reversed."""
    return {} if not text else json.loads(text)


@dataclass(frozen=True)
class Filter:
    """A choice of records: those for which everything that is given holds."""

    identity: tuple[str, ...] = ()
    """Any of these; all where it is empty. So with the next three."""
    camera: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    tracklet: tuple[str, ...] = ()
    after: float | None = None
    """At this time or later; a record without a time is left out."""
    before: float | None = None
    """Earlier than this time."""
    metadata: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Fields that have exactly these values."""

    def holds(self, record: Record) -> bool:
        """Whether the filter holds for a record: the definition that every engine follows."""
        for name in LABELS:
            if getattr(self, name) and getattr(record, name) not in getattr(self, name):
                return False
        if (self.after is not None or self.before is not None) and record.time is None:
            return False
        if self.after is not None and record.time is not None and record.time < self.after:
            return False
        if self.before is not None and record.time is not None and record.time >= self.before:
            return False
        return all(
            name in record.metadata and type(record.metadata[name]) is type(value) and record.metadata[name] == value
            for name, value in self.metadata.items()
        )


@dataclass(frozen=True)
class Near:
    """A hit of a search."""

    id: str
    similarity: float
    """Inner product with the query."""
