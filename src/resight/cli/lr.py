"""`resight lr`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from resight.cli.parsing import parse
from resight.cli.train import root_of
from resight.config.recipes import find
from resight.config.run import Run
from resight.data.catalog import read

_USAGE = """usage: resight lr RECIPE [--low 1e-6] [--high 1] [--steps 100] [--plot FILE.png] [OPTIONS]

Takes steps at ever higher learning rates and says where the loss falls fastest; OPTIONS are those of resight train.
"""


@dataclass(frozen=True)
class Search:
    """Find a learning rate for a recipe."""

    run: Annotated[Run, tyro.conf.arg(name="")]
    low: float = 1e-6
    """The first base learning rate."""
    high: float = 1.0
    """The last."""
    steps: int = 100
    """How many are tried, one training step each."""
    plot: Path | None = None
    """Where a curve is drawn, as PNG."""


def run(arguments: list[str]) -> None:
    """Searches, prints the rates and losses, and draws them where wanted."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return
    options = parse(Search, arguments[1:], f"resight lr {arguments[0]}", Search(find(arguments[0])))
    from resight.evaluation.checks import prepare
    from resight.progress import Progress
    from resight.training.lr_finder import find_learning_rate

    with Progress() as progress:
        split = prepare(options.run, read(options.run.dataset, root_of(options.run)), progress)
        found = find_learning_rate(options.run, split, options.low, options.high, options.steps, progress)
    for rate, loss in zip(found.rates, found.losses, strict=True):
        print(f"{rate:.3e}  {loss:.4f}")
    print(f"the loss falls fastest at {found.steepest:.1e}; --optimizer.lr is {options.run.optimizer.lr:.1e}")
    if options.plot is not None:
        from resight.report.curves import rate_curve

        rate_curve(found.rates, found.losses, found.steepest, options.plot)
        print(f"curve: {options.plot}")
