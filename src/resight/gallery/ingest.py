"""From pictures to records in a gallery, and back from a picture to answers."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from resight.data.image import as_tensor
from resight.data.sightings import MODALITIES, SightingTable
from resight.errors import DatasetError, PictureError
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record, Value
from resight.inference.embedder import Embedder

_AT_ONCE = 64  # records written together that are embedded first
_ROWS = 5000  # that are embedded already
_THUMBNAIL = (96, 192)  # width and height that it fits in


@dataclass
class IngestReport:
    """What became of pictures that were to be kept."""

    added: int = 0
    there: int = 0
    """Were in the gallery already."""
    corrupt: list[str] = field(default_factory=list[str])
    """Why each of those could not be."""


def keep(
    gallery: Gallery,
    embedder: Embedder,
    sightings: SightingTable,
    thumbnails: bool = False,
    metadata: Mapping[str, Value] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> IngestReport:
    """Embeds pictures and adds a record for each. A picture has the same id whenever it is added, by its path, so that
    a run that was stopped can be run again: what is there is left as it is.

    Args:
        gallery: where to.
        embedder: of the gallery's model.
        sightings: the pictures, with their labels; each modality's picture becomes a record of its own.
        thumbnails: keep a small picture in the record, for pictures that do not stay where they are.
        metadata: of all of them.
        progress: is told how many pictures are done.

    Returns:
        how many were added, were there already, and could not be decoded.

    Raises:
        GalleryError: the gallery is of another model.
        StorageError: it cannot be written; what was added before is kept.
    """
    gallery.require(embedder.fingerprint)
    kept, done = IngestReport(), 0
    rows = [(s, m, Path(s.images[m]).absolute()) for s in sightings for m in MODALITIES if m in s.images]
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        ids = {id_of(path): (sighting, modality, path) for sighting, modality, path in part}
        there = {record.id for record in gallery.engine.get(list(ids))}
        kept.there += len(there)
        held, images = list[Record](), list[np.ndarray]()
        for i, (sighting, modality, path) in ids.items():
            if i in there:
                continue
            try:
                picture = as_tensor(path).permute(1, 2, 0).numpy()  # [h, w, 3]
            except PictureError as error:
                kept.corrupt.append(str(error))
                continue
            images.append(picture)
            held.append(
                Record(
                    id=i,
                    vector=np.zeros(0),
                    identity=sighting.identity,
                    camera=sighting.camera,
                    modality=modality,
                    tracklet=sighting.tracklet,
                    time=sighting.time,
                    picture=str(path),
                    thumbnail=thumbnail(picture) if thumbnails else None,
                    metadata=metadata or {},
                )
            )
        if held:
            views = [ids[record.id][0].view for record in held]
            vectors = embedder.embed(images, [r.camera for r in held], views, [r.modality for r in held])
            gallery.add([replace(record, vector=vector) for record, vector in zip(held, vectors, strict=True)])
        kept.added += len(held)
        done += len(part)
        progress(done)
    return kept


def ingest_embeddings(
    gallery: Gallery,
    file: Path,
    metadata: Mapping[str, Value] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> IngestReport:
    """Adds a record for each row of a file that `extract` wrote; as `keep`, without embedding anything. What was seen
    in a video has its frame in the metadata.

    Raises:
        DatasetError: the file is missing or is no such file.
        GalleryError: its embeddings are of another model than the gallery's.
    """
    try:
        opened = pq.ParquetFile(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{file} cannot be read as embeddings: {error}") from error
    model = (opened.schema_arrow.metadata or {}).get(b"model")
    if model is None or "embedding" not in opened.schema_arrow.names:
        raise DatasetError(f"{file} holds no embeddings of resight extract")
    gallery.require(model.decode())
    kept, done = IngestReport(), 0
    for batch in opened.iter_batches(_ROWS):
        vectors = np.asarray(batch.column("embedding").flatten(), np.float32).reshape(batch.num_rows, -1)  # [n, D]
        rows = batch.drop_columns(["embedding"]).to_pylist()
        held = [_record(row, vector, metadata or {}) for row, vector in zip(rows, vectors, strict=True)]
        there = {record.id for record in gallery.engine.get([record.id for record in held])}
        gallery.add([record for record in held if record.id not in there])
        kept.there += len(there)
        kept.added += len(held) - len(there)
        done += len(held)
        progress(done)
    return kept


def _record(row: Mapping[str, Any], vector: np.ndarray, metadata: Mapping[str, Value]) -> Record:
    path = Path(row["picture"]).absolute()
    seen = {} if row.get("frame") is None else {"frame": row["frame"]}
    box = [row[name] for name in ("frame", "left", "top", "right", "bottom")] if seen else []
    labels = {name: row.get(name) for name in ("identity", "camera", "modality", "tracklet", "time")}
    return Record(id=id_of(path, *box), vector=vector, picture=str(path), metadata={**metadata, **seen}, **labels)


def id_of(path: Path, *box: float) -> str:
    """A record's id: 24 digits of the SHA-256 of its picture's absolute path; in a video of frame and edges too."""
    return hashlib.sha256("|".join(map(str, (path.absolute(), *box))).encode()).hexdigest()[:24]


def thumbnail(picture: np.ndarray) -> bytes:
    """A small JPEG of uint8 [h, w, 3]."""
    image = Image.fromarray(picture)
    image.thumbnail(_THUMBNAIL)
    held = BytesIO()
    image.save(held, "JPEG", quality=80)
    return held.getvalue()
