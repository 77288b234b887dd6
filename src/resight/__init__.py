"""Resight: have I seen this one before, and where?

The verbs and value objects that a library user needs; each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resight.convert import convert
    from resight.datasets.catalog import read
    from resight.embed import embed_table
    from resight.embedder import load
    from resight.evaluate import evaluate
    from resight.model.folder import load_model
    from resight.sightings import Sighting, SightingTable, Split
    from resight.training.loop import train

__version__ = "0.1.0"

_HOMES = {
    "convert": "resight.convert",
    "read": "resight.datasets.catalog",
    "embed_table": "resight.embed",
    "evaluate": "resight.evaluate",
    "load": "resight.embedder",
    "load_model": "resight.model.folder",
    "Sighting": "resight.sightings",
    "SightingTable": "resight.sightings",
    "Split": "resight.sightings",
    "train": "resight.training.loop",
}

__all__ = [  # noqa: RUF022
    "convert", "embed_table", "evaluate", "load", "load_model", "read", "Sighting", "SightingTable", "Split", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resight' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
