"""Listings of names, such as recipes and protocols."""

from __future__ import annotations

from dataclasses import dataclass

from resight.cli.parsing import parse, print_json
from resight.errors import ConfigError


@dataclass(frozen=True)
class Listing:
    """List names and descriptions."""

    json: bool = False
    """Print JSON."""


def print_listing(verb: str, arguments: list[str], rows: list[tuple[str, str]]) -> None:
    """Print names and descriptions, for `resight VERB list`."""
    if arguments[:1] not in (["list"], ["-h"], ["--help"]):
        raise ConfigError(f"the command is: resight {verb} list")
    options = parse(Listing, arguments[1:] if arguments[0] == "list" else arguments, f"resight {verb} list")
    if options.json:
        print_json(dict(rows))
        return
    width = max(len(name) for name, _ in rows) + 2
    for name, words in rows:
        print(f"{name:{width}s}{words}")
