"""`resight lr-find`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from resight.cli.output import metavar, note, show
from resight.cli.parsing import recipe_usage
from resight.cli.run_options import RunOptions, parse_run


@dataclass(frozen=True)
class FindLearningRate(RunOptions):
    """Run a learning rate range test: train at growing learning rates, and print where the loss falls fastest (Smith
    2017)."""

    low: float = 1e-6
    """Lowest base learning rate."""
    high: float = 1.0
    """Highest base learning rate."""
    steps: int = 100
    """Number of learning rates, with one training step each."""
    plot: Annotated[Path | None, metavar("FILE.png")] = None
    """Write the curve to this PNG file."""


def run(arguments: list[str]) -> None:
    """Run the test, print rates and losses, and plot them."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(recipe_usage("lr-find"))
        return
    options = parse_run(arguments, "resight lr-find", FindLearningRate)
    from resight.progress import Progress
    from resight.training.lr_finder import find_learning_rate

    with Progress(options.quiet) as progress:
        curve = find_learning_rate(options.run, None, options.low, options.high, options.steps, progress)
    rate = options.run.optimizer.lr
    show(
        options,
        {"rates": curve.rates, "losses": curve.losses, "steepest": curve.steepest, "lr": rate},
        *(f"{tried:.3e}  {loss:.4f}" for tried, loss in zip(curve.rates, curve.losses, strict=True)),
        f"the loss falls fastest at {curve.steepest:.1e}; --optimizer.lr is {rate:.1e}",
    )
    if options.plot is not None:
        from resight.report.curves import rate_curve

        rate_curve(curve.rates, curve.losses, curve.steepest, options.plot)
        note(options, f"curve: {options.plot}")
