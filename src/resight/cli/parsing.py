"""What the verbs share: options to typed values, and figures to a table."""

from pathlib import Path
from typing import Any, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from resight.config.recipes import find
from resight.config.run import Run, read_run
from resight.errors import ConfigError

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


def print_scores(title: str, scores: dict[str, float], spread: dict[str, float] | None = None) -> None:
    """Rates in [0, 1], as percentages in a table; with their spread over several trials below."""
    table = Table(*scores, title=title)
    table.add_row(*(f"{100 * value:.1f}" for value in scores.values()))
    if spread is not None:
        table.add_row(*(f"± {100 * spread[name]:.1f}" for name in scores))
    _print(table)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows of a table, each a dict by column; numbers with a point are shown to four figures."""
    table = Table(*(rows[0] if rows else ()), title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    _print(table)


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:  # a file has room
        console = Console(highlight=False, width=160)
    console.print(table)
