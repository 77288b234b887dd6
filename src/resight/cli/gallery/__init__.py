"""`resight gallery`."""

from collections.abc import Callable
from typing import Any, Final

from resight.cli.gallery import actions, options
from resight.cli.parsing import parse
from resight.errors import ConfigError

_ACTIONS: Final[dict[str, tuple[type, Callable[[Any], None]]]] = {
    "create": (options.Create, actions.create),
    "add": (options.Add, actions.add),
    "search": (options.Search, actions.search),
    "name": (options.Name, actions.name),
    "undo": (options.Only, actions.undo),
    "remove": (options.Remove, actions.remove),
    "stats": (options.Only, actions.stats),
    "verify": (options.Verify, actions.verify),
    "export": (options.Export, actions.export),
}
_USAGE = """usage: resight gallery ACTION GALLERY [OPTIONS]

  create   make a gallery for the embeddings of one model
  add      embed pictures and keep them
  search   who is this, and where were they seen?
  name     say who records are: merges and splits identities
  undo     take the last naming back
  remove   remove records, or everything of an identity, with every trace
  stats    what is in it
  verify   read everything and say what is wrong
  export   copy all records to another gallery

resight gallery ACTION --help says more.
"""


def run(arguments: list[str]) -> None:
    """Does what the first word says."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        raise SystemExit(0)
    action = arguments[0]
    if action not in _ACTIONS:
        raise ConfigError(f"there is no action {action!r}; known are: {', '.join(_ACTIONS)}")
    kind, work = _ACTIONS[action]
    work(parse(kind, arguments[1:], f"resight gallery {action}"))
