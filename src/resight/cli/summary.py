"""`resight summary`."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from resight.cli.parsing import parse_run, recipe_usage

_EXPLANATION = """MFLOPs are those of the batch; a multiply-add counts as two. The last line is the complete model.
The model has the labels of an example data set: {} identities, {} cameras, {} views."""


def run(arguments: list[str]) -> None:
    """Run a recipe's model once with random weights, and print its stages."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(recipe_usage("summary"))
        return
    recipe = parse_run(arguments or ["transreid-market"], "resight summary")
    from resight.models.summary import BATCH_SIZE, CAMERAS, IDENTITIES, VIEWS, summarize

    title = f"{recipe.recipe}: {recipe.model.backbone}, B = {BATCH_SIZE}"
    table = Table("stage", "shape", "parameters", "MFLOPs", "source", title=title)
    for stage in summarize(recipe):
        shape = f"[{', '.join(map(str, stage.shape))}]"
        table.add_row(stage.name, shape, f"{stage.parameters:,}", f"{stage.flops / 1e6:,.1f}", stage.source)
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False, emoji=False).print(table)
    print(_EXPLANATION.format(IDENTITIES, CAMERAS, VIEWS))
