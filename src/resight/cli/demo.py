"""`resight demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from resight.cli.output import ProgressOutput, metavar, on_interrupt, show
from resight.cli.parsing import parse


@dataclass(frozen=True)
class Demo(ProgressOutput):
    """Paint a synthetic data set, train a small three-modality TransReID on it, and draw its ranking."""

    out: Annotated[Path, metavar("FOLDER")] = Path("demo")
    """Folder for the images, the run and the rank strip; must not exist."""
    seed: int = 0
    """Random seed of the images and of training."""
    epochs: Annotated[int | None, metavar("NUMBER")] = None
    """Number of epochs. None: that of the recipe `tiny`."""
    serve: bool = False
    """Then open the page of `resight serve` on the synthetic images; a demo that was trained before is used again."""
    port: int = 8000
    """Port of the page, with --serve."""


def run(arguments: list[str]) -> None:
    """Run the demo, and print the figures before and after training."""
    options = parse(Demo, arguments, "resight demo")
    if options.serve:
        from resight.service.demo import serve_demo

        serve_demo(options.out, options.seed, options.epochs, options.port)
        return
    from resight.progress import Progress
    from resight.report.demo import run_demo
    from resight.training.lines import score_line

    with on_interrupt(lambda: _continuation(options.out)), Progress(options.quiet) as progress:
        demo = run_demo(options.out, options.seed, options.epochs, progress)
    show(
        options,
        demo,
        f"before training: {score_line(demo.before)}",
        f"after training:  {score_line(demo.after)}",
        f"model: {demo.model}",
        f"rank strip: {demo.strip}",
    )


def _continuation(out: Path) -> str:
    """What to do after an interruption."""
    if out.exists():
        return f"remove {out} and run the same command again"
    return "nothing was written; run the same command again"
