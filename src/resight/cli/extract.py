"""`resight extract`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.output import ProgressOutput, metavar, on_interrupt, show
from resight.cli.parsing import parse
from resight.config.folder import FolderOptions


@dataclass(frozen=True)
class Extract(ProgressOutput):
    """Write embeddings of many sightings to one Parquet file. The same command resumes an interrupted extraction."""

    model: Positional[Annotated[Path, metavar("MODEL")]]
    """A model folder."""
    source: Positional[Annotated[tuple[Path, ...], metavar("SOURCE")]]
    """Image files, folders, or tables (CSV, Parquet) with the columns of `own` data sets; with --boxes, a video."""
    out: Annotated[Path, metavar("FILE.parquet")]
    """File to write; must not exist."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    identity_from_folder: bool = False
    """Take the name of an image's folder as its identity."""
    boxes: Annotated[Path | None, metavar("FILE")] = None
    """Boxes in the video: MOTChallenge's text (.txt, .csv), or JSON (.json, .jsonl)."""
    min_confidence: Annotated[float | None, metavar("NUMBER")] = None
    """Lowest confidence of a box to embed."""
    modality: Annotated[str | None, metavar("NAME")] = None
    """Modality of the video: rgb (the default), nir or tir."""
    start: float = 0.0
    """Start time of the video, in seconds on a clock that all cameras share."""
    compile: bool = False
    """Use torch.compile: about 20 % faster in bf16 on a CPU; the first batches take up to a minute."""
    workers: int = 1
    """Number of processes on this machine. One that dies is replaced."""
    on_corrupt: Literal["error", "skip"] = "skip"
    """What to do with images that cannot be decoded."""
    ray: Annotated[str | None, metavar("ADDRESS")] = None
    """Address of a Ray cluster to extract on, or `local`."""


def run(arguments: list[str]) -> None:
    """Extract embeddings, and print the counts."""
    options = parse(Extract, arguments, "resight extract")
    from resight.inference.extract.extract import ExtractOptions, extract
    from resight.progress import Progress, counted

    names = {field.name for field in fields(ExtractOptions)} & {field.name for field in fields(Extract)}
    settings = {name: getattr(options, name) for name in names} | options.embedding.given()
    settings |= options.folder.model_dump()
    with on_interrupt(lambda: _continuation(options.out)), Progress(options.quiet) as progress:
        result = extract(
            options.model, options.source, options.out, workers=options.workers, options=ExtractOptions(**settings),
            progress=progress,
        )  # fmt: skip
    new = result.rows - result.before
    show(
        options,
        {"file": options.out, **vars(result)},
        f"{options.out}: {counted(result.rows, 'embedding')} ({result.before:,} from an earlier run, {new:,} new, "
        f"{new / max(result.seconds, 1e-9):.0f}/s), {len(result.corrupt):,} corrupt and skipped",
    )


def _continuation(out: Path) -> str:
    """What to do after an interruption."""
    if out.with_name(f"{out.name}.parts").exists():
        return "run the same command again: it continues with the parts that are complete"
    return "nothing was written; run the same command again"
