"""What the verbs share: options to typed values, and figures to a table."""

from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from resight.config import Run, read_run
from resight.errors import ConfigError
from resight.recipes import find

T = TypeVar("T")


def parse(kind: type[T], arguments: list[str], program: str, default: T | None = None) -> T:
    """Options to a value of `kind`; tyro itself says what is wrong with an option, and ends with status 2."""
    if default is None:
        return tyro.cli(kind, prog=program, args=arguments)
    return tyro.cli(kind, prog=program, args=arguments, default=default)


def parse_run(arguments: list[str], program: str) -> Run:
    """A run from `RECIPE [OPTIONS]` or `--from FILE [OPTIONS]`.

    Raises:
        ConfigError: there is no such recipe or file, or a value is out of its range.
    """
    if arguments[0] == "--from":
        if len(arguments) < 2:
            raise ConfigError("--from takes a configuration's file, such as runs/NAME/config.json")
        return parse(Run, arguments[2:], f"{program} --from {arguments[1]}", read_run(Path(arguments[1])))
    return parse(Run, arguments[1:], f"{program} {arguments[0]}", find(arguments[0]))


def print_scores(title: str, scores: dict[str, float]) -> None:
    """Rates in [0, 1], as percentages in a table."""
    table = Table(*scores, title=title)
    table.add_row(*(f"{100 * value:.1f}" for value in scores.values()))
    Console(highlight=False).print(table)
