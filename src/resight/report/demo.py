"""The demo: train and evaluate a small model on synthetic images in a few minutes."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from resight.config.recipes import tiny, vary
from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.synthetic import synthetic
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.evaluation.checks import prepare
from resight.progress import Progress, duration
from resight.report.strips import rank_strip, save_picture
from resight.training.context import TrainContext
from resight.training.distributed import initialize
from resight.training.lines import score_line
from resight.training.loop import score, train
from resight.training.resolve import resolve
from resight.training.run_folder import RunFolder
from resight.training.state import start

_STAGES = ("paint", "measure untrained", "train", "rank strip")
_SECONDS = (8, 3, 130, 2)  # usual time of each stage on two AVX2 cores


def run_demo(out: Path, seed: int = 0, epochs: int | None = None) -> Path:
    """Paint a synthetic data set, train a small three-modality TransReID on it, and write a rank strip.

    Args:
        out: a new folder for the images, the run and the rank strip.
        seed: of the images and of training.
        epochs: of training; None for the recipe's number.

    Returns:
        the path of the rank strip.

    Raises:
        ConfigError: `out` exists.
        StorageError: `out` cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; remove it, or use another --out")
    console = Console(highlight=False, markup=False, emoji=False)
    plan = synthetic.Plan(seed=seed)
    run = vary(tiny(), root=out / "pictures", out=out / "run", seed=seed)
    epoch_fraction = 1.0
    if epochs is not None:
        epoch_fraction = epochs / run.schedule.epochs
        run = vary(run, schedule={"epochs": epochs, "warmup_epochs": min(run.schedule.warmup_epochs, epochs - 1)})
    with Progress() as progress:
        _print_plan(progress, plan, run, epoch_fraction)
        with _stage(progress, 1):
            progress.start("painting", plan.train + plan.test)
            synthetic.write(out / "pictures", plan, lambda painted, total: progress.update(painted))
        with _stage(progress, 2):
            split = prepare(run, read_dataset("synthetic", out / "pictures"), progress)
            vocabulary = Vocabulary.of(split.train)
            context = TrainContext.create(resolve(run), vocabulary, initialize(run.device), progress)
            before = score(context, start(context).model, split)
        with _stage(progress, 3):
            folder = RunFolder.new(out / "run")
            after = train(run, split, folder, progress)
        with _stage(progress, 4):
            strip = out / "rank_strip.png"
            save_picture(rank_strip(after), strip)
    console.print(f"before training: {score_line(before.summary())}", soft_wrap=True)
    console.print(f"after training:  {score_line(after.summary())}", soft_wrap=True)
    console.print(f"model: {folder.best}", soft_wrap=True)
    console.print(f"rank strip: {strip.resolve()}", soft_wrap=True)
    return strip


def _print_plan(progress: Progress, plan: synthetic.Plan, run: Run, epoch_fraction: float) -> None:
    """Print the stages and their usual times; `epoch_fraction` is the fraction of the recipe's epochs."""
    descriptions = (
        f"{plan.train + plan.test} identities in 3 modalities",
        "the recipe `tiny`, with random weights",
        f"{run.schedule.epochs} epochs",
        "the best checkpoint's ranking, as a picture",
    )
    usual = [
        seconds * epoch_fraction if stage == "train" else seconds
        for stage, seconds in zip(_STAGES, _SECONDS, strict=True)
    ]
    progress.log(f"{len(_STAGES)} stages; times are those of two AVX2 cores, {duration(sum(usual))} in all")
    for number, (stage, seconds, text) in enumerate(zip(_STAGES, usual, descriptions, strict=True), start=1):
        progress.log(f"  {number}. {stage:20s}about {duration(seconds):8s}{text}")


@contextmanager
def _stage(progress: Progress, number: int) -> Generator[None]:
    """Log how long a stage took."""
    start_time = time.monotonic()
    yield
    progress.log(f"stage {number} of {len(_STAGES)}, {_STAGES[number - 1]}: {duration(time.monotonic() - start_time)}")
