"""`resight train`."""

from pathlib import Path

from resight.cli.parsing import parse_run, print_scores
from resight.config.recipes import RECIPES
from resight.config.run import Run
from resight.data.catalog import read, require_known
from resight.errors import ConfigError

_USAGE = """usage: resight train RECIPE [OPTIONS]
       resight train --from CONFIG.json [OPTIONS]
       resight train --resume RUN_FOLDER

resight train RECIPE --help lists the options. The recipes:
"""


def run(arguments: list[str]) -> None:
    """Trains, or goes on with a run, and prints the figures and where the model is."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        for name, recipe in RECIPES.items():
            print(f"  {name:26s}{(recipe.__doc__ or '').splitlines()[0]}")
        return
    resumed = _resumed(arguments)
    chosen = resumed or parse_run(arguments, "resight train")
    root = root_of(chosen)

    from resight.evaluation.checks import prepare
    from resight.progress import Progress
    from resight.training.distributed import join, leave, restarted
    from resight.training.loop import train
    from resight.training.run_folder import RunFolder, default_folder

    context = join(chosen.device)
    if context.size > 1 and not resumed and chosen.out is None:
        raise ConfigError("several processes need --out FOLDER, so that all of them, and a restart, mean the same run")
    path = Path(arguments[1]) if resumed else default_folder(chosen)
    goes_on = bool(resumed) or (restarted() and (path / "config.json").exists()) or not context.is_main
    folder = RunFolder(path) if goes_on else RunFolder.new(path)
    with Progress(quiet=not context.is_main) as progress:
        split = prepare(chosen, read(chosen.dataset, root), progress)
        for note in split.notes:
            progress.log(note)
        result = train(chosen, split, folder, progress, context)
    leave()
    if not context.is_main:
        return
    print_scores(f"{split.name}, {chosen.schedule.epochs} epochs", result.summary())
    print(f"run: {folder.path}\nmodel: {folder.best}")


def _resumed(arguments: list[str]) -> Run | None:
    if arguments[0] != "--resume":
        return None
    if len(arguments) != 2:
        raise ConfigError("--resume takes the run's folder and nothing else: its configuration is in it")
    from resight.training.run_folder import RunFolder

    return RunFolder.open(Path(arguments[1]))[1]


def root_of(chosen: Run) -> Path:
    """Where a run's data set is.

    Raises:
        ConfigError: the set is not known, or the run does not say.
    """
    require_known(chosen.dataset)
    if chosen.root is not None:
        return chosen.root
    if chosen.dataset == "synthetic":
        return Path("data/synthetic")
    raise ConfigError(f"say where {chosen.dataset} is with --root FOLDER")
