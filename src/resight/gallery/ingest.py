"""Ingest sightings, or a file of embeddings, into a gallery."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor

from resight.config.scaling import rule_of
from resight.data.image import resize, thumbnail
from resight.data.modalities import modality_of, ordered
from resight.data.picture_notes import PictureNotes
from resight.data.sightings import Sighting, SightingTable
from resight.data.threads import preparing_threads
from resight.device import available_cores
from resight.errors import GalleryError, PictureError
from resight.gallery.engines.contract import Engine
from resight.gallery.record import Record, Value, require_valid
from resight.inference.decoding import decode_prepared
from resight.inference.embeddings import read_batches, read_info

if TYPE_CHECKING:  # importing the model takes seconds
    from resight.inference.embedder import Embedder

_ROWS: Final = 5000  # read from a file of embeddings at a time


@dataclass
class IngestReport:
    """The result of an ingestion."""

    added: int = 0
    already_present: int = 0
    corrupt: list[str] = field(default_factory=list[str])
    """A reason for each sighting that was skipped because it could not be decoded."""
    notes: list[str] = field(default_factory=list[str])
    """A sentence for each kind of images of which something is left out or converted."""


def ingest(
    engine: Engine,
    embedder: Embedder,
    sightings: SightingTable,
    thumbnails: bool = False,
    metadata: Mapping[str, Value] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> IngestReport:
    """Embed sightings, and add one record for each.

    The id of a record is computed from the paths of its images. A sighting whose record exists is skipped, so that an
    interrupted ingestion can be run again.

    Args:
        engine: the engine of the gallery.
        embedder: of the gallery's model.
        sightings: with their labels.
        thumbnails: store a small JPEG in each record, for images whose files may be moved or deleted.
        metadata: stored in every record.
        progress: called with the number of sightings processed so far.

    Raises:
        GalleryError: the gallery is of another model.
        StorageError: the gallery cannot be written; records that were added before stay.
    """
    engine.info.require(embedder.embedding_id, "the model gives")
    report, notes = IngestReport(), PictureNotes()
    count = 0
    images_per_sighting = max((len(sighting.images) for sighting in sightings), default=1)
    size = embedder.chunk_size(images_per_sighting)
    with preparing_threads(available_cores()) as pool:
        for start in range(0, len(sightings), size):
            chunk = list(sightings.take(list(range(start, min(start + size, len(sightings))))))
            by_id = {sighting_id(sighting): sighting for sighting in chunk}
            present = {record.id for record in engine.get(list(by_id))}
            new = {record_id: sighting for record_id, sighting in by_id.items() if record_id not in present}
            report.already_present += len(present)
            decode = partial(_decode, embedder=embedder, thumbnails=thumbnails, notes=notes)
            decoded = dict(zip(new, pool.map(decode, new.values()), strict=True))
            report.corrupt += [item for item in decoded.values() if isinstance(item, str)]
            usable = {record_id: item for record_id, item in decoded.items() if not isinstance(item, str)}
            decoded_sightings = [Sighting(x.images, camera=new[i].camera, view=new[i].view) for i, x in usable.items()]
            vectors = embedder.embed(decoded_sightings)  # float32 [n, E]
            records = [
                _record_of(record_id, new[record_id], vector, usable[record_id].thumbnail, metadata or {})
                for record_id, vector in zip(usable, vectors, strict=True)
            ]
            require_valid(records, engine.info.width)
            engine.add(records)
            report.added += len(records)
            count += len(chunk)
            progress(count)
    report.notes += notes.lines()
    return report


def ingest_embeddings(
    engine: Engine,
    file: Path,
    metadata: Mapping[str, Value] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> IngestReport:
    """Add one record for each row of a file of embeddings; records that exist are skipped, as in `ingest`.

    A row from a video has the number of its frame in the metadata.

    Args:
        engine: the engine of the gallery.
        file: a file of embeddings, such as `resight extract` writes.
        metadata: stored in every record.
        progress: called with the number of rows processed so far.

    Raises:
        DatasetError: the file does not exist, or is no file of embeddings.
        GalleryError: the embeddings are of another model than the gallery's.
    """
    stated = read_info(file).embedding_id
    if stated is None:
        raise GalleryError(f"{file} does not state the embedding_id of its model, so its embeddings cannot be compared")
    engine.info.require(stated, "the file holds")
    report = IngestReport()
    count = 0
    for vectors, table in read_batches(file, _ROWS):
        records = [
            _record_of_row(row, np.asarray(vector, np.float32), metadata or {})
            for row, vector in zip(table.to_pylist(), vectors, strict=True)
        ]
        require_valid(records, engine.info.width)
        present = {record.id for record in engine.get([record.id for record in records])}
        engine.add([record for record in records if record.id not in present])
        report.already_present += len(present)
        report.added += len(records) - len(present)
        count += len(records)
        progress(count)
    return report


def sighting_id(sighting: Sighting) -> str:
    """Return the id of a sighting's record: 24 hexadecimal digits of a SHA-256 of its images' absolute paths."""
    paths = [Path(sighting.images[m]).absolute() for m in ordered(sighting.images)]
    return _id_of(*paths)


def _id_of(*parts: Path | float) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class _Decoded:
    """The images of a sighting, of the size that the model takes."""

    images: dict[str, Any]
    """uint8 [3, H, W], by modality."""
    thumbnail: bytes | None


def _decode(sighting: Sighting, embedder: Embedder, thumbnails: bool, notes: PictureNotes) -> _Decoded | str:
    """The images of a sighting, or why they cannot be decoded. Few are in memory in their full size at once."""
    preprocessing, scaling = embedder.card.preprocessing, embedder.scaling
    small = list[bytes]()

    def prepare(image: Tensor) -> Tensor:
        if thumbnails and not small:
            small.append(thumbnail(image.permute(1, 2, 0).numpy()))
        return resize(image, preprocessing.size, preprocessing.test_interpolation)  # a second time, it changes nothing

    names = ordered(sighting.images)
    try:
        images = {m: decode_prepared(sighting.images[m], prepare, rule_of(scaling, m), notes) for m in names}
    except PictureError as error:
        return str(error)
    return _Decoded(images, small[0] if small else None)


def _record_of(
    record_id: str,
    sighting: Sighting,
    vector: np.ndarray,
    small: bytes | None,
    metadata: Mapping[str, Value],
) -> Record:
    names = ordered(sighting.images)
    return Record(
        id=record_id,
        vector=vector,
        identity=sighting.identity,
        camera=sighting.camera,
        modality="+".join(names),
        tracklet=sighting.tracklet,
        time=sighting.time,
        images={modality: str(Path(sighting.images[modality]).absolute()) for modality in names},
        thumbnail=small,
        metadata=metadata,
    )


def _record_of_row(row: Mapping[str, Any], vector: np.ndarray, metadata: Mapping[str, Value]) -> Record:
    files = {name: path for column, path in row.items() if path and (name := modality_of(column)) is not None}
    images = {name: Path(files[name]).absolute() for name in ordered(files)}
    in_video = row.get("frame") is not None
    box = [row[name] for name in ("frame", "left", "top", "right", "bottom")] if in_video else []
    frame: dict[str, Value] = {"frame": row["frame"]} if in_video else {}
    return Record(
        id=_id_of(*images.values(), *box),
        vector=vector,
        modality="+".join(images),
        images={modality: str(path) for modality, path in images.items()},
        metadata={**metadata, **frame},
        **{name: row.get(name) for name in ("identity", "camera", "tracklet", "time")},
    )
