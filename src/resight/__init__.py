"""Resight: have I seen this one before, and where?

The verbs and value objects that a library user needs; each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resight.data.catalog import read
    from resight.data.sightings import Sighting, SightingTable, Split
    from resight.evaluation.evaluate import evaluate
    from resight.gallery.gallery import Gallery
    from resight.gallery.ingest import keep
    from resight.gallery.record import Filter, Record
    from resight.gallery.url import create_engine, open_engine
    from resight.inference.embed import embed_table
    from resight.inference.embedder import load
    from resight.inference.tracker_features import TrackerFeatures
    from resight.models.checkpoint import load_model
    from resight.models.convert.reference import convert
    from resight.training.loop import train

__version__ = "0.1.0"

_HOMES = {
    "convert": "resight.models.convert.reference",
    "read": "resight.data.catalog",
    "embed_table": "resight.inference.embed",
    "evaluate": "resight.evaluation.evaluate",
    "load": "resight.inference.embedder",
    "load_model": "resight.models.checkpoint",
    "create_engine": "resight.gallery.url",
    "open_engine": "resight.gallery.url",
    "Filter": "resight.gallery.record",
    "Gallery": "resight.gallery.gallery",
    "keep": "resight.gallery.ingest",
    "Record": "resight.gallery.record",
    "TrackerFeatures": "resight.inference.tracker_features",
    "Sighting": "resight.data.sightings",
    "SightingTable": "resight.data.sightings",
    "Split": "resight.data.sightings",
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
