"""`resight gallery`."""

from __future__ import annotations

from typing import Final

from resight.cli.gallery import actions, counts, options
from resight.cli.gallery.search import search
from resight.cli.output import on_interrupt
from resight.cli.parsing import parse_action

_ACTIONS: Final = {
    "create": (options.Create, actions.create),
    "add": (options.Add, actions.add),
    "search": (options.Search, search),
    "assign": (options.Assign, actions.assign),
    "undo": (options.Undo, actions.undo),
    "cluster": (options.Cluster, counts.cluster),
    "remove": (options.Remove, actions.remove),
    "map": (options.Map, counts.draw_gallery_map),
    "stats": (options.Stats, counts.stats),
    "verify": (options.Verify, actions.verify),
    "copy": (options.Copy, actions.copy),
    "repair": (options.Repair, actions.repair),
    "to-parquet": (options.ToParquet, actions.to_parquet),
    "from-parquet": (options.FromParquet, actions.from_parquet),
}
_READING: Final = (options.Search, options.Map, options.Stats, options.Verify)
"""Actions that change nothing."""
_ADDING: Final = (options.Add, options.Copy, options.FromParquet)
"""Actions that can be run again to add what is missing."""


def run(arguments: list[str]) -> None:
    """Run the action that the first word names."""
    action_options = parse_action({name: kind for name, (kind, _) in _ACTIONS.items()}, arguments, "resight gallery")
    actions_by_options = dict(_ACTIONS.values())
    with on_interrupt(lambda: _continuation(action_options)):
        actions_by_options[type(action_options)](action_options)


def _continuation(action_options: object) -> str:
    """What an interrupted action leaves."""
    if isinstance(action_options, _READING):
        return "nothing was written"
    if isinstance(action_options, _ADDING):
        return "the records added so far are stored; run the same command again to add the others"
    return "the change was made completely or not at all; resight gallery stats counts the records"
