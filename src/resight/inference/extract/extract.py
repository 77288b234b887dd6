"""Extraction: shards of rows with their embeddings, each written whole, until one file has them all."""

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resight.config.sections import Precision, ResolvedPrecision
from resight.device import pick_device, resolve_compute
from resight.errors import ConfigError
from resight.files import make_folder, write_file
from resight.inference.embedder import Embedder, load
from resight.inference.extract.sources import Row, Source
from resight.models.checkpoint import fingerprint_of, read_card

SHARD: Final = 1024
"""Pictures of a shard: what is lost, at most, when a process is stopped."""
_AT_ONCE: Final = 128  # pictures that are held decoded, however large they are
_DAMAGED: Final = b"damaged"
_NUMBERS: Final = {"time": pa.float64(), "frame": pa.int64(), "confidence": pa.float64()} | {
    edge: pa.float64() for edge in ("left", "top", "right", "bottom")
}


@dataclass(frozen=True)
class ExtractOptions:
    """How a model embeds."""

    model: Path
    device: str = "auto"
    precision: Precision = "auto"
    flip: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Task:
    """A shard that is to be made."""

    number: int
    options: ExtractOptions
    part: Source


RunTasks = Callable[[list[Task]], Iterator[tuple[int, bytes]]]
"""Makes shards, in any order: the number of each, and what is written."""

Executor = AbstractContextManager[RunTasks]
"""Those who make them: `resight.inference.extract.executors`."""


@dataclass(frozen=True)
class Extracted:
    """What became of some pictures."""

    rows: int
    """In the file."""
    before: int
    """Of them from an earlier run that was stopped."""
    corrupt: list[str]
    """Why each of those that are left out could not be decoded."""
    seconds: float
    """That embedding took, now."""


def extract(
    options: ExtractOptions,
    source: Source,
    out: Path,
    executor: Executor,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard: int = SHARD,
) -> Extracted:
    """Writes a Parquet file: a row a picture, what is known of it, and `embedding`, float32 [D].

    Shards lie beside the file in `OUT.parts` until all are there; a run that is stopped, however it is, goes on from
    those that are whole. Rows are in the order of the source, whoever embedded them.

    Args:
        way: the model and how it embeds.
        source: what is embedded.
        out: the file; it must not exist.
        crew: who embeds it.
        progress: is told how many pictures are done, and how many there are.
        shard: pictures of a shard.

    Raises:
        ConfigError: the file exists, or was begun of other pictures or another model.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already and is not written over; use another name")
    parts, plan = out.with_name(f"{out.name}.parts"), _plan(options, source, shard)
    make_folder(parts)
    if (parts / "plan.json").exists():
        begun = json.loads((parts / "plan.json").read_text())
        resolved: ResolvedPrecision = begun.pop("resolved_precision", "fp32")
        if begun != plan:
            raise ConfigError(
                f"{parts} was begun of other pictures, another model or in another way; delete it, or use another name"
            )
    else:
        resolved = resolve_compute(pick_device(options.device), options.precision).precision
        write_file(parts / "plan.json", json.dumps({**plan, "resolved_precision": resolved}))
    options = replace(options, precision=resolved)
    works = [Task(n, options, source.part(slice(at, at + shard))) for n, at in enumerate(range(0, len(source), shard))]
    names = [parts / f"{work.number:07d}.parquet" for work in works]
    left = [work for work, name in zip(works, names, strict=True) if not name.exists()]
    before = sum(pq.read_metadata(name).num_rows for name in names if name.exists())
    done, began = len(source) - sum(len(work.part) for work in left), time.perf_counter()
    progress(done, len(source))
    with executor as make:
        for number, made in make(left):
            write_file(names[number], made)
            done += len(works[number].part)
            progress(done, len(source))
    seconds = time.perf_counter() - began
    tables = [pq.read_table(name) for name in names]
    corrupt = [reason for t in tables for reason in json.loads((t.schema.metadata or {}).get(_DAMAGED, b"[]"))]
    whole = pa.concat_tables([t.replace_schema_metadata({"model": plan["fingerprint"]}) for t in tables])
    write_file(out, _parquet(whole))
    shutil.rmtree(parts)
    return Extracted(whole.num_rows, before, corrupt, seconds)


def describe(options: ExtractOptions) -> str:
    """What is computed, and with what, in one line."""
    return resolve_compute(pick_device(options.device), options.precision).describe(
        read_card(options.model).preprocessing.size
    )


def run_task(work: Task) -> tuple[int, bytes]:
    """A shard as it is written: what one process, or one worker of a cluster, does at a time."""
    table, corrupt = embed_part(_embedder(work.options), work.part)
    return work.number, _parquet(table.replace_schema_metadata({_DAMAGED: json.dumps(corrupt).encode()}))


def embed_part(embedder: Embedder, part: Source) -> tuple[Any, list[str]]:
    """A table of some rows with their embeddings, and why each of those that are left out is damaged."""
    rows, corrupt, found = list[Row](), list[str](), [np.zeros((0, embedder.width), np.float32)]
    read = part.read()
    while some := list(islice(read, _AT_ONCE)):
        corrupt += [picture for _, picture in some if isinstance(picture, str)]
        held = [(row, picture) for row, picture in some if not isinstance(picture, str)]
        side_info = {name: [row.get(name) for row, _ in held] for name in ("camera", "view", "modality")}
        found.append(embedder.embed([picture for _, picture in held], **side_info))
        rows += [row for row, _ in held]
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in part.columns}
    vectors = np.concatenate(found)  # [rows, D]
    arrays: dict[str, Any] = {n: pa.array(held, _NUMBERS.get(n, pa.string())) for n, held in columns.items()}
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embedder.width)
    return pa.table(arrays), corrupt


@cache
def _embedder(options: ExtractOptions) -> Embedder:
    return load(options.model, options.device, options.precision, options.flip, compile=options.compile)


def _plan(options: ExtractOptions, source: Source, shard: int) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint_of(options.model),
        "pictures": source.digest(),
        "flip": options.flip,
        "precision": options.precision,
        "shard": shard,
    }


def _parquet(table: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
