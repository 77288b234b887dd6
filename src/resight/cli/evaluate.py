"""`resight evaluate`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.parsing import parse, print_json, print_rows, print_scores
from resight.config.folder import FolderOptions
from resight.config.sections import Evaluation
from resight.errors import ConfigError

if TYPE_CHECKING:
    from resight.evaluation.result import CameraPair, OpenSetFigures, Result


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a model on a data set, or a file of embeddings: CMC, mAP, mINP."""

    source: Positional[Path]
    """A model folder, such as runs/NAME/best, or a file of embeddings from --save-embeddings or resight extract."""
    settings: OmitArgPrefixes[Evaluation] = field(default_factory=Evaluation)
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    dataset: str | None = None
    """A data set of the catalog (resight data list); not for a file of embeddings."""
    root: Path | None = None
    """Its folder or table."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do with images that cannot be decoded."""
    cameras: bool = False
    """Also evaluate each pair of cameras: queries of one, gallery images of the other."""
    open_set: bool = False
    """Also evaluate open-set recognition: TAR at FAR, equal error rate, DIR at FPIR."""
    json: Path | None = None
    """Write all figures, including those of each query, to this JSON file; `-` prints them instead of the tables."""
    rank_strip: Path | None = None
    """Write a picture of queries and their nearest gallery images to this PNG file."""
    save_embeddings: Path | None = None
    """Write the embeddings to this new Parquet file, which resight evaluate can read."""
    half: bool = False
    """Save embeddings in float16: half the size; mAP changes by about 0.0001."""
    quiet: bool = False
    """Show no progress."""


def run(arguments: list[str]) -> None:
    """Evaluate, print a description and tables of figures, and write the requested files."""
    options = parse(Evaluate, arguments, "resight evaluate")
    from resight.evaluation.result import camera_pairs, figures, in_words, open_set_figures
    from resight.files import write_json
    from resight.inference.embeddings import write_embeddings

    if options.half and options.save_embeddings is None:
        raise ConfigError("--half is for --save-embeddings FILE, which is missing")
    if options.save_embeddings is not None and options.save_embeddings.exists():
        raise ConfigError(f"{options.save_embeddings} exists already; choose another name for --save-embeddings")
    name, result = _evaluate(options)
    values = figures(result, name)
    pairs = camera_pairs(result) if options.cameras else None
    open_set = open_set_figures(result) if options.open_set else None
    document = {**values, "settings": options.settings.model_dump()}
    document |= {} if pairs is None else {"camera_pairs": [vars(pair) for pair in pairs]}
    document |= {} if open_set is None else {"open_set": asdict(open_set)}
    if options.json == Path("-"):
        print_json(document)
    else:
        print("\n".join(in_words(result)))
        _print(name, result, values["interval_95"], pairs, open_set)
    if options.json is not None and options.json != Path("-"):
        write_json(options.json, document)
    notes = sys.stderr if options.json == Path("-") else sys.stdout  # standard output is one JSON document then
    if options.rank_strip is not None:
        from resight.report.strips import rank_strip, save_picture

        save_picture(rank_strip(result), options.rank_strip)
        print(f"rank strip: {options.rank_strip}", file=notes)
    if options.save_embeddings is not None:
        write_embeddings(options.save_embeddings, result.query, result.gallery, options.half)
        print(f"embeddings: {options.save_embeddings}", file=notes)


def _evaluate(options: Evaluate) -> tuple[str, Result]:
    from resight.evaluation.evaluate import evaluate, evaluate_embeddings
    from resight.inference.embeddings import is_embeddings
    from resight.progress import Progress

    if is_embeddings(options.source):
        if options.dataset is not None or options.root is not None:
            raise ConfigError(f"{options.source} has its own data set: leave --dataset and --root out")
        if options.folder.changed_options:
            raise ConfigError(f"{options.source} has its own labels: leave {options.folder.changed_options[0]} out")
        return evaluate_embeddings(options.source, options.settings, options.embedding.device)
    from resight.data.catalog import read_dataset
    from resight.evaluation.as_trained import load_as_trained
    from resight.evaluation.checks import checked_for_evaluation

    if not (options.source / "config.json").exists():
        raise ConfigError(f"there is no model folder or file of embeddings at {options.source}")
    if options.dataset is None or options.root is None:
        raise ConfigError(f"to evaluate {options.source}, give --dataset NAME and --root FOLDER_OR_TABLE")
    with Progress(options.quiet) as progress:
        split = read_dataset(options.dataset, options.root, options.folder)
        split = checked_for_evaluation(split, options.settings, options.on_corrupt, progress)
        embedder = load_as_trained(options.source, progress, **options.embedding.given())
        progress.log(embedder.description)
        for kind, names in embedder.unknown_labels(split.query).items():
            progress.log(f"{len(names)} {kind}s were not in training, such as {names[0]}: {embedder.settings.unknown}")
        progress.start(f"embedding {split.name}", split.tested)
        return split.name, evaluate(embedder, split, options.settings, progress.update)


def _print(
    name: str, result: Result, intervals: dict[str, list[float]], pairs: list[CameraPair] | None,
    open_set: OpenSetFigures | None,
) -> None:  # fmt: skip
    print_scores(name, result.summary(), result.spread() if len(result.trials) > 1 else None)
    words = (f"{figure} {100 * low:.1f} to {100 * high:.1f}" for figure, (low, high) in intervals.items())
    print("95 % intervals over query identities: " + ", ".join(words))
    if pairs is not None:
        rows = [vars(pair) | {"mAP": f"{100 * pair.mAP:.1f}", "R1": f"{100 * pair.R1:.1f}"} for pair in pairs]
        print_rows("camera pairs, worst first, in %", rows)
    if open_set is not None:
        print(open_set.words)
        rows = [{"figure": r.figure, "%": f"{100 * r.rate:.1f}", "threshold": r.threshold} for r in open_set.rows]
        print_rows("open set", rows)
