"""`resight lr-find`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from resight.cli.parsing import parse, recipe_usage
from resight.config.recipes import find
from resight.config.run import Run


@dataclass(frozen=True)
class FindLearningRate:
    """Run a learning rate range test: train at growing learning rates, and print where the loss falls fastest (Smith
    2017)."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    low: float = 1e-6
    """Lowest base learning rate."""
    high: float = 1.0
    """Highest base learning rate."""
    steps: int = 100
    """Number of learning rates, with one training step each."""
    plot: Path | None = None
    """Write the curve to this PNG file."""
    quiet: bool = False
    """Show no progress."""


def run(arguments: list[str]) -> None:
    """Run the test, print rates and losses, and plot them."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(recipe_usage("lr-find"))
        return
    program = f"resight lr-find {arguments[0]}"
    options = parse(FindLearningRate, arguments[1:], program, FindLearningRate(find(arguments[0])))
    from resight.progress import Progress
    from resight.training.lr_finder import find_learning_rate

    with Progress(options.quiet) as progress:
        curve = find_learning_rate(options.run, None, options.low, options.high, options.steps, progress)
    for rate, loss in zip(curve.rates, curve.losses, strict=True):
        print(f"{rate:.3e}  {loss:.4f}")
    print(f"the loss falls fastest at {curve.steepest:.1e}; --optimizer.lr is {options.run.optimizer.lr:.1e}")
    if options.plot is not None:
        from resight.report.curves import rate_curve

        rate_curve(curve.rates, curve.losses, curve.steepest, options.plot)
        print(f"curve: {options.plot}")
