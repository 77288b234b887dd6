"""`resight shapes`."""

import sys

from rich.console import Console
from rich.table import Table

from resight.cli.parsing import parse_run
from resight.data.sightings import MODALITIES

_BATCH, _IDENTITIES, _CAMERAS, _VIEWS = 2, 751, 6, 8


def run(arguments: list[str]) -> None:
    """Runs a recipe's model once, with random weights, and prints its stages."""
    named = bool(arguments) and (arguments[0] == "--from" or not arguments[0].startswith("-"))
    chosen = parse_run(arguments if named else ["transreid-market", *arguments], "resight shapes")
    import torch

    from resight.data.vocabulary import Vocabulary
    from resight.models.summary import summarize_model
    from resight.models.transreid import TransReID

    modalities = MODALITIES if "modality" in chosen.model.sie else MODALITIES[:1]
    vocabulary = Vocabulary(_names(_IDENTITIES), _names(_CAMERAS), _names(_VIEWS), modalities)
    model = TransReID(chosen.model, chosen.preprocessing.size, vocabulary)
    side_info = {kind: torch.zeros(_BATCH, dtype=torch.int64) for kind in ("camera", "view", "modality")}
    title = f"{chosen.recipe}: {chosen.model.backbone}, B = {_BATCH}"
    table = Table("stage", "shape", "parameters", "MFLOPs", "source", title=title)
    for stage in summarize_model(model, torch.randn(_BATCH, 3, *chosen.preprocessing.size), side_info):
        shape = f"[{', '.join(map(str, stage.shape))}]"
        table.add_row(stage.name, shape, f"{stage.parameters:,}", f"{stage.flops / 1e6:,.1f}", stage.source)
    Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False).print(table)
    print("MFLOPs of the whole batch, a multiply-add counted as two; the last line is the whole model, heads included.")
    print(f"Counts stand in for a data set's: {_IDENTITIES} identities, {_CAMERAS} cameras, {_VIEWS} views.")


def _names(count: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(count))
