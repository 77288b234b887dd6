"""The demo: train and evaluate a small model on synthetic images in a few minutes."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from resight.training.loop import score, train
from resight.training.resolve import resolve
from resight.training.run_folder import RunFolder
from resight.training.state import start

_STAGES = ("paint", "measure untrained", "train", "rank strip")
_SECONDS = (8, 3, 130, 2)  # usual time of each stage on two AVX2 cores


@dataclass(frozen=True)
class DemoResult:
    """What a demo measured and wrote."""

    before: dict[str, float]
    """mAP, mINP, R1, R5 and R10 of the untrained model, from 0 to 1."""
    after: dict[str, float]
    """Those of the best checkpoint."""
    model: Path
    """The model folder."""
    strip: Path
    """The rank strip, a PNG file."""


def run_demo(out: Path, seed: int = 0, epochs: int | None = None, progress: Progress | None = None) -> DemoResult:
    """Paint a synthetic data set, train a small three-modality TransReID on it, and write a rank strip.

    Args:
        out: a new folder for the images, the run and the rank strip.
        seed: of the images and of training.
        epochs: of training; None for the recipe's number.
        progress: where progress is shown; None shows nothing.

    Raises:
        ConfigError: `out` exists.
        StorageError: `out` cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; remove it, or use another --out")
    progress = progress or Progress(quiet=True)
    plan = synthetic.Plan(seed=seed)
    run = vary(tiny(), root=out / "pictures", out=out / "run", seed=seed)
    epoch_fraction = 1.0
    if epochs is not None:
        epoch_fraction = epochs / run.schedule.epochs
        run = vary(run, schedule={"epochs": epochs, "warmup_epochs": min(run.schedule.warmup_epochs, epochs - 1)})
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
    return DemoResult(before.summary(), after.summary(), folder.best, strip.resolve())


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
    progress.log(f"{len(_STAGES)} stages; on two AVX2 cores they take about {duration(sum(usual))} in all")
    for number, (stage, seconds, text) in enumerate(zip(_STAGES, usual, descriptions, strict=True), start=1):
        progress.log(f"  {number}. {stage:20s}about {duration(seconds):8s}{text}")


@contextmanager
def _stage(progress: Progress, number: int) -> Generator[None]:
    """Log how long a stage took."""
    start_time = time.monotonic()
    yield
    progress.log(f"stage {number} of {len(_STAGES)}, {_STAGES[number - 1]}: {duration(time.monotonic() - start_time)}")
