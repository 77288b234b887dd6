"""The command line: one verb a function, which parses, calls and prints. Torch is imported inside a verb alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

if TYPE_CHECKING:
    from resight.config import Run

T = TypeVar("T")


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb; what a user can mend ends with one sentence and status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if given[0] == "--version":
        from resight import __version__

        print(f"resight {__version__}")
        return 0
    from resight.errors import ResightError, unknown

    try:
        if given[0] not in VERBS:
            raise unknown("verb", given[0], VERBS)
        VERBS[given[0]](given[1:])
    except ResightError as error:
        print(f"resight: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("resight: stopped; what was written is whole", file=sys.stderr)
        return 130
    return 0


def demo(arguments: list[str]) -> None:
    """Paint a data set, train a tiny three-modality TransReID on it, and show what it finds."""

    @dataclass(frozen=True)
    class Demo:
        """Paint a data set, train a tiny three-modality TransReID on it, and show what it finds."""

        out: Path = Path("demo")
        """Folder for the pictures, the run and the rank strip; must not exist."""
        seed: int = 0
        """Of the pictures and of the training."""

    options = _parse(Demo, arguments, "resight demo")
    from resight.demo import run_demo

    run_demo(options.out, options.seed)


def train(arguments: list[str]) -> None:
    """Train a recipe (RECIPE, --from FILE), or go on with a run (--resume FOLDER)."""
    from resight.recipes import RECIPES

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: resight train RECIPE [OPTIONS] | --from CONFIG.json [OPTIONS] | --resume RUN_FOLDER\n")
        print("resight train RECIPE --help lists the options. The recipes:\n")
        _print_functions(RECIPES)
        return
    from resight.training.run_folder import RunFolder, default_folder

    if arguments[0] == "--resume":
        if len(arguments) != 2:
            raise _bad("--resume takes the run's folder and nothing else: its configuration is in it")
        folder, run = RunFolder.open(Path(arguments[1]))
    else:
        run = _run_of(arguments, "resight train")
        folder = None
    from resight.datasets.catalog import read
    from resight.training.loop import train as train_run
    from resight.training.prepare import prepare
    from resight.training.screen import Screen

    split = prepare(run, read(run.dataset, _root(run)))
    folder = folder or RunFolder.create(default_folder(run), run)
    with Screen() as screen:
        for note in split.notes:
            screen.say(note)
        result = train_run(run, split, folder, screen)
    _print_scores(f"{split.name}, {run.schedule.epochs} epochs", result.metrics.summary())
    print(f"run: {folder.path}\nmodel: {folder.best}")


def evaluate(arguments: list[str]) -> None:
    """Measure a model on a data set: CMC, mAP, mINP."""
    from resight.config import JunkRule, Precision

    @dataclass(frozen=True)
    class Evaluate:
        """Measure a model on a data set: CMC, mAP, mINP."""

        model: Annotated[Path, _positional()]
        """A model's folder, such as runs/NAME/best."""
        dataset: str
        """A data set of the catalog."""
        root: Path
        """Its folder (or table)."""
        junk: JunkRule = "same-camera"
        """Gallery items left out of a query's ranking."""
        fusion: Literal["concat", "mean"] = "concat"
        """How the embeddings of one sighting's modalities become one."""
        flip: bool = False
        """Mean of the picture's and its mirror image's embedding."""
        batch: int = 64
        """Pictures embedded at once."""
        precision: Precision = "fp32"
        """Arithmetic of the matrix products; ranking is in float32."""
        device: str = "auto"
        """Where to embed."""
        damaged: Literal["refuse", "skip"] = "refuse"
        """What to do about pictures that cannot be decoded."""
        json: Path | None = None
        """Write the figures there."""
        strip: Path | None = None
        """Write a rank strip there, as PNG: it shows the pictures themselves."""

    options = _parse(Evaluate, arguments, "resight evaluate")
    from resight.config import Evaluation
    from resight.datasets.catalog import read
    from resight.embed import pick_device
    from resight.evaluate import evaluate as measure
    from resight.model.folder import load_model
    from resight.report.strips import rank_strip, save_picture
    from resight.storage import write_file
    from resight.training.prepare import require_match, without_damaged
    from resight.training.screen import Screen

    model, card = load_model(options.model)
    split, notes = without_damaged(read(options.dataset, options.root), options.damaged)
    require_match(split, options.junk)
    settings = Evaluation(junk=options.junk, fusion=options.fusion, flip=options.flip, batch=options.batch)
    model.to(pick_device(options.device))
    with Screen() as screen:
        for note in (*split.notes, *notes):
            screen.say(note)
        screen.begin(f"embedding {split.name}", len(split.query) + len(split.gallery) * (split.gallery is not split.query))
        result = measure(
            model, split.query, split.gallery, card.vocabulary, card.pictures, settings, options.precision, screen.step
        )
    metrics = result.metrics
    print(
        f"{len(split.query)} queries against {len(split.gallery)} gallery sightings, junk rule {options.junk}; "
        f"{metrics.unmatched} queries without a match left out ({metrics.unmatched_by_rule} by the rule)"
    )
    _print_scores(split.name, metrics.summary())
    if options.json is not None:
        import json

        figures = metrics.summary() | {"cmc": metrics.cmc.tolist(), "queries": len(split.query), "gallery": len(split.gallery)}
        figures |= {"unmatched": metrics.unmatched, "dataset": split.name, "settings": settings.model_dump()}
        write_file(options.json, json.dumps(figures, indent=2) + "\n")
    if options.strip is not None:
        save_picture(rank_strip(split.query, split.gallery, result), options.strip)
        print(f"rank strip: {options.strip}")


def shapes(arguments: list[str]) -> None:
    """Run a recipe's model once and print every tensor that a reader of the paper would ask for."""
    run = _run_of(arguments if arguments and not arguments[0].startswith("-") else ["transreid-market", *arguments], "resight shapes")
    import torch
    from rich.console import Console
    from rich.table import Table

    from resight.loading.batch import Vocabulary
    from resight.model.shapes import tour
    from resight.model.transreid import TransReID
    from resight.sightings import MODALITIES

    names = lambda count: tuple(str(i) for i in range(count))  # noqa: E731
    modalities = MODALITIES if "modality" in run.model.side else MODALITIES[:1]
    vocabulary = Vocabulary(names(751), names(6), names(8), modalities)
    model = TransReID(run.model, run.pictures.size, vocabulary)
    batch = 2
    side = {kind: torch.zeros(batch, dtype=torch.int64) for kind in ("camera", "view", "modality")}
    stages = tour(model, torch.randn(batch, 3, *run.pictures.size), side)
    table = Table("stage", "shape", "parameters", "MFLOPs", "source", title=f"{run.recipe}: {run.model.backbone}, B = {batch}")
    for stage in stages:
        shape = f"[{', '.join(map(str, stage.shape))}]"
        table.add_row(stage.name, shape, f"{stage.parameters:,}", f"{stage.flops / 1e6:,.1f}", stage.source)
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False).print(table)
    print("MFLOPs of the whole batch, a multiply-add counted as two; the last line is the whole model, heads included.")
    print("Counts stand in for a data set's: 751 identities, 6 cameras, 8 views.")


def convert(arguments: list[str]) -> None:
    """Turn a checkpoint of the reference implementation into a model folder."""

    @dataclass(frozen=True)
    class Convert:
        """Turn a checkpoint of the reference implementation into a model folder."""

        checkpoint: Annotated[Path, _positional()]
        """A state dict saved with torch.save."""
        out: Path
        """The model folder to write; must not exist."""
        config: Path | None = None
        """The reference's YAML."""
        options: tuple[str, ...] = ()
        """The reference's options by its own names, such as MODEL.JPM=True; they go before the YAML's."""
        cameras: int | None = None
        """Number of cameras, where SIE tells both camera and view."""
        views: int | None = None
        """Number of views, likewise."""
        view_is_modality: bool = False
        """The views that SIE tells are modalities: rgb, nir, tir."""

    options = _parse(Convert, arguments, "resight convert")
    import yaml

    from resight.convert import convert as convert_checkpoint
    from resight.convert import read_options

    chosen: dict[str, Any] = read_options(options.config) if options.config is not None else {}
    for option in options.options:
        name, equals, value = option.partition("=")
        if not equals:
            raise _bad(f"the option {option!r} is not of the form NAME=VALUE, such as MODEL.JPM=True")
        chosen[name] = yaml.safe_load(value)
    if not chosen:
        raise _bad("give the reference's options with --config FILE, or --options MODEL.JPM=True ...")
    found = convert_checkpoint(options.checkpoint, chosen, options.cameras, options.views, options.view_is_modality)
    found.write(options.out)
    for name, why in found.left_out.items():
        print(f"left out {name}: {why}")
    for note in found.notes:
        print(note)
    print(f"{len(found.model.state_dict())} tensors in {options.out}; cameras are named from 1, as the reference numbers them")


def data(arguments: list[str]) -> None:
    """Look into a data set (data inspect NAME ROOT) before anything is trained on it."""

    @dataclass(frozen=True)
    class Inspect:
        """Look into a data set before anything is trained on it."""

        name: Annotated[str, _positional()]
        """A data set of the catalog."""
        root: Annotated[Path, _positional()]
        """Its folder (or table)."""
        check: bool = False
        """Decode every picture and name those that are damaged."""
        out: Path | None = None
        """Write the three tables there, as train.parquet, query.parquet and gallery.parquet."""

    if not arguments or arguments[0] != "inspect":
        raise _bad("the verb is: resight data inspect NAME ROOT")
    options = _parse(Inspect, arguments[1:], "resight data inspect")
    from rich.console import Console
    from rich.table import Table

    from resight.datasets.catalog import read
    from resight.errors import PictureError
    from resight.storage import make_folder

    split = read(options.name, options.root)
    table = Table("part", "sightings", "pictures", "identities", "cameras", "views", "modalities", title=split.name)
    parts = {"train": split.train, "query": split.query, "gallery": split.gallery}
    for name, part in parts.items():
        counts = (len(part), len(part.paths), *(len(part.values(label)) for label in ("identity", "camera", "view")))
        table.add_row(name, *map(str, counts), " ".join(part.modalities))
    Console(highlight=False).print(table)
    for note in split.notes:
        print(note)
    if options.out is not None:
        make_folder(options.out)
        for name, part in parts.items():
            part.write(options.out / f"{name}.parquet")
    if options.check:
        from resight.loading.pictures import damaged

        files = sorted({path for part in parts.values() for path in part.paths})
        faults = damaged(files)
        for _, reason in faults:
            print(reason)
        if faults:
            raise PictureError(f"{len(faults)} of {len(files)} pictures are damaged")
        print(f"all {len(files)} pictures can be decoded")


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "shapes": shapes,
    "convert": convert,
    "data": data,
}


def _usage() -> str:
    lines = ["Resight: have I seen this one before, and where?\n", "usage: resight VERB [OPTIONS]\n"]
    lines += [f"  {name:10s}{function.__doc__}" for name, function in VERBS.items()]
    return "\n".join([*lines, "\nresight VERB --help says more. https://arxiv.org/abs/2102.04378 is the paper behind it."])


def _print_functions(functions: dict[str, Callable[[], Run]]) -> None:
    for name, function in functions.items():
        print(f"  {name:26s}{(function.__doc__ or '').splitlines()[0]}")


def _print_scores(title: str, scores: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*scores, title=title)
    table.add_row(*(f"{100 * value:.1f}" for value in scores.values()))
    Console(highlight=False).print(table)


def _parse(kind: type[T], arguments: list[str], program: str, default: T | None = None) -> T:
    import tyro
    from pydantic import ValidationError

    from resight.config import explain

    try:
        if default is None:
            return tyro.cli(kind, prog=program, args=arguments)
        return tyro.cli(kind, prog=program, args=arguments, default=default)
    except ValidationError as error:
        raise explain(error) from error


def _run_of(arguments: list[str], program: str) -> Run:
    """A run from `RECIPE [OPTIONS]` or `--from FILE [OPTIONS]`."""
    from resight.config import Run, read_run
    from resight.recipes import find

    if arguments[0] == "--from":
        if len(arguments) < 2:
            raise _bad("--from takes a configuration's file")
        return _parse(Run, arguments[2:], f"{program} --from {arguments[1]}", read_run(Path(arguments[1])))
    return _parse(Run, arguments[1:], f"{program} {arguments[0]}", find(arguments[0]))


def _root(run: Run) -> Path:
    from resight.datasets.catalog import CATALOG
    from resight.errors import unknown

    if run.dataset not in CATALOG:
        raise unknown("data set", run.dataset, CATALOG)
    if run.root is not None:
        return run.root
    if run.dataset == "synthetic":
        return Path("data/synthetic")
    raise _bad(f"say where {run.dataset} is with --root FOLDER")


def _positional() -> Any:
    import tyro

    return tyro.conf.Positional


def _bad(message: str) -> Exception:
    from resight.errors import ConfigError

    return ConfigError(message)


if __name__ == "__main__":
    sys.exit(main())
