"""The options of verbs that take a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

import tyro

from resight.cli.output import ProgressOutput
from resight.cli.parsing import parse, read_recipe
from resight.config.run import Run


@dataclass(frozen=True)
class RunOptions(ProgressOutput):
    """A run, each field of which is an option, and what is printed."""

    run: Annotated[Run, tyro.conf.arg(name="")]


K = TypeVar("K", bound=RunOptions)


def parse_run(arguments: list[str], program: str, kind: type[K]) -> K:
    """Parse `RECIPE [OPTIONS]` or `--config FILE [OPTIONS]` into options of `kind`, with the run in them.

    Raises:
        ConfigError: the recipe or file does not exist, or a value is out of range.
    """
    run, count = read_recipe(arguments)
    return parse(kind, arguments[count:], f"{program} {' '.join(arguments[:count])}", kind(run))
