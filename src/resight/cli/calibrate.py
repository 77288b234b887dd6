"""`resight calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.parsing import parse, print_json, print_rows
from resight.config.folder import FolderOptions


@dataclass(frozen=True)
class Calibrate:
    """Calibrate a model on a data set: fit the probability of the same identity to the similarity, choose the threshold
    for unknown queries, and store both in the model folder. The reported calibration error is
    that of a curve fitted on half of the identities, on the other half; the stored curve is fitted on all."""

    model: Positional[Path]
    """A model folder."""
    dataset: str
    """A data set of the catalog; preferably validation images of your own, not a test set that you report on."""
    root: Path
    """Its folder or table."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    false_match_rate: float = 1e-3
    """Fraction of different-identity pairs that reach the threshold."""
    plot: Path | None = None
    """Write the reliability curve to this PNG file."""
    json: bool = False
    """Print JSON."""
    quiet: bool = False
    """Show no progress."""


def run(arguments: list[str]) -> None:
    """Embed, fit, check, print and write `calibration.json`."""
    options = parse(Calibrate, arguments, "resight calibrate")
    from resight.data.catalog import read_dataset
    from resight.evaluation.calibrate import calibrate, write_calibration
    from resight.progress import Progress
    from resight.report.curves import reliability_curve

    embedder = options.embedding.load(options.model)
    with Progress(options.quiet) as progress:
        split = read_dataset(options.dataset, options.root, options.folder)
        progress.log(embedder.description)
        progress.start(f"embedding {split.name}", split.tested)
        result = calibrate(embedder, split, options.false_match_rate, progress=progress.update)
    calibration = result.calibration
    written = write_calibration(options.model, calibration)
    if options.plot is not None:
        reliability_curve({name: curve for name, (curve, _) in result.checked.items()}, options.plot)
    if options.json:
        print_json(calibration.model_dump())
        return
    print(
        f"{calibration.same} same-identity pairs and {calibration.different} different-identity pairs; threshold "
        f"{calibration.threshold:.4f}: {100 * calibration.false_match_rate:g} % of different-identity pairs pass, "
        f"{100 * calibration.true_match_rate:.1f} % of same-identity pairs"
    )
    rows = [
        {"curve": name, "calibration error, unseen identities": error} for name, (_, error) in result.checked.items()
    ]
    print_rows("reliability", rows)
    print(f"written: {written}" + (f"; reliability curve: {options.plot}" if options.plot is not None else ""))
