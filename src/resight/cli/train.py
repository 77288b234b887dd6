"""`resight train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resight.cli.output import ProgressOutput, on_interrupt, score_table, show
from resight.cli.parsing import parse, recipe_usage
from resight.cli.run_options import RunOptions, parse_run
from resight.config.recipes import baseline_market
from resight.config.run import Run
from resight.errors import ConfigError

if TYPE_CHECKING:
    from resight.training.distributed import DistributedContext
    from resight.training.run_folder import RunFolder

_FLAGS = ("--json", "--quiet")


@dataclass(frozen=True)
class Train(RunOptions):
    """Train a recipe. Each field of its configuration is an option."""


def run(arguments: list[str]) -> None:
    """Train a recipe or resume a run, and print the figures and the model's path."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(recipe_usage("train"))
        if arguments:
            parse(Train, ["--help"], "resight train RECIPE", Train(baseline_market()))
        return
    config, options, existing = _resumed(arguments) if arguments[0] == "--resume" else _new(arguments)
    from resight.evaluation.result import figures
    from resight.progress import Progress, counted
    from resight.training.distributed import initialize, shut_down
    from resight.training.loop import train
    from resight.training.resolve import resolve, root_of

    resolve(config)
    root_of(config)
    distributed = initialize(config.device)
    folder = existing or _new_folder(config, distributed)
    with (
        on_interrupt(lambda: continuation(folder.path)),
        Progress(quiet=options.quiet or not distributed.is_main) as progress,
    ):
        result = train(config, None, folder, progress, distributed)
    shut_down()
    if not distributed.is_main:
        return
    name = result.query.info.dataset or config.dataset
    title = f"{name}, protocol {result.protocol.name}, {counted(config.schedule.epochs, 'epoch')}"
    show(
        options,
        {"run": folder.path, "model": folder.best, **figures(result, name)},
        score_table(title, result.summary()),
        f"run: {folder.path}",
        f"model: {folder.best}",
    )


def continuation(path: Path) -> str:
    """What to do after an interruption of a training in a run folder."""
    if (path / "config.json").exists():
        return f"continue with: resight train --resume {path}"
    return "nothing was written; run the same command again"


def _new(arguments: list[str]) -> tuple[Run, ProgressOutput, RunFolder | None]:
    options = parse_run(arguments, "resight train", Train)
    return options.run, options, None


def _resumed(arguments: list[str]) -> tuple[Run, ProgressOutput, RunFolder | None]:
    from resight.training.run_folder import RunFolder

    words = [word for word in arguments[1:] if word not in _FLAGS]
    if len(words) != 1 or words[0].startswith("-"):
        raise ConfigError(
            "--resume takes a run folder, and no other option but --json and --quiet: the folder has the configuration"
        )
    options = ProgressOutput(json="--json" in arguments, quiet="--quiet" in arguments)
    folder, config = RunFolder.open(Path(words[0]))
    return config, options, folder


def _new_folder(config: Run, distributed: DistributedContext) -> RunFolder:
    from resight.training.distributed import restarted
    from resight.training.run_folder import RunFolder, default_folder

    if distributed.size > 1 and config.out is None:
        raise ConfigError("several processes need --out FOLDER, so that all of them, and a restart, use the same run")
    path = default_folder(config)
    is_existing = (restarted() and (path / "config.json").exists()) or not distributed.is_main
    return RunFolder(path) if is_existing else RunFolder.new(path)
