"""Tasks of an extraction: each embeds some rows of the source, and writes them as a shard."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from resight.config.scaling import ScalingRule
from resight.config.sections import Fusion, Precision, UnknownSideInfo
from resight.data.image import resize
from resight.data.modalities import schema_within
from resight.data.picture_notes import NoteCounts, PictureNotes
from resight.data.sightings import Sighting
from resight.errors import CheckpointError, PictureError, StorageError
from resight.files import replacing
from resight.inference.embedder import Embedder
from resight.inference.embeddings import embeddings_table
from resight.inference.extract.sources import Images, Row, Source
from resight.inference.load import load

_CORRUPT: Final = b"corrupt"
_NOTES: Final = b"notes"
_CHUNK_BYTES: Final = 512 << 20  # of prepared images that are embedded by one call
_TYPES: Final = {
    "frame": pa.int64(),
    **{name: pa.float64() for name in ("left", "top", "right", "bottom", "confidence")},
}


@dataclass(frozen=True)
class ModelFolder:
    """A model folder and the arguments of `resight.load`, for processes that load the model themselves."""

    folder: Path
    device: str
    precision: Precision
    flip: bool
    fusion: Fusion
    unknown: UnknownSideInfo
    batch_size: int | None
    compile: bool = False
    scaling: tuple[tuple[str, ScalingRule], ...] = ()


@dataclass(frozen=True)
class Task:
    """A shard to write."""

    number: int
    part: Source
    path: Path
    """The file of the shard."""
    model: Embedder | ModelFolder
    embedding_id: str
    """Of the embeddings; a model folder with another one was changed since the extraction began."""
    on_corrupt: Literal["error", "skip"] = "skip"


def write_shard(task: Task) -> int:
    """Embed the rows of a task, write the shard, and return its number."""
    store_shard(task.path, make_shard(task))
    return task.number


def store_shard(path: Path, content: bytes) -> None:
    """Write a shard in one step.

    Raises:
        StorageError: it cannot be written.
    """
    with replacing(path, private=True) as file:
        file.write(content)


def make_shard(task: Task) -> bytes:
    """Embed the rows of a task, and return the file of the shard.

    Raises:
        CheckpointError: the model folder was changed since the extraction began.
        PictureError: an image cannot be decoded, and such images are not skipped.
    """
    embedder = task.model if isinstance(task.model, Embedder) else _load(task.model)
    if embedder.embedding_id != task.embedding_id:
        raise CheckpointError(
            f"the model {embedder.folder} was changed during the extraction: its embeddings are now "
            f"{embedder.embedding_id}, not {task.embedding_id}; extract to another file"
        )
    table, corrupt, notes = embed_part(embedder, task.part)
    if task.on_corrupt == "error":
        refuse(corrupt)
    sink = io.BytesIO()
    metadata = {_CORRUPT: json.dumps(corrupt).encode(), _NOTES: json.dumps(notes).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return sink.getvalue()


def refuse(corrupt: list[str]) -> None:
    """Raise a PictureError that names the first of the corrupt images, if there is one."""
    if corrupt:
        more = f" (and {len(corrupt) - 1} more)" if len(corrupt) > 1 else ""
        raise PictureError(f"{corrupt[0]}{more}; replace it, or leave such images out with --on-corrupt skip")


def read_shard(path: Path) -> Any:
    """Return the rows of a shard as an Arrow table.

    Raises:
        StorageError: it cannot be read.
    """
    return _read(path, pq.read_table).replace_schema_metadata(None)


def shard_summary(path: Path) -> tuple[int, list[str], NoteCounts]:
    """Return the number of rows of a shard, the reasons why others are left out, and what was noted of the images,
    without reading the rows.

    Raises:
        StorageError: it cannot be read.
    """
    metadata = _read(path, pq.read_metadata)
    stated = metadata.metadata or {}
    return metadata.num_rows, json.loads(stated.get(_CORRUPT, b"[]")), json.loads(stated.get(_NOTES, b"{}"))


def _read(path: Path, read: Any) -> Any:
    try:
        return read(path)
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"the shard {path} cannot be read: delete it, and run the same command again") from error


def embed_part(embedder: Embedder, part: Source) -> tuple[Any, list[str], NoteCounts]:
    """Return a table of some rows with their embeddings, the reasons why rows are left out, and counts of what else is
    left out or converted."""
    notes = PictureNotes()
    rows, corrupt, vectors = list[Row](), list[str](), [np.zeros((0, embedder.width), np.float32)]
    images_of_card = embedder.card.preprocessing

    def prepare(image: Tensor) -> Tensor:  # what the embedder does first; a second time, it changes nothing
        return resize(image, images_of_card.size, images_of_card.test_interpolation)

    read, size = part.read(prepare, embedder.scaling, notes), _chunk_size(embedder, part.images_per_row)
    while chunk := list(islice(read, size)):
        corrupt += [images for _, images in chunk if isinstance(images, str)]
        decoded = [(row, images) for row, images in chunk if not isinstance(images, str)]
        vectors.append(embedder.embed([_sighting(row, images) for row, images in decoded]))
        rows += [row for row, _ in decoded]
    schema = schema_within(part.columns)
    names = schema.names
    sightings = pa.table({name: [row[name] for row in rows] for name in names}, schema=schema)
    others = {n: pa.array([row[n] for row in rows], _TYPES[n]) for n in part.columns if n not in names}
    return embeddings_table(np.concatenate(vectors), sightings, others), corrupt, notes.counts()


def _chunk_size(embedder: Embedder, images_per_row: int) -> int:
    """Sightings of one call: whole batches, of four batches at most, as many as the bytes allow."""
    height, width = embedder.card.preprocessing.size
    batch = max(1, embedder.chunk_size(images_per_row) // 4)
    fitting = _CHUNK_BYTES // (3 * height * width * images_per_row * batch)
    return batch * min(4, max(1, fitting))


def _sighting(row: Row, images: Images) -> Sighting:
    decoded: Mapping[str, Any] = images
    return Sighting(decoded, camera=row["camera"], view=row["view"])


@cache
def _load(model: ModelFolder) -> Embedder:
    return load(
        model.folder, model.device, model.precision, model.flip, model.fusion, model.unknown, model.batch_size,
        model.compile, dict(model.scaling),
    )  # fmt: skip
