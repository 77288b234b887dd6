"""`resight recipes list`."""

from __future__ import annotations

from resight.cli.listing import print_listing
from resight.cli.parsing import recipe_list


def run(arguments: list[str]) -> None:
    """Print the recipes of `resight train`."""
    print_listing("recipes", arguments, recipe_list())
