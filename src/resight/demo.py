"""The main job in a few minutes, on pictures that we paint: paint, train, measure before and after, look."""

from pathlib import Path

from rich.console import Console

from resight.datasets import synthetic
from resight.errors import ConfigError
from resight.loading.batch import Vocabulary
from resight.prepare import prepare
from resight.recipes import tiny, vary
from resight.report.strips import rank_strip, save_picture
from resight.screen import Screen, score_line
from resight.training.loop import score, train
from resight.training.run_folder import RunFolder
from resight.training.state import start
from resight.training.team import join


def run_demo(out: Path, seed: int = 0) -> Path:
    """Paints a data set, trains a tiny three-modality TransReID on it, and writes a rank strip.

    Args:
        out: a new folder for pictures, run and strip.
        seed: of the pictures and of the training.

    Returns:
        the rank strip's path.

    Raises:
        ConfigError: `out` exists.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already and is not written over; remove it, or choose another --out")
    console = Console(highlight=False)
    with Screen() as screen:
        plan = synthetic.Plan(seed=seed)
        screen.begin("painting", plan.train + plan.test)
        synthetic.write(out / "pictures", plan, lambda done, total: screen.step(done))
        run = vary(tiny(), root=out / "pictures", out=out / "run", seed=seed)
        split = prepare(run, synthetic.read(out / "pictures"), screen)
        folder = RunFolder.new(out / "run")
        vocabulary = Vocabulary.of(split.train)
        untrained = start(run, vocabulary, join(run.device), screen).model
        before = score(run, untrained, split, vocabulary, screen)
        after = train(run, split, folder, screen)
    strip = out / "rank_strip.png"
    save_picture(rank_strip(after), strip)
    console.print(f"before training: {score_line(before.summary())}", soft_wrap=True)
    console.print(f"after training:  {score_line(after.summary())}", soft_wrap=True)
    console.print(f"model: {folder.best}", soft_wrap=True)
    console.print(f"rank strip: {strip.resolve()}", soft_wrap=True)
    return strip
