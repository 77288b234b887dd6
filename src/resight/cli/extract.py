"""`resight extract`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.parsing import parse, print_json
from resight.errors import ConfigError

if TYPE_CHECKING:
    from resight.inference.extract.sources import Source


@dataclass(frozen=True)
class Extract:
    """Write the embeddings of many sightings into one Parquet file. Run again after an interruption, it resumes."""

    model: Positional[Path]
    """A model folder."""
    source: Positional[tuple[Path, ...]]
    """Picture files, folders, or tables (CSV, Parquet) with the columns of `own` data sets; or, with --boxes, a video."""
    out: Path
    """The file to write; must not exist."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    identity_from_folder: bool = False
    """Each picture is of the identity that its folder is named after."""
    boxes: Path | None = None
    """Boxes in the source, a video: MOTChallenge's text (.txt), or JSON (.json, .jsonl)."""
    min_confidence: float | None = None
    """Boxes with a lower confidence are left out."""
    camera: str | None = None
    """Of the video."""
    modality: str | None = None
    """Of the video: rgb (the default), nir or tir."""
    start: float = 0.0
    """When the video begins, in seconds on the clock that all cameras share."""
    compile: bool = False
    """Let torch.compile make the network faster, by a fifth in bf16 on a CPU; its first batches take up to a minute."""
    workers: int = 1
    """Processes on this machine that share the work."""
    ray: str | None = None
    """Address of a Ray cluster that shares the work instead, or `local`."""
    quiet: bool = False
    """Show no progress."""
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Embed, and print the counts."""
    options = parse(Extract, arguments, "resight extract")
    if options.workers < 1:
        raise ConfigError(f"--workers must be 1 or more, not {options.workers}")
    if options.ray is not None and options.workers > 1:
        raise ConfigError("--workers are processes of this machine and --ray is a cluster: give one of the two")
    from resight.inference.extract import executors
    from resight.inference.extract.extract import ExtractOptions, describe, extract
    from resight.progress import Progress

    source = _source(options)
    how = ExtractOptions(options.model.absolute(), compile=options.compile, **options.embedding.given())
    executor = executors.local(options.workers) if options.ray is None else executors.ray(options.ray)
    with Progress(options.quiet) as progress:
        progress.log(describe(how))
        progress.start("embedding", len(source))
        result = extract(how, source, options.out, executor, lambda count, _: progress.update(count))
        for reason in result.corrupt:
            progress.log(f"skipped: {reason}")
    new = result.rows - result.before
    if options.json:
        print_json(vars(result))
        return
    print(
        f"{options.out}: {result.rows} embeddings ({result.before} from an earlier run, {new} new, "
        f"{new / max(result.seconds, 1e-9):.0f}/s), {len(result.corrupt)} corrupt and skipped"
    )


def _source(options: Extract) -> Source:
    from resight.inference.extract.sources import SightingSource, VideoSource

    if options.boxes is None:
        from resight.data.readers.anything import read_images

        names = ("min_confidence", "camera", "modality", "start")
        given = [name for name in names if getattr(options, name) != getattr(Extract, name)]
        if given:
            raise ConfigError(
                f"--{given[0].replace('_', '-')} is for a video with --boxes; a table states it for images"
            )
        return SightingSource(read_images([path.absolute() for path in options.source], options.identity_from_folder))
    from resight.data.boxes import read_boxes
    from resight.data.video import Video

    if len(options.source) != 1 or options.identity_from_folder:
        raise ConfigError("--boxes are of one video, which is the only source then")
    video = Video(options.source[0].absolute())
    boxes = read_boxes(options.boxes, options.min_confidence)
    return VideoSource(video.path, boxes, options.camera, options.modality or "rgb", options.start)
