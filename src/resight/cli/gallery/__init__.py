"""`resight gallery`."""

from __future__ import annotations

from typing import Final

from resight.cli.gallery import actions, options
from resight.cli.parsing import parse_action

_ACTIONS: Final = {
    "create": (options.Create, actions.create),
    "add": (options.Add, actions.add),
    "search": (options.Search, actions.search),
    "assign": (options.Assign, actions.assign),
    "undo": (options.Undo, actions.undo),
    "cluster": (options.Cluster, actions.cluster),
    "remove": (options.Remove, actions.remove),
    "stats": (options.Stats, actions.stats),
    "verify": (options.Verify, actions.verify),
    "copy": (options.Copy, actions.copy),
    "repair": (options.Repair, actions.repair),
    "to-parquet": (options.ToParquet, actions.to_parquet),
    "from-parquet": (options.FromParquet, actions.from_parquet),
}


def run(arguments: list[str]) -> None:
    """Run the action that the first word names."""
    action_options = parse_action({name: kind for name, (kind, _) in _ACTIONS.items()}, arguments, "resight gallery")
    actions_by_options = dict(_ACTIONS.values())
    actions_by_options[type(action_options)](action_options)
