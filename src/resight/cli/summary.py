"""`resight summary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resight.cli.output import plain
from resight.cli.parsing import print_json, recipe_usage
from resight.cli.run_options import RunOptions, parse_run


@dataclass(frozen=True)
class Summary(RunOptions):
    """Take one step of training and one evaluation of a recipe on synthetic images, with random weights, and print
    every tensor on the way. Each field of the configuration is an option."""

    format: Literal["text", "markdown", "html", "json"] = "text"
    """What is printed: text, a Markdown page, an HTML page that needs nothing else, or one JSON object."""


def run(arguments: list[str]) -> None:
    """Take one step of a recipe with random weights, and print what goes through its model."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(recipe_usage("summary"))
        return
    options = parse_run(arguments or ["transreid-market"], "resight summary", Summary)
    from resight.report.walkthrough.summary import summarize

    summary = summarize(options.run)
    if options.json or options.format == "json":
        print_json(plain(summary.document()))
        return
    print(summary.render(options.format))
