"""Parsing of options for all verbs, and printing of JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import tyro

from resight.cli.refusal import one_sentence
from resight.cli.repeated import join_repeated
from resight.config.recipes import RECIPES, find
from resight.config.run import Run, read_run
from resight.errors import ConfigError

T = TypeVar("T")


def parse(kind: type[T], arguments: list[str], program: str, default: T | None = None) -> T:
    """Parse options into a value of `kind`.

    Raises:
        ConfigError: an option is unknown, missing or invalid.
    """
    arguments = join_repeated(kind, arguments)
    with one_sentence(arguments, program):
        if default is None:
            return tyro.cli(kind, prog=program, args=arguments)
        return tyro.cli(kind, prog=program, args=arguments, default=default)


def parse_action(actions: Mapping[str, type], arguments: list[str], program: str) -> Any:
    """Parse `resight VERB ACTION [OPTIONS]` into the options of the action.

    Raises:
        ConfigError: the action does not exist, or an option is unknown, missing or invalid.
    """
    if arguments and arguments[0] in actions:
        arguments = join_repeated(actions[arguments[0]], arguments)
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in actions.items())
    with one_sentence(arguments, program):
        return tyro.cli(Union[kinds], prog=program, args=arguments)  # pyright: ignore  # noqa: UP007


def read_recipe(arguments: list[str]) -> tuple[Run, int]:
    """Return the run that `RECIPE` or `--config FILE` names, and the number of words that name it.

    Raises:
        ConfigError: the recipe or file does not exist.
    """
    if arguments[0] == "--config":
        if len(arguments) < 2:
            raise ConfigError("--config takes a configuration file, such as runs/NAME/config.json")
        return read_run(Path(arguments[1])), 2
    return find(arguments[0]), 1


def recipe_usage(verb: str) -> str:
    """Return the usage of a verb that takes a recipe, with a list of the recipes."""
    lines = [f"usage: resight {verb} RECIPE [OPTIONS]", f"       resight {verb} --config CONFIG.json [OPTIONS]"]
    if verb == "train":
        lines.append("       resight train --resume RUN_FOLDER")
    lines += ["", f"resight {verb} RECIPE --help lists the options with the recipe's values. The recipes:", ""]
    return "\n".join([*lines, *(f"  {name:26s}{words}" for name, words in recipe_list())])


def recipe_list() -> list[tuple[str, str]]:
    """Return the recipes' names and the first lines of their descriptions."""
    return [(name, (recipe.__doc__ or "").splitlines()[0]) for name, recipe in RECIPES.items()]


def print_json(document: Any) -> None:
    """Print a JSON document on standard output."""
    print(json.dumps(document, indent=2))
