"""`resight demo`."""

from dataclasses import dataclass
from pathlib import Path

from resight.cli.parsing import parse


@dataclass(frozen=True)
class Demo:
    """Paint a synthetic data set, train a small three-modality TransReID on it, and draw its ranking."""

    out: Path = Path("demo")
    """Folder for the images, the run and the rank strip; must not exist."""
    seed: int = 0
    """Random seed of the images and of training."""
    epochs: int | None = None
    """Number of epochs. None: that of the recipe `tiny`."""
    serve: bool = False
    """Then open the page of `resight serve` on the synthetic images; a demo that was trained before is used again."""
    port: int = 8000
    """Port of the page, with --serve."""


def run(arguments: list[str]) -> None:
    """Run the demo."""
    options = parse(Demo, arguments, "resight demo")
    if options.serve:
        from resight.service.demo import serve_demo

        serve_demo(options.out, options.seed, options.epochs, options.port)
        return
    from resight.report.demo import run_demo

    run_demo(options.out, options.seed, options.epochs)
