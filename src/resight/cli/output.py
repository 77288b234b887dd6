"""What verbs print: texts and tables for people, or one JSON object; and what an interrupted verb leaves.

With --json, standard output has one JSON object and nothing else; notes and progress are on standard error. Rates are
percent with one decimal for people, and from 0 to 1 in JSON.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import tyro
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from resight.cli.parsing import print_json
from resight.progress import percent

_FILE_WIDTH = 160  # characters of a table's line, where standard output is no terminal


@dataclass(frozen=True, kw_only=True)
class Output:
    """The options of every verb that prints figures or rows."""

    json: bool = False
    """Print one JSON object on standard output, and nothing else there; rates are from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class ProgressOutput(Output):
    """The options of every verb that takes long."""

    quiet: bool = False
    """Show no progress."""


def show(options: Output, document: Mapping[str, object] | object, *items: str | Table) -> None:
    """Print a result: the document as JSON if --json is given, else the texts and tables.

    Args:
        options: of the verb.
        document: a mapping, dataclass or configuration; it becomes one JSON object.
        items: lines of text, and tables of `score_table` and `row_table`.
    """
    if options.json:
        print_json(plain(document))
        return
    for item in items:
        if isinstance(item, str):
            print(item)
        else:
            _print_table(item)


def note(options: Output, text: str) -> None:
    """Print a line that is not part of the result, such as the name of a file that was written."""
    print(text, file=sys.stderr if options.json else sys.stdout)


def score_table(title: str, scores: Mapping[str, float], spread: Mapping[str, float] | None = None) -> Table:
    """Return rates in [0, 1] as a table of percentages, with their standard deviations over trials in a second row."""
    table = Table(*scores, title=title)
    table.add_row(*(percent(value) for value in scores.values()))
    if spread is not None:
        table.add_row(*(f"± {percent(spread[name])}" for name in scores))
    return table


def row_table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Return a table; each row has a value for each column, and None is an empty cell."""
    table = Table(*(rows[0] if rows else ()), title=title)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table


def plain(value: Any) -> Any:
    """Return a value as what JSON can express: dataclasses and configurations as objects, paths as texts, arrays as
    lists, and a number that is not finite as null."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in cast("Mapping[Any, Any]", value).items()}
    if hasattr(value, "tolist"):  # an array or number of numpy, which is not imported here
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def on_interrupt(sentence: Callable[[], str]) -> Generator[None]:
    """State what Ctrl-C leaves and what continues the command, such as `continue with: resight train --resume RUN`."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(sentence()) from interrupt


def metavar(name: str) -> Any:
    """Return the name of an argument in the help text, for `Annotated[str, metavar("NAME")]`."""
    return tyro.conf.arg(metavar=name)


def _print_table(table: Table) -> None:
    """Print a table under its title, which is not wrapped to the table's width."""
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    if table.title is not None:
        console.print(table.title, soft_wrap=True)
        table.title = None
    if table.columns:
        console.print(table)
