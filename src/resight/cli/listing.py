"""Listings of names, such as recipes and protocols."""

from __future__ import annotations

from dataclasses import dataclass

from resight.cli.output import Output, show
from resight.cli.parsing import parse
from resight.errors import ConfigError


@dataclass(frozen=True)
class Listing(Output):
    """List names and descriptions."""


def print_listing(verb: str, arguments: list[str], rows: list[tuple[str, str]]) -> None:
    """Print names and descriptions, for `resight VERB list`."""
    if arguments[:1] not in (["list"], ["-h"], ["--help"]):
        raise ConfigError(f"the command is: resight {verb} list")
    options = parse(Listing, arguments[1:] if arguments[0] == "list" else arguments, f"resight {verb} list")
    width = max(len(name) for name, _ in rows) + 2
    show(options, dict(rows), *(f"{name:{width}s}{words}" for name, words in rows))
