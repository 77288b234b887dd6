"""Embeddings of many pictures, in a file: in shards, by several processes, and again from where it was stopped."""

import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from resight.embedder import Embedder, fingerprint_of, load
from resight.errors import ConfigError, PictureError
from resight.loading.pictures import decode
from resight.sections import Precision
from resight.sightings import MODALITIES, Sighting, SightingTable
from resight.storage import make_folder, write_file

SHARD: Final = 1024
"""Pictures of a shard: what is lost, at most, when a process is stopped."""
_DAMAGED = b"damaged"


@dataclass(frozen=True)
class Way:
    """How a model embeds."""

    model: Path
    device: str = "auto"
    precision: Precision | None = None
    flip: bool = False


@dataclass(frozen=True)
class Extracted:
    """What became of some pictures."""

    rows: int
    """In the file."""
    before: int
    """Of them from an earlier run that was stopped."""
    damaged: list[str]
    """Why each of those that are left out could not be decoded."""
    seconds: float
    """That embedding took, now."""


def extract(
    way: Way,
    sightings: SightingTable,
    out: Path,
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard: int = SHARD,
) -> Extracted:
    """Writes a Parquet file: a row a picture, `picture`, `modality`, its labels, and `embedding`, float32 [D].

    Shards lie beside the file in `OUT.parts` until all are there; a run that is stopped, however it is, goes on from
    those that are whole. Rows are in the order of the sightings, whoever embedded them.

    Args:
        way: the model and how it embeds.
        sightings: whose pictures, one row for each of their modalities.
        out: the file; it must not exist.
        processes: that share the shards out; each has a share of the cores.
        progress: is told how many pictures are done, and how many there are.
        shard: pictures of a shard.

    Raises:
        ConfigError: the file exists, or was begun of other pictures or another model.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already and is not written over; use another name")
    rows = [(s, m) for s in sightings for m in MODALITIES if m in s.pictures]
    parts, plan = out.with_name(f"{out.name}.parts"), _plan(way, rows, shard)
    make_folder(parts)
    if not (parts / "plan.json").exists():
        write_file(parts / "plan.json", json.dumps(plan))
    elif json.loads((parts / "plan.json").read_text()) != plan:
        raise ConfigError(
            f"{parts} was begun of other pictures, another model or in another way; delete it, or use another name"
        )
    slices = {n: slice(n * shard, (n + 1) * shard) for n in range(-(-len(rows) // shard))}
    names = {n: parts / f"{n:07d}.parquet" for n in slices}
    left = [n for n in slices if not names[n].exists()]
    before = sum(pq.read_metadata(names[n]).num_rows for n in slices if n not in left)
    done, began = len(rows) - sum(len(rows[slices[n]]) for n in left), time.perf_counter()
    progress(done, len(rows))
    with _workers(processes) as each:
        for n in each([(way, rows[slices[n]], names[n], n) for n in left]):
            done += len(rows[slices[n]])
            progress(done, len(rows))
    seconds = time.perf_counter() - began
    tables = [pq.read_table(names[n]) for n in slices]
    damaged = [reason for t in tables for reason in json.loads((t.schema.metadata or {}).get(_DAMAGED, b"[]"))]
    whole = pa.concat_tables([t.replace_schema_metadata({"model": plan["fingerprint"]}) for t in tables])
    write_file(out, _parquet(whole))
    shutil.rmtree(parts)
    return Extracted(whole.num_rows, before, damaged, seconds)


def embed_rows(embedder: Embedder, rows: Sequence[tuple[Sighting, str]]) -> tuple[Any, list[str]]:
    """A table of some pictures with their embeddings, and why each of those that are left out is damaged: what one
    process, or one worker of a cluster, does at a time."""
    with ThreadPoolExecutor() as pool:
        read = list(pool.map(_decoded, [sighting.pictures[modality] for sighting, modality in rows]))
    held = [(s, m, x) for (s, m), x in zip(rows, read, strict=True) if isinstance(x, Tensor)]
    vectors = embedder.embed(
        [x for _, _, x in held],
        camera=[s.camera for s, _, _ in held],
        view=[s.view for s, _, _ in held],
        modality=[m for _, m, _ in held],
    )
    columns: dict[str, Any] = {
        "picture": pa.array([str(s.pictures[m]) for s, m, _ in held], pa.string()),
        "modality": pa.array([m for _, m, _ in held], pa.string()),
    }
    for name in ("identity", "camera", "view", "scene", "clothes", "tracklet"):
        columns[name] = pa.array([getattr(s, name) for s, _, _ in held], pa.string())
    columns["time"] = pa.array([s.time for s, _, _ in held], pa.float64())
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embedder.width)
    return pa.table(columns), [x for x in read if isinstance(x, str)]


def _decoded(path: Path) -> Tensor | str:
    try:
        return decode(path)
    except PictureError as error:
        return str(error)


def _shard(work: tuple[Way, list[tuple[Sighting, str]], Path, int]) -> int:
    way, rows, path, n = work
    table, damaged = embed_rows(_embedder(way), rows)
    write_file(path, _parquet(table.replace_schema_metadata({_DAMAGED: json.dumps(damaged).encode()})))
    return n


@cache
def _embedder(way: Way) -> Embedder:
    return load(way.model, way.device, way.precision, way.flip)


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)


@contextmanager
def _workers(processes: int) -> Generator[Callable[[list[Any]], Iterator[int]]]:
    if processes <= 1:
        yield lambda work: map(_shard, work)
        return
    threads = max(1, torch.get_num_threads() // processes)
    with multiprocessing.get_context("spawn").Pool(processes, _begin, (threads,)) as pool:
        yield lambda work: pool.imap_unordered(_shard, work)


def _plan(way: Way, rows: Sequence[tuple[Sighting, str]], shard: int) -> dict[str, Any]:
    digest = hashlib.sha256()
    for sighting, modality in rows:
        digest.update(repr((str(sighting.pictures[modality]), modality, sighting.camera, sighting.view)).encode())
    return {
        "fingerprint": fingerprint_of(way.model),
        "pictures": digest.hexdigest(),
        "flip": way.flip,
        "precision": way.precision,
        "shard": shard,
    }


def _parquet(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
