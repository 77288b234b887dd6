"""The values that a gallery stores and returns: records, the description of its model, filters and hits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from resight.config.section import Section, is_utf8
from resight.config.sections import Embedding
from resight.errors import GalleryError

FORMAT: Final = 2
Value = str | int | float | bool
"""The value of a metadata field."""

MAX_LENGTH_ERROR: Final = 1e-2
"""How far the length of a vector may be from 1."""
LABELS: Final = ("identity", "camera", "modality", "tracklet")


@dataclass(frozen=True)
class Record:
    """One stored sighting: its embedding, labels and metadata."""

    id: str
    """Unique in the gallery; adding a record whose id exists replaces that record."""
    vector: np.ndarray = field(repr=False)
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
    thumbnail: bytes | None = field(default=None, repr=False)
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


def require_valid(records: Sequence[Record], width: int) -> None:
    """Check that records can be stored and given back unchanged.

    Args:
        records: the records.
        width: numbers that a vector of the gallery has.

    Raises:
        GalleryError: a vector has another width, is not finite or not of unit length; an id is empty; an id or label is
            no text, a time no finite number, or a field of metadata neither text nor a finite number nor a truth value.
    """
    for record in records:
        fault = _fault(record, width)
        if fault:
            raise GalleryError(f"record {record.id!r:.60} cannot be stored: {fault}")


def _fault(record: Record, width: int) -> str:
    if not _is_unit_vector(record.vector, width):
        return f"its vector must be {width} finite numbers of unit length, as the gallery's model gives them"
    if not is_text(record.id) or not record.id:
        return "its id must be a text that is not empty"
    for name in LABELS:
        if not (getattr(record, name) is None or is_text(getattr(record, name))):
            return f"its {name} must be a text or None, not {getattr(record, name)!r:.60}"
    if not (record.time is None or (is_number(record.time) and float(record.time) == record.time)):
        return f"its time must be a finite number of seconds or None, not {record.time!r:.60}"
    if not (isinstance(record.metadata, Mapping) and isinstance(record.images, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance]
        return "its metadata must be values by name, and its images paths by modality"
    for name, value in record.metadata.items():
        valid = is_text(value) or isinstance(value, bool) or is_number(value)
        if not is_text(name) or not valid:
            return (
                f"the field {name!r:.60} of its metadata must be a text, a finite number or a truth value, not "
                f"{value!r:.60}"
            )
    if not all(is_text(text) for pair in record.images.items() for text in pair):
        return "its images must be paths by modality, both texts"
    if not (record.thumbnail is None or isinstance(record.thumbnail, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance]
        return "its thumbnail must be bytes or None"
    return ""


def _is_unit_vector(values: Any, width: int) -> bool:
    try:
        vector = np.asarray(values)
    except ValueError:  # rows of different lengths
        return False
    if vector.shape != (width,) or vector.dtype.kind not in "fiu":
        return False
    with np.errstate(over="ignore"):
        return bool(np.isfinite(vector).all() and abs(np.linalg.norm(vector) - 1) <= MAX_LENGTH_ERROR)


def is_text(value: object) -> bool:
    """Return whether a value is a text that every engine can store: UTF-8, without NUL."""
    return isinstance(value, str) and "\0" not in value and is_utf8(value)


def is_number(value: object) -> bool:
    """Return whether a value is a finite number that every engine can store."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def images_to_text(images: Mapping[str, str]) -> str:
    """Write image paths by modality as JSON, the form in which engines store them."""
    return json.dumps(dict(images)) if images else "{}"


def images_from_text(text: str | None) -> dict[str, str]:
    """Read what `images_to_text` wrote; an empty text or None gives no images."""
    return {} if not text or text == "{}" else json.loads(text)


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
