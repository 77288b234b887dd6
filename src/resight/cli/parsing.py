"""Parsing of options, and printing of tables, for all verbs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import tyro
from rich.console import Console
from rich.table import Table

from resight.cli.refusal import one_sentence
from resight.config.recipes import RECIPES, find
from resight.config.run import Run, read_run
from resight.errors import ConfigError

T = TypeVar("T")


def parse(kind: type[T], arguments: list[str], program: str, default: T | None = None) -> T:
    """Parse options into a value of `kind`.

    Raises:
        ConfigError: an option is unknown, missing or invalid.
    """
    with one_sentence(arguments, program):
        if default is None:
            return tyro.cli(kind, prog=program, args=arguments)
        return tyro.cli(kind, prog=program, args=arguments, default=default)


def parse_action(actions: Mapping[str, type], arguments: list[str], program: str) -> Any:
    """Parse `resight VERB ACTION [OPTIONS]` into the options of the action.

    Raises:
        ConfigError: the action does not exist, or an option is unknown, missing or invalid.
    """
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in actions.items())
    with one_sentence(arguments, program):
        return tyro.cli(Union[kinds], prog=program, args=arguments)  # pyright: ignore  # noqa: UP007


def parse_run(arguments: list[str], program: str) -> Run:
    """Parse `RECIPE [OPTIONS]` or `--config FILE [OPTIONS]` into a run.

    Raises:
        ConfigError: the recipe or file does not exist, or a value is out of range.
    """
    if arguments[0] == "--config":
        if len(arguments) < 2:
            raise ConfigError("--config takes a configuration file, such as runs/NAME/config.json")
        return parse(Run, arguments[2:], f"{program} --config {arguments[1]}", read_run(Path(arguments[1])))
    return parse(Run, arguments[1:], f"{program} {arguments[0]}", find(arguments[0]))


def recipe_usage(verb: str) -> str:
    """Return the usage of a verb that takes a recipe, with a list of the recipes."""
    lines = [f"usage: resight {verb} RECIPE [OPTIONS]"]
    if verb == "train":
        lines += ["       resight train --config CONFIG.json [OPTIONS]", "       resight train --resume RUN_FOLDER"]
    lines += ["", f"resight {verb} RECIPE --help lists the options with the recipe's values. The recipes:", ""]
    return "\n".join([*lines, *(f"  {name:26s}{words}" for name, words in recipe_list())])


def recipe_list() -> list[tuple[str, str]]:
    """Return the recipes' names and the first lines of their descriptions."""
    return [(name, (recipe.__doc__ or "").splitlines()[0]) for name, recipe in RECIPES.items()]


def print_scores(title: str, scores: dict[str, float], spread: dict[str, float] | None = None) -> None:
    """Print rates in [0, 1] as a table of percentages, with their standard deviations over trials in a second row."""
    table = Table(*scores, title=title)
    table.add_row(*(f"{100 * value:.1f}" for value in scores.values()))
    if spread is not None:
        table.add_row(*(f"± {100 * spread[name]:.1f}" for name in scores))
    _print(table)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table; each row has a value for each column, and floats have four significant digits."""
    table = Table(*(rows[0] if rows else ()), title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    _print(table)


def print_json(document: Any) -> None:
    """Print a JSON document on standard output."""
    print(json.dumps(document, indent=2))


def _print(table: Table) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:  # a file has no width
        console = Console(highlight=False, markup=False, emoji=False, width=160)
    console.print(table)
