"""`resight evaluate`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.output import ProgressOutput, metavar, note, plain, row_table, score_table, show
from resight.cli.parsing import parse
from resight.config.evaluation import Evaluation
from resight.config.folder import FolderOptions
from resight.errors import ConfigError
from resight.progress import counted, percent

if TYPE_CHECKING:
    from resight.evaluation.matrix import ModalityMatrix
    from resight.evaluation.result import CameraPair, OpenSetFigures, OpenSetRow, Result


@dataclass(frozen=True)
class Evaluate(ProgressOutput):
    """Evaluate a model on a data set, or a file of embeddings: CMC, mAP, mINP."""

    source: Positional[Annotated[Path, metavar("SOURCE")]]
    """A model folder, such as runs/NAME/best, or a file of embeddings from --save-embeddings or resight extract."""
    settings: OmitArgPrefixes[Evaluation] = field(default_factory=Evaluation)
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    dataset: Annotated[str | None, metavar("NAME")] = None
    """A data set of the catalog (resight data list); not for a file of embeddings."""
    root: Annotated[Path | None, metavar("FOLDER_OR_TABLE")] = None
    """The folder or table of the data set."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    on_corrupt: Literal["error", "skip"] = "error"
    """What to do with images that cannot be decoded."""
    cameras: bool = False
    """Also evaluate each pair of cameras: queries of one, gallery images of the other."""
    open_set: bool = False
    """Also evaluate open-set recognition: TAR at FAR, equal error rate, DIR at FPIR."""
    modality_matrix: bool = False
    """Also evaluate every subset of modalities as query against every one as gallery, for models of several modalities:
    what is lost when a camera fails, and how well one modality finds another."""
    heat_map: Annotated[Path | None, metavar("FILE.png")] = None
    """With --modality-matrix: draw the matrix to this PNG file."""
    figures: Annotated[Path | None, metavar("FILE.json")] = None
    """Write what --json prints to this JSON file, for resight compare."""
    rank_strip: Annotated[Path | None, metavar("FILE.png")] = None
    """Write a picture of queries and their nearest gallery images to this PNG file."""
    save_embeddings: Annotated[Path | None, metavar("FILE.parquet")] = None
    """Write the embeddings to this new Parquet file, which resight evaluate can read."""
    half: bool = False
    """Save embeddings in float16: half the size; mAP changes by about 0.0001."""


def run(arguments: list[str]) -> None:
    """Evaluate, print a description and tables of figures, and write the requested files."""
    options = parse(Evaluate, arguments, "resight evaluate")
    from resight.evaluation.result import camera_pairs, figures, open_set_figures
    from resight.evaluation.words import in_words
    from resight.files import write_json
    from resight.inference.embeddings import write_embeddings

    if options.half and options.save_embeddings is None:
        raise ConfigError("--half is for --save-embeddings FILE, which is missing")
    if options.save_embeddings is not None and options.save_embeddings.exists():
        raise ConfigError(f"{options.save_embeddings} exists already; choose another name for --save-embeddings")
    if options.heat_map is not None and not options.modality_matrix:
        raise ConfigError("--heat-map draws the matrix of --modality-matrix, which is missing")
    name, result, matrix = _evaluate(options)
    pairs = camera_pairs(result) if options.cameras else None
    open_set = open_set_figures(result) if options.open_set else None
    document = figures(result, name)
    document |= {} if pairs is None else {"camera_pairs": pairs}
    document |= {} if open_set is None else {"open_set": open_set}
    document |= {} if matrix is None else {"modality_matrix": matrix, "missing_modalities": matrix.missing}
    items = _items(name, result, document["interval_95"], pairs, open_set)
    show(options, document, *in_words(result), *items, *([] if matrix is None else _matrix_items(matrix)))
    if matrix is not None and options.heat_map is not None:
        from resight.report.heat_map import modality_heat_map

        modality_heat_map(matrix, options.heat_map, f"{name}: mAP in %")
        note(options, f"heat map: {options.heat_map}")
    if options.figures is not None:
        write_json(options.figures, plain(document))
        note(options, f"figures: {options.figures}")
    if options.rank_strip is not None:
        from resight.report.strips import rank_strip, save_picture

        save_picture(rank_strip(result), options.rank_strip)
        note(options, f"rank strip: {options.rank_strip}")
    if options.save_embeddings is not None:
        write_embeddings(options.save_embeddings, result.query, result.gallery, options.half)
        note(options, f"embeddings: {options.save_embeddings}")


def _evaluate(options: Evaluate) -> tuple[str, Result, ModalityMatrix | None]:
    from resight.evaluation.evaluate import evaluate, evaluate_embeddings
    from resight.inference.embeddings import is_embeddings
    from resight.progress import Progress

    if is_embeddings(options.source):
        _require_no_data_set(options)
        if options.modality_matrix:
            raise ConfigError(
                f"--modality-matrix embeds images, and {options.source} has embeddings alone: give a model"
            )
        return *evaluate_embeddings(options.source, options.settings, options.embedding.device), None
    from resight.data.catalog import read_dataset
    from resight.evaluation.as_trained import load_as_trained
    from resight.evaluation.checks import checked_for_evaluation, size_line
    from resight.evaluation.matrix import evaluate_matrix, matrix_size

    if not any((options.source / name).exists() for name in ("config.json", "export.json")):
        if not options.source.exists():
            raise ConfigError(f"{options.source} does not exist: give a model folder or a file of embeddings")
        raise ConfigError(f"there is no model folder or file of embeddings at {options.source}")
    if options.dataset is None or options.root is None:
        raise ConfigError(f"to evaluate {options.source}, give --dataset NAME and --root FOLDER_OR_TABLE")
    with Progress(options.quiet) as progress:
        progress.start(f"reading {options.dataset}", None)
        split = read_dataset(options.dataset, options.root, options.folder)
        embedder = load_as_trained(options.source, progress, **options.embedding.given())
        split = checked_for_evaluation(split, options.settings, options.on_corrupt, progress, embedder.scaling)
        progress.log(embedder.description)
        progress.log(size_line(split))
        for kind, names in embedder.unknown_labels(split.query).items():
            treated = "their mean is used" if embedder.settings.unknown == "mean" else "no side information is used"
            progress.log(f"not in training: {counted(len(names), kind)}, such as {names[0]}; {treated}")
        progress.start(f"embedding {split.name}", split.tested)
        result = evaluate(embedder, split, options.settings, progress.update)
        if not options.modality_matrix:
            return split.name, result, None
        progress.start("embedding subsets of modalities", matrix_size(embedder, split))
        return split.name, result, evaluate_matrix(embedder, split, options.settings, progress.update)


def _require_no_data_set(options: Evaluate) -> None:
    """Refuse options of a data set for a file of embeddings, which has its own."""
    if options.dataset is not None or options.root is not None:
        raise ConfigError(f"{options.source} has its own data set: leave --dataset and --root out")
    if options.folder.changed_options:
        raise ConfigError(f"{options.source} has its own labels: leave {options.folder.changed_options[0]} out")


def _items(
    name: str, result: Result, intervals: Any, pairs: list[CameraPair] | None, open_set: OpenSetFigures | None
) -> list[str | Table]:
    words = (f"{figure} {100 * low:.1f} to {percent(high)}" for figure, (low, high) in intervals.items())
    title = f"{name}, protocol {result.protocol.name}"
    items: list[str | Table] = [
        score_table(title, result.summary(), result.spread() if len(result.trials) > 1 else None),
        "95 % intervals over query identities: " + ", ".join(words),
    ]
    if pairs is not None:
        rows = [
            {
                "query camera": pair.query_camera,
                "gallery camera": pair.gallery_camera,
                "queries": f"{pair.queries:,}",
                "mAP": percent(pair.mAP),
                "R1": percent(pair.R1),
            }
            for pair in pairs
        ]
        items.append(row_table("camera pairs, lowest mAP first", rows))
    if open_set is not None:
        items.append(open_set.words)
        rows = [
            {"figure": _open_set_name(row), "rate": percent(row.rate), "threshold": f"{row.threshold:.4f}"}
            for row in open_set.rows
        ]
        items.append(row_table("open set", rows))
    return items


def _matrix_items(matrix: ModalityMatrix) -> list[str | Table]:
    def cell(value: object) -> str:
        return "none" if math.isnan(float(str(value))) else percent(float(str(value)))

    rows = [{name: value if name == "query" else cell(value) for name, value in row.items()} for row in matrix.rows()]
    items: list[str | Table] = [row_table("mAP of each query subset (rows) in each gallery subset (columns)", rows)]
    if len(matrix.subsets) > 1:
        mean_ap, rank1 = matrix.missing
        items.append(
            f"mean over the patterns of missing modalities, the same in query and gallery: mAP {percent(mean_ap)}, "
            f"R1 {percent(rank1)}"
        )
    if matrix.weights:
        singles = matrix.modalities
        weights = [
            {"query": name} | {m: percent(w) for m, w in zip(singles, values, strict=True)}
            for name, values in matrix.weights.items()
        ]
        items.append(row_table("mean share of each modality in the query's embedding", weights))
    costs = [
        {
            "sighting": name,
            "parameters": f"{cost.parameters:,}",
            "MFLOPs": f"{cost.flops / 1e6:,.1f}",
            "images/s": "none" if math.isnan(cost.images_per_second) else f"{cost.images_per_second:,.0f}",
        }
        for name, cost in matrix.cost.items()
    ]
    return [*items, row_table("cost of embedding a sighting (a multiply-add counts as two operations)", costs)]


def _open_set_name(row: OpenSetRow) -> str:
    """`TAR at FAR 0.1 %` for the figure `TAR@FAR=0.001`."""
    figure, _, fixed = row.figure.partition("@")
    if not fixed:
        return figure
    rate, _, value = fixed.partition("=")
    return f"{figure} at {rate} {100 * float(value):g} %"
