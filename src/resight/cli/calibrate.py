"""`resight calibrate`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from resight.cli.parsing import parse, print_rows
from resight.config.sections import Evaluation, Precision
from resight.data.catalog import read
from resight.errors import ConfigError
from resight.files import write_file


@dataclass(frozen=True)
class Calibrate:
    """Fit similarity to probability on a data set, choose the threshold below which nobody is known, and keep both in
    the model's folder. Half of the identities fit a curve that is checked on the other half; what is kept uses all."""

    model: Positional[Path]
    """A model's folder."""
    dataset: str
    """A data set of the catalog; better the held-out part of your own pictures than the set a paper reports on."""
    root: Path
    """Its folder (or table)."""
    false_match_rate: float = 1e-3
    """Share of pairs of different identities that may pass the threshold."""
    flip: bool = False
    """Mean of the picture's and its mirror image's embedding; calibrate as you embed."""
    precision: Precision = "auto"
    """Arithmetic of the model's matrix products."""
    device: str = "auto"
    """Where to embed."""
    plot: Path | None = None
    """Draw the reliability curve there, as PNG."""


def run(arguments: list[str]) -> None:
    """Embeds, fits, checks, prints and writes `calibration.json`."""
    options = parse(Calibrate, arguments, "resight calibrate")
    from resight.device import pick_device, resolve_compute
    from resight.evaluation.calibrate import calibrate_model
    from resight.models.checkpoint import CALIBRATION, load_model
    from resight.progress import Progress
    from resight.report.curves import reliability_curve

    if not 0 < options.false_match_rate < 1:
        raise ConfigError(f"--false-match-rate must lie between 0 and 1, not {options.false_match_rate:g}")
    model, card = load_model(options.model)
    model.to(pick_device(options.device))
    with Progress() as progress:
        split = read(options.dataset, options.root)
        compute = resolve_compute(next(model.parameters()).device, options.precision, Evaluation().batch)
        progress.log(compute.describe(card.preprocessing.size))
        progress.start(f"embedding {split.name}", split.tested)
        settings = Evaluation(flip=options.flip)
        found = calibrate_model(
            model, card, split, settings, options.false_match_rate, options.precision, progress.update
        )
    kept = found.calibration
    write_file(options.model / CALIBRATION, kept.model_dump_json(indent=2) + "\n")
    print(
        f"{kept.same} pairs of one identity and {kept.different} of different ones; at similarity {kept.threshold:.4f} "
        f"{kept.false_match_rate:g} of those of different ones pass, and {kept.true_match_rate:.3f} of those of one"
    )
    rows = [
        {"curve": name, "calibration error, unseen identities": error} for name, (_, error) in found.checked.items()
    ]
    print_rows("reliability", rows)
    print(f"written: {options.model / CALIBRATION}")
    if options.plot is not None:
        reliability_curve({name: curve for name, (curve, _) in found.checked.items()}, options.plot)
        print(f"reliability curve: {options.plot}")
