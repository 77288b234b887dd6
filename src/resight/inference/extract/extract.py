"""Extraction: shards of rows with their embeddings, each written in one step, until one file holds all of them."""

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resight.config.sections import Embedding, Fusion, Precision, ResolvedPrecision, UnknownSideInfo
from resight.data.sightings import SCHEMA, Sighting
from resight.device import pick_device, resolve_compute
from resight.errors import ConfigError
from resight.files import make_folder, write_file
from resight.inference.embedder import Embedder
from resight.inference.embeddings import EmbeddingsInfo, embeddings_table, parquet
from resight.inference.extract.sources import Images, Row, Source
from resight.inference.load import load
from resight.models.checkpoint import ModelCard, embedding_id, read_card

SHARD: Final = 1024
"""Rows of a shard: what is lost, at most, when a process is stopped."""
_CORRUPT: Final = b"corrupt"
_TYPES: Final = {
    "frame": pa.int64(),
    **{name: pa.float64() for name in ("left", "top", "right", "bottom", "confidence")},
}


@dataclass(frozen=True)
class ExtractOptions:
    """A model and how it embeds; what is None is as the model's card says."""

    model: Path
    device: str = "auto"
    precision: Precision | None = None
    flip: bool | None = None
    fusion: Fusion | None = None
    unknown: UnknownSideInfo | None = None
    batch_size: int | None = None
    compile: bool = False

    def settings(self, card: ModelCard) -> Embedding:
        """The card's section `embedding` with what is given here."""
        names = ("precision", "flip", "fusion", "unknown", "batch_size")
        overrides = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return card.embedding.model_copy(update=overrides)


@dataclass(frozen=True)
class Task:
    """A shard to make."""

    number: int
    options: ExtractOptions
    part: Source


RunTasks = Callable[[list[Task]], Iterator[tuple[int, bytes]]]
"""Makes shards, in any order: the number of each, and the bytes of its file."""
Executor = AbstractContextManager[RunTasks]
"""Runs tasks: see `resight.inference.extract.executors`."""


@dataclass(frozen=True)
class Extracted:
    """The result of an extraction."""

    rows: int
    """In the file."""
    before: int
    """Of them from an earlier run that was stopped."""
    corrupt: list[str]
    """Why each row that is left out could not be decoded."""
    seconds: float
    """Spent on embedding in this run."""


def extract(
    options: ExtractOptions,
    source: Source,
    out: Path,
    executor: Executor,
    progress: Callable[[int, int], None] = lambda count, total: None,
    shard: int = SHARD,
) -> Extracted:
    """Write a file of embeddings (`resight.inference.embeddings`), a row for each sighting.

    Shards are stored beside the file in `OUT.parts` until all are there; a run that was stopped, however it was,
    resumes with those that are complete. Rows are in the order of the source.

    Args:
        options: the model and how it embeds.
        source: of the sightings.
        out: the file; it must not exist.
        executor: runs the tasks.
        progress: is called with the number of rows that are embedded, and the number of all.
        shard: rows of a shard.

    Raises:
        ConfigError: the file exists, or was started with other images, another model or other settings.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already and is not written over; use another name")
    parts = out.with_name(f"{out.name}.parts")
    info, options = _plan(options, source, parts, shard)
    tasks = [Task(n, options, source.part(slice(at, at + shard))) for n, at in enumerate(range(0, len(source), shard))]
    names = [parts / f"{task.number:07d}.parquet" for task in tasks]
    remaining = [task for task, name in zip(tasks, names, strict=True) if not name.exists()]
    before = sum(pq.read_metadata(name).num_rows for name in names if name.exists())
    count = len(source) - sum(len(task.part) for task in remaining)
    began = time.perf_counter()
    progress(count, len(source))
    with executor as run:
        for number, data in run(remaining):
            write_file(names[number], data)
            count += len(tasks[number].part)
            progress(count, len(source))
    seconds = time.perf_counter() - began
    tables = [pq.read_table(name) for name in names]
    corrupt = [reason for t in tables for reason in json.loads((t.schema.metadata or {}).get(_CORRUPT, b"[]"))]
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables])
    write_file(out, parquet(table, info))
    shutil.rmtree(parts)
    return Extracted(table.num_rows, before, corrupt, seconds)


def describe(options: ExtractOptions) -> str:
    """Device, kind of processor, precision, image size and batch size, in one line."""
    card = read_card(options.model)
    settings = options.settings(card)
    compute = resolve_compute(pick_device(options.device), settings.precision, settings.batch_size)
    return compute.describe(card.preprocessing.size)


def run_task(task: Task) -> tuple[int, bytes]:
    """Make a shard: what one process, or one worker of a cluster, does at a time."""
    table, corrupt = embed_part(_embedder(task.options), task.part)
    sink = io.BytesIO()
    metadata = {_CORRUPT: json.dumps(corrupt).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return task.number, sink.getvalue()


def embed_part(embedder: Embedder, part: Source) -> tuple[Any, list[str]]:
    """A table of some rows with their embeddings, and the reasons why rows are left out."""
    rows, corrupt, vectors = list[Row](), list[str](), [np.zeros((0, embedder.width), np.float32)]
    read, size = part.read(), embedder.chunk_size(part.images_per_row)
    while chunk := list(islice(read, size)):
        corrupt += [images for _, images in chunk if isinstance(images, str)]
        decoded = [(row, images) for row, images in chunk if not isinstance(images, str)]
        vectors.append(embedder.embed([_sighting(row, images) for row, images in decoded]))
        rows += [row for row, _ in decoded]
    names = list(SCHEMA.names)
    sightings = pa.table({name: [row[name] for row in rows] for name in names}, schema=SCHEMA)
    others = {n: pa.array([row[n] for row in rows], _TYPES[n]) for n in part.columns if n not in names}
    return embeddings_table(np.concatenate(vectors), sightings, others), corrupt


def _sighting(row: Row, images: Images) -> Sighting:
    decoded: Mapping[str, Any] = images
    return Sighting(decoded, camera=row["camera"], view=row["view"])


@cache
def _embedder(options: ExtractOptions) -> Embedder:
    return load(
        options.model, options.device, options.precision, options.flip, options.fusion, options.unknown,
        options.batch_size, options.compile,
    )  # fmt: skip


def _plan(options: ExtractOptions, source: Source, parts: Path, shard: int) -> tuple[EmbeddingsInfo, ExtractOptions]:
    """What the file will state, and the options with the precision resolved: as before, where a run is resumed."""
    card = read_card(options.model)
    settings = options.settings(card)
    fusion = "mean" if settings.fusion == "mean" else "concat"
    info = EmbeddingsInfo(
        embedding_id=embedding_id(card.weights_sha256 or "", card, settings),
        fusion=fusion,
        modalities=card.vocabulary.modalities,
    )
    plan = {
        "info": info.model_dump(mode="json"),
        "source": source.digest(),
        "precision": settings.precision,
        "shard": shard,
    }
    make_folder(parts)
    file = parts / "plan.json"
    if not file.exists():
        resolved = resolve_compute(pick_device(options.device), settings.precision).precision
        write_file(file, json.dumps({**plan, "resolved_precision": resolved}))
        return info, replace(options, precision=resolved)
    stored = json.loads(file.read_text())
    again: ResolvedPrecision = stored.pop("resolved_precision")
    if stored != plan:
        raise ConfigError(
            f"{parts} was started with other images, another model or other settings; delete it, or use another name"
        )
    return info, replace(options, precision=again)
