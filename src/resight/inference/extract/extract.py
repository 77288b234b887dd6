"""Extraction: shards of rows with their embeddings, each written in one step, until one file holds all of them."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resight.data.picture_notes import PictureNotes
from resight.errors import ConfigError
from resight.inference.embedder import Embedder
from resight.inference.embeddings import write_tables
from resight.inference.extract.executors import RunTasks, executor_of
from resight.inference.extract.options import ExtractOptions
from resight.inference.extract.plan import ResolvedModel, resolve_model, store_plan
from resight.inference.extract.sources import Readable, Source, open_source
from resight.inference.extract.tasks import Task, read_shard, refuse, shard_summary
from resight.progress import Progress

__all__ = ["ExtractOptions", "Extracted", "extract"]


@dataclass(frozen=True)
class Extracted:
    """The result of an extraction."""

    rows: int
    """In the file."""
    before: int
    """Of them from an earlier run that was stopped."""
    corrupt: list[str]
    """Why each row that is left out could not be decoded."""
    retried: list[str]
    """A sentence for each worker that died, and whose shard was tried again."""
    seconds: float
    """Spent on embedding in this run."""
    notes: list[str] = field(default_factory=list[str])
    """A sentence for each kind of images of which something is left out or converted."""


def extract(
    model: Embedder | str | Path,
    source: Readable,
    out: str | Path,
    *,
    workers: int = 1,
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Write a file of embeddings (`resight.inference.embeddings`), a row for each sighting, in the order of the source.

    Shards are stored beside the file in `OUT.parts` until all are complete. A run that was stopped, however it was,
    resumes with them when it is started again. Only the owner may read the file and the shards.

        extracted = resight.extract("runs/mine/best", "my_images", "embeddings.parquet")
        print(extracted.rows, extracted.corrupt)

    Args:
        model: a model folder, or a loaded model.
        source: an image file, a folder, a table (CSV or Parquet), a list of these, a table of sightings in memory, or,
            with the option `boxes`, a video.
        out: the file, `.parquet`; it must not exist.
        workers: number of processes of this machine. One that dies is replaced, and its shard is tried again.
        options: how the model is loaded, how the source is read, and how the rows are stored; None for the defaults.
        progress: where progress is shown; None shows nothing.

    Raises:
        CheckpointError: the folder is no model folder.
        ConfigError: the file exists, options exclude each other, or the shards are of other images or settings.
        DatasetError: the source does not exist, or has no image.
        PictureError: an image is corrupt, and the options do not skip it.
        ResightError: three workers in succession died in one shard.
        StorageError: the file cannot be written.
    """
    options, progress = options or ExtractOptions(), progress or Progress(quiet=True)
    file = Path(out).absolute()
    options.check(workers)
    if file.exists():
        raise ConfigError(f"{file} exists already; use another name")
    rows = open_source(source, options, progress.log)
    parts = file.with_name(f"{file.name}.parts")
    resolved = resolve_model(model, options, workers > 1 or options.ray is not None, parts)
    resolved.check(rows)
    progress.log(resolved.description)
    store_plan(resolved, rows, options, parts)
    paths = [parts / f"{number:07d}.parquet" for number in range(-(-len(rows) // options.shard))]
    before = _count_stored(paths, options)
    retried, began = list[str](), time.perf_counter()
    with executor_of(workers, options.ray, lambda reason: _log_to(retried, progress, reason)) as run:
        _write_shards(run, resolved, rows, paths, options, progress)
    seconds = time.perf_counter() - began
    summaries, notes = [shard_summary(path) for path in paths], PictureNotes()
    corrupt = [reason for _, reasons, _ in summaries for reason in reasons]
    for _, _, counts in summaries:
        notes.merge(counts)
    for line in [*(f"skipped: {reason}" for reason in corrupt), *notes.lines()]:
        progress.log(line)
    count = write_tables(file, map(read_shard, paths), resolved.info())
    shutil.rmtree(parts)
    return Extracted(count, before, corrupt, retried, seconds, notes.lines())


def _count_stored(paths: list[Path], options: ExtractOptions) -> int:
    """Rows of the shards of an earlier run; what it skipped is an error now, if the options say so."""
    summaries = [shard_summary(path) for path in paths if path.exists()]
    if options.on_corrupt == "error":
        refuse([reason for _, corrupt, _ in summaries for reason in corrupt])
    return sum(count for count, _, _ in summaries)


def _write_shards(
    run: RunTasks, resolved: ResolvedModel, rows: Source, paths: list[Path], options: ExtractOptions, progress: Progress
) -> None:
    sizes = [min(options.shard, len(rows) - start) for start in range(0, len(rows), options.shard)]
    remaining = [number for number, path in enumerate(paths) if not path.exists()]
    count = len(rows) - sum(sizes[number] for number in remaining)

    def tasks() -> Iterator[Task]:
        for number in remaining:
            part = rows.part(slice(number * options.shard, (number + 1) * options.shard))
            yield Task(number, part, paths[number], resolved.model, resolved.embedding_id, options.on_corrupt)

    progress.start("embedding", len(rows), count)
    progress.update(count)
    for number in run(tasks()):
        count += sizes[number]
        progress.update(count)


def _log_to(reasons: list[str], progress: Progress, reason: str) -> None:
    reasons.append(reason)
    progress.log(reason)
