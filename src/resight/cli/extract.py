"""`resight extract`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from resight.cli.parsing import parse
from resight.config.sections import Precision
from resight.errors import ConfigError

if TYPE_CHECKING:
    from resight.inference.extract.sources import Source


@dataclass(frozen=True)
class Extract:
    """Write the embeddings of many pictures into one Parquet file. Run again after it was stopped, it goes on."""

    model: Positional[Path]
    """A model's folder."""
    source: Positional[tuple[Path, ...]]
    """Picture files, folders, or tables (CSV, Parquet) with any of the columns that `own` data sets have; or, with
    --boxes, a video."""
    out: Path
    """The file to write; must not exist."""
    identity_from_folder: bool = False
    """Each picture is of the one that its folder is named after."""
    boxes: Path | None = None
    """Boxes in the source, a video: MOTChallenge's text (.txt), or JSON (.json, .jsonl)."""
    min_confidence: float | None = None
    """Of boxes; those with less are left out."""
    camera: str | None = None
    """That the video is from."""
    modality: str | None = None
    """That the video is in: rgb (which it is without this), nir or tir."""
    start: float = 0.0
    """When the video begins, in seconds on the clock that all cameras share."""
    flip: bool = False
    """Mean of the picture's and its mirror image's embedding."""
    precision: Precision = "auto"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""
    compile: bool = False
    """Have torch.compile make it faster, by a fifth in bf16 on a CPU; its first batches take up to a minute each."""
    processes: int = 1
    """That share the pictures out, on this machine."""
    ray: str | None = None
    """Address of a Ray cluster whose workers share the pictures out instead, or `local`."""
    device: str = "auto"
    """Where to embed."""


def run(arguments: list[str]) -> None:
    """Embeds, and says what became of the pictures."""
    options = parse(Extract, arguments, "resight extract")
    if options.processes < 1:
        raise ConfigError(f"--processes must be 1 or more, not {options.processes}")
    if options.ray is not None and options.processes > 1:
        raise ConfigError("--processes are of this machine and --ray is a cluster: give one of the two")
    from resight.inference.extract import executors as crews
    from resight.inference.extract.extract import ExtractOptions, describe, extract
    from resight.progress import Progress

    source = _source(options)
    how = ExtractOptions(options.model.absolute(), options.device, options.precision, options.flip, options.compile)
    executor = crews.local(options.processes) if options.ray is None else crews.ray(options.ray)
    with Progress() as progress:
        progress.log(describe(how))
        progress.start("embedding", len(source))
        found = extract(how, source, options.out, executor, lambda done, _: progress.update(done))
        for reason in found.corrupt:
            progress.log(f"left out: {reason}")
    now = found.rows - found.before
    print(
        f"{options.out}: {found.rows} embeddings ({found.before} from an earlier run, {now} now, "
        f"{now / max(found.seconds, 1e-9):.0f} pictures/s), {len(found.corrupt)} pictures left out"
    )


def _source(options: Extract) -> "Source":
    from resight.inference.extract.sources import PictureSource, VideoSource

    if options.boxes is None:
        from resight.data.readers.anything import read_anything

        only = ("least_confidence", "camera", "modality", "start")
        given = [name for name in only if getattr(options, name) != getattr(Extract, name)]
        if given:
            raise ConfigError(
                f"--{given[0].replace('_', '-')} is of a video and its --boxes; pictures have it in a table"
            )
        return PictureSource.of(
            read_anything([path.absolute() for path in options.source], options.identity_from_folder)
        )
    from resight.data.boxes import read_boxes
    from resight.data.video import Video

    if len(options.source) != 1 or options.identity_from_folder:
        raise ConfigError("--boxes are of one video, which is the only source then")
    video = Video(options.source[0].absolute())
    boxes = read_boxes(options.boxes, options.min_confidence)
    return VideoSource(video.path, boxes, options.camera, options.modality or "rgb", options.start)
