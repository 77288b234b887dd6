"""`resight train`."""

from __future__ import annotations

from pathlib import Path

from resight.cli.parsing import parse, parse_run, print_scores, recipe_usage
from resight.config.recipes import baseline_market
from resight.config.run import Run
from resight.errors import ConfigError


def run(arguments: list[str]) -> None:
    """Train a recipe or resume a run, and print the figures and the model's path."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(recipe_usage("train"))
        if arguments:
            parse(Run, ["--help"], "resight train RECIPE", baseline_market())
        return
    resumed = _resumed(arguments)
    config = resumed or parse_run(arguments, "resight train")
    from resight.progress import Progress
    from resight.training.distributed import initialize, restarted, shut_down
    from resight.training.loop import train
    from resight.training.resolve import resolve, root_of
    from resight.training.run_folder import RunFolder, default_folder

    resolve(config)
    root_of(config)
    distributed = initialize(config.device)
    if distributed.size > 1 and not resumed and config.out is None:
        raise ConfigError("several processes need --out FOLDER, so that all of them, and a restart, use the same run")
    path = Path(arguments[1]) if resumed else default_folder(config)
    is_existing = bool(resumed) or (restarted() and (path / "config.json").exists()) or not distributed.is_main
    folder = RunFolder(path) if is_existing else RunFolder.new(path)
    with Progress(quiet=not distributed.is_main) as progress:
        result = train(config, None, folder, progress, distributed)
    shut_down()
    if not distributed.is_main:
        return
    title = f"{result.query.info.dataset}, protocol {result.protocol.name}, {config.schedule.epochs} epochs"
    print_scores(title, result.summary())
    print(f"run: {folder.path}\nmodel: {folder.best}")


def _resumed(arguments: list[str]) -> Run | None:
    if arguments[0] != "--resume":
        return None
    if len(arguments) != 2:
        raise ConfigError("--resume takes a run folder and no other option: the folder has the configuration")
    from resight.training.run_folder import RunFolder

    return RunFolder.open(Path(arguments[1]))[1]
