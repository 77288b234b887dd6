"""Resight: re-identification with TransReID. Have I seen this one before, and where?

Every public name is imported when it is first used, so that `import resight` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resight.config import recipes
    from resight.config.folder import FolderOptions
    from resight.config.run import Run
    from resight.data.catalog import read_dataset
    from resight.data.inspect import inspect_dataset
    from resight.data.readers.anything import read_images
    from resight.data.sightings import Sighting, SightingTable, Split
    from resight.errors import (
        CheckpointError,
        ConfigError,
        DatasetError,
        EvaluationError,
        ExportError,
        GalleryError,
        PictureError,
        ResightError,
        StorageError,
        TrainingError,
    )
    from resight.evaluation.calibrate import calibrate
    from resight.evaluation.compare import compare
    from resight.evaluation.evaluate import evaluate
    from resight.evaluation.matrix import evaluate_matrix
    from resight.evaluation.result import Result
    from resight.gallery.answers import Answer
    from resight.gallery.gallery import Gallery
    from resight.gallery.open import create_gallery, open_gallery
    from resight.gallery.record import Filter, Record
    from resight.inference.embedder import Embedder
    from resight.inference.explain import Explanation, explain
    from resight.inference.export import export
    from resight.inference.extract.extract import ExtractOptions, extract
    from resight.inference.import_onnx import import_onnx
    from resight.inference.load import load
    from resight.inference.runtime import Runtime
    from resight.inference.tracker_features import TrackerFeatures
    from resight.models.convert.convert import convert_checkpoint
    from resight.models.published import PublishedModel, list_models
    from resight.report.embedding_map import EmbeddingMap, embedding_map
    from resight.report.publish import push
    from resight.report.walkthrough.summary import summarize
    from resight.retrieval.calibration import Calibration
    from resight.service.client import Client
    from resight.service.server import serve
    from resight.service.settings import ServiceSettings
    from resight.training.loop import train
    from resight.training.lr_finder import find_learning_rate

__version__ = "0.2.0"

_MODULES = {
    "Answer": "gallery.answers",
    "Calibration": "retrieval.calibration",
    "CheckpointError": "errors",
    "Client": "service.client",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "Embedder": "inference.embedder",
    "EmbeddingMap": "report.embedding_map",
    "EvaluationError": "errors",
    "Explanation": "inference.explain",
    "ExportError": "errors",
    "ExtractOptions": "inference.extract.options",
    "Filter": "gallery.record",
    "FolderOptions": "config.folder",
    "Gallery": "gallery.gallery",
    "GalleryError": "errors",
    "PictureError": "errors",
    "PublishedModel": "models.published",
    "Record": "gallery.record",
    "ResightError": "errors",
    "Result": "evaluation.result",
    "Run": "config.run",
    "Runtime": "inference.runtime",
    "ServiceSettings": "service.settings",
    "Sighting": "data.sightings",
    "SightingTable": "data.sightings",
    "Split": "data.sightings",
    "StorageError": "errors",
    "TrackerFeatures": "inference.tracker_features",
    "TrainingError": "errors",
    "calibrate": "evaluation.calibrate",
    "compare": "evaluation.compare",
    "convert_checkpoint": "models.convert.convert",
    "create_gallery": "gallery.open",
    "embedding_map": "report.embedding_map",
    "evaluate": "evaluation.evaluate",
    "evaluate_matrix": "evaluation.matrix",
    "explain": "inference.explain",
    "export": "inference.export",
    "extract": "inference.extract.extract",
    "find_learning_rate": "training.lr_finder",
    "import_onnx": "inference.import_onnx",
    "inspect_dataset": "data.inspect",
    "list_models": "models.published",
    "load": "inference.load",
    "open_gallery": "gallery.open",
    "push": "report.publish",
    "read_dataset": "data.catalog",
    "read_images": "data.readers.anything",
    "recipes": "config",
    "serve": "service.server",
    "summarize": "report.walkthrough.summary",
    "train": "training.loop",
}

__all__ = [
    "Answer", "Calibration", "CheckpointError", "Client", "ConfigError", "DatasetError", "Embedder", "EmbeddingMap",
    "EvaluationError", "Explanation", "ExportError", "ExtractOptions", "Filter", "FolderOptions", "Gallery",
    "GalleryError", "PictureError", "PublishedModel", "Record", "ResightError", "Result", "Run", "Runtime",
    "ServiceSettings", "Sighting", "SightingTable", "Split", "StorageError", "TrackerFeatures", "TrainingError",
    "calibrate", "compare", "convert_checkpoint", "create_gallery", "embedding_map", "evaluate", "evaluate_matrix",
    "explain", "export", "extract", "find_learning_rate", "import_onnx", "inspect_dataset", "list_models", "load",
    "open_gallery", "push", "read_dataset", "read_images", "recipes", "serve", "summarize", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'resight' has no attribute {name!r}")
    module = import_module(f"resight.{_MODULES[name]}")
    return import_module("resight.config.recipes") if name == "recipes" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
