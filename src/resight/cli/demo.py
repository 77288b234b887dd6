"""`resight demo`."""

from dataclasses import dataclass
from pathlib import Path

from resight.cli.parsing import parse


@dataclass(frozen=True)
class Demo:
    """Paint a data set, train a tiny three-modality TransReID on it, and show what it finds."""

    out: Path = Path("demo")
    """Folder for the pictures, the run and the rank strip; must not exist."""
    seed: int = 0
    """Of the pictures and of the training."""
    epochs: int | None = None
    """Epochs of training. None: as many as the recipe `tiny` has."""


def run(arguments: list[str]) -> None:
    """Parses and runs the demo."""
    options = parse(Demo, arguments, "resight demo")
    from resight.report.demo import run_demo

    run_demo(options.out, options.seed, options.epochs)
