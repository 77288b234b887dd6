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
    from resight.gallery.gallery import Gallery
    from resight.gallery.records import Filter, Record
    from resight.gallery.url import create_engine, open_engine
    from resight.keep import keep
    from resight.model.folder import load_model
    from resight.sightings import Sighting, SightingTable, Split
    from resight.tracker import TrackerFeatures
    from resight.training.loop import train

__version__ = "0.1.0"

_HOMES = {
    "convert": "resight.convert",
    "read": "resight.datasets.catalog",
    "embed_table": "resight.embed",
    "evaluate": "resight.evaluate",
    "load": "resight.embedder",
    "load_model": "resight.model.folder",
    "create_engine": "resight.gallery.url",
    "open_engine": "resight.gallery.url",
    "Filter": "resight.gallery.records",
    "Gallery": "resight.gallery.gallery",
    "keep": "resight.keep",
    "Record": "resight.gallery.records",
    "TrackerFeatures": "resight.tracker",
    "Sighting": "resight.sightings",
    "SightingTable": "resight.sightings",
    "Split": "resight.sightings",
    "train": "resight.training.loop",
}

__all__ = [  # noqa: RUF022
    "convert", "create_engine", "embed_table", "evaluate", "Filter", "Gallery", "keep", "load", "load_model",
    "open_engine", "read", "Record", "Sighting", "SightingTable", "Split", "TrackerFeatures", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'resight' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
