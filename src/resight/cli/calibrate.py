"""`resight calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.output import ProgressOutput, metavar, note, row_table, show
from resight.cli.parsing import parse
from resight.config.folder import FolderOptions


@dataclass(frozen=True)
class Calibrate(ProgressOutput):
    """Calibrate a model on a data set: fit the probability of the same identity to the similarity, choose the threshold
    for unknown queries, and store both in the model folder. The reported calibration error is
    that of a curve fitted on half of the identities, on the other half; the stored curve is fitted on all."""

    model: Positional[Annotated[Path, metavar("MODEL")]]
    """A model folder."""
    dataset: Annotated[str, metavar("NAME")]
    """A data set of the catalog; preferably validation images of your own, not a test set that you report on."""
    root: Annotated[Path, metavar("FOLDER_OR_TABLE")]
    """The folder or table of the data set."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    false_match_rate: float = 1e-3
    """Fraction of different-identity pairs that reach the threshold, from 0 to 1."""
    plot: Annotated[Path | None, metavar("FILE.png")] = None
    """Write the reliability curve to this PNG file."""


def run(arguments: list[str]) -> None:
    """Calibrate, and print the threshold, the rates of both kinds of pairs, and the calibration error."""
    options = parse(Calibrate, arguments, "resight calibrate")
    from resight.data.catalog import read_dataset
    from resight.evaluation.calibrate import calibrate
    from resight.evaluation.checks import size_line
    from resight.progress import Progress, counted, percent
    from resight.report.curves import reliability_curve

    embedder = options.embedding.load(options.model)
    with Progress(options.quiet) as progress:
        split = read_dataset(options.dataset, options.root, options.folder)
        progress.log(embedder.description)
        progress.log(size_line(split))
        progress.start(f"embedding {split.name}", split.tested)
        result = calibrate(embedder, split, options.false_match_rate, progress=progress.update)
    calibration = result.calibration
    errors = {name: error for name, (_, error) in result.checked.items()}
    rows = [{"curve": name, "calibration error, unseen identities": percent(error)} for name, error in errors.items()]
    of_subsets = {pair: error for pair, (_, error) in result.checked_subsets.items()}
    checked = [{"query": a, "gallery": b, "error": error} for (a, b), error in of_subsets.items()]
    subsets = [{"query": a, "gallery": b, "calibration error": percent(e)} for (a, b), e in of_subsets.items()]
    between = [row_table("isotonic curves between subsets of modalities, unseen identities", subsets)]
    document = {**calibration.model_dump(), "calibration_error": errors, "file": result.file}
    if subsets:
        document["calibration_error_subsets"] = checked
    show(
        options,
        document,
        f"{counted(calibration.same, 'same-identity pair')} and "
        f"{counted(calibration.different, 'different-identity pair')}; threshold {calibration.threshold:.4f}: "
        f"{100 * calibration.false_match_rate:g} % of different-identity pairs pass, "
        f"{percent(calibration.true_match_rate)} of same-identity pairs",
        row_table("reliability", rows),
        *(between if subsets else []),
        f"calibration: {result.file}",
    )
    if options.plot is not None:
        reliability_curve({name: curve for name, (curve, _) in result.checked.items()}, options.plot)
        note(options, f"reliability curve: {options.plot}")
