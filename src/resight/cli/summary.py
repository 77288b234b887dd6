"""`resight summary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from resight.cli.output import row_table, show
from resight.cli.parsing import recipe_usage
from resight.cli.run_options import RunOptions, parse_run

_EXPLANATION: Final = """\
MFLOPs are those of the batch; a multiply-add counts as two. The last line is the complete model.
The model has the labels of an example data set: {} identities, {} cameras, {} views."""


@dataclass(frozen=True)
class Summary(RunOptions):
    """Print the stages of a recipe's model. Each field of the configuration is an option."""


def run(arguments: list[str]) -> None:
    """Run a recipe's model once with random weights, and print its stages."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(recipe_usage("summary"))
        return
    options = parse_run(arguments or ["transreid-market"], "resight summary", Summary)
    from resight.models.summary import BATCH_SIZE, CAMERAS, IDENTITIES, VIEWS, summarize

    recipe = options.run
    stages = summarize(recipe)
    rows = [
        {
            "stage": stage.name,
            "shape": str(stage.shape),
            "parameters": f"{stage.parameters:,}",
            "MFLOPs": f"{stage.flops / 1e6:,.1f}",
            "source": stage.source,
        }
        for stage in stages
    ]
    document = {
        "recipe": recipe.recipe,
        "backbone": recipe.model.backbone,
        "batch_size": BATCH_SIZE,
        "identities": IDENTITIES,
        "cameras": CAMERAS,
        "views": VIEWS,
        "stages": stages,
    }
    title = f"{recipe.recipe}: {recipe.model.backbone}, B = {BATCH_SIZE}"
    show(options, document, row_table(title, rows), _EXPLANATION.format(IDENTITIES, CAMERAS, VIEWS))
