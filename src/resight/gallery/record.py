"""The values that a gallery stores and returns: records, the description of its model, filters and hits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from resight.config.sections import Embedding, Section
from resight.errors import GalleryError

FORMAT: Final = 2
Value = str | int | float | bool
"""The value of a metadata field."""

LABELS: Final = ("identity", "camera", "modality", "tracklet")


@dataclass(frozen=True)
class Record:
    """One stored sighting: its embedding, labels and metadata."""

    id: str
    """Unique in the gallery; adding a record whose id exists replaces that record."""
    vector: np.ndarray
    """float32 [D] of unit length."""
    identity: str | None = None
    """None where unknown."""
    camera: str | None = None
    modality: str | None = None
    """Several modalities are joined by `+`, such as `rgb+nir`."""
    tracklet: str | None = None
    time: float | None = None
    """Seconds, on a clock that all cameras share."""
    images: Mapping[str, str] = field(default_factory=dict[str, str])
    """Paths of the sighting's images, by modality."""
    thumbnail: bytes | None = None
    """A small JPEG, for images whose files may be moved or deleted."""
    metadata: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Further fields, by name."""


class GalleryInfo(Section):
    """The model whose embeddings a gallery stores."""

    format: int = FORMAT
    width: int
    """E, the numbers in one embedding."""
    embedding_id: str
    """Hash of weights, preprocessing and embedding settings; only embeddings with this id can be stored or searched."""
    embedding: Embedding = Embedding()
    """The settings the model embeds with."""
    model: str | None = None
    """The model folder; None where the model was not loaded from one."""

    def require(self, embedding_id: str, says: str) -> None:
        """Check that embeddings come from the gallery's model and settings.

        Args:
            embedding_id: the id of the embeddings.
            says: the beginning of the error text, such as `the file holds`.

        Raises:
            GalleryError: the id differs from the gallery's.
        """
        if embedding_id != self.embedding_id:
            raise GalleryError(
                f"{says} embeddings {embedding_id}, and the gallery has {self.embedding_id}; embeddings of another "
                "model, or made with other settings (flip, fusion, unknown side information), cannot be compared"
            )


def read_gallery_info(text: str, where: str) -> GalleryInfo:
    """Parse what `GalleryInfo.model_dump_json` wrote; `where` names the gallery in errors.

    Raises:
        GalleryError: the text is corrupt, or has another format number.
    """
    try:
        stated = json.loads(text)
        if isinstance(stated, dict) and isinstance(stated.get("format"), int) and stated["format"] != FORMAT:  # pyright: ignore[reportUnknownMemberType]
            raise GalleryError(
                f"{where} has format {stated['format']}, and this version of resight reads format {FORMAT}: create the "
                "gallery again and add its images"
            )
        return GalleryInfo.model_validate(stated)
    except ValueError as error:  # includes pydantic's ValidationError
        raise GalleryError(f"{where} is corrupt: it does not describe the gallery's model") from error


@dataclass(frozen=True)
class Assignment:
    """One entry of the log of assignments, which `Gallery.undo` takes back."""

    at: str
    """When it was made, in UTC (ISO 8601)."""
    identity: str | None
    """The new identity; None for unknown."""
    before: Mapping[str, str | None]
    """The identity that each record had before, by record id."""


def require_vectors(records: Sequence[Record], width: int) -> None:
    """Check that the vectors of records are finite, of unit length and of a width.

    Raises:
        GalleryError: one is not.
    """
    for record in records:
        vector = np.asarray(record.vector)
        if vector.shape != (width,) or not np.isfinite(vector).all() or abs(np.linalg.norm(vector) - 1) > 1e-2:
            raise GalleryError(
                f"the vector of record {record.id!r} must be {width} finite numbers of unit length, as the gallery's "
                "model gives them"
            )


def images_to_text(images: Mapping[str, str]) -> str:
    """Write image paths by modality as JSON, the form in which engines store them."""
    return json.dumps(dict(images))


def images_from_text(text: str | None) -> dict[str, str]:
    """Read what `images_to_text` wrote; an empty text or None gives no images."""
    return {} if not text else json.loads(text)


@dataclass(frozen=True)
class Filter:
    """Conditions on records: a record matches if it meets all conditions that are set."""

    identity: tuple[str, ...] = ()
    """Any of these identities; empty for all. `camera`, `modality` and `tracklet` work in the same way."""
    camera: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    tracklet: tuple[str, ...] = ()
    after: float | None = None
    """At this time or later, in seconds; a record without a time does not match."""
    before: float | None = None
    """Earlier than this time, in seconds; a record without a time does not match."""
    metadata: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Fields that have exactly these values, of the same types."""

    def holds(self, record: Record) -> bool:
        """Return whether a record matches: the definition that every engine follows."""
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
class Hit:
    """The id and similarity of one record that a search of an engine returned."""

    id: str
    similarity: float
    """Inner product with the query."""
