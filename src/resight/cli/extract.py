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
    """Write embeddings of many sightings to one Parquet file. The same command resumes an interrupted extraction."""

    model: Positional[Path]
    """A model folder."""
    source: Positional[tuple[Path, ...]]
    """Image files, folders, or tables (CSV, Parquet) with the columns of `own` data sets; with --boxes, a video."""
    out: Path
    """File to write; must not exist."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    identity_from_folder: bool = False
    """Take the name of an image's folder as its identity."""
    boxes: Path | None = None
    """Boxes in the video: MOTChallenge's text (.txt, .csv), or JSON (.json, .jsonl)."""
    min_confidence: float | None = None
    """Lowest confidence of a box to embed."""
    camera: str | None = None
    """Camera of the video."""
    modality: str | None = None
    """Modality of the video: rgb (the default), nir or tir."""
    start: float = 0.0
    """Start time of the video, in seconds on a clock that all cameras share."""
    compile: bool = False
    """Use torch.compile: about 20 % faster in bf16 on a CPU; the first batches take up to a minute."""
    workers: int = 1
    """Number of processes on this machine."""
    ray: str | None = None
    """Address of a Ray cluster to extract on, or `local`."""
    quiet: bool = False
    """Show no progress."""
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Extract embeddings, and print the counts."""
    options = parse(Extract, arguments, "resight extract")
    if options.workers < 1:
        raise ConfigError(f"--workers must be 1 or more, not {options.workers}")
    if options.ray is not None and options.workers > 1:
        raise ConfigError("--workers and --ray exclude each other: leave one out")
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
        video_options = [name for name in names if getattr(options, name) != getattr(Extract, name)]
        if video_options:
            raise ConfigError(
                f"--{video_options[0].replace('_', '-')} is for a video with --boxes; a table states it for images"
            )
        return SightingSource(read_images([path.absolute() for path in options.source], options.identity_from_folder))
    from resight.data.boxes import read_boxes
    from resight.data.video import Video

    if len(options.source) != 1 or options.identity_from_folder:
        raise ConfigError("--boxes needs one video as the only source, without --identity-from-folder")
    video = Video(options.source[0].absolute())
    boxes = read_boxes(options.boxes, options.min_confidence)
    return VideoSource(video.path, boxes, options.camera, options.modality or "rgb", options.start)
