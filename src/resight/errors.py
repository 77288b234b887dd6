"""The errors that a user can fix; the message says what is wrong, where, and what to do.

ResightError
├── ConfigError       an option, recipe, data set or backbone is invalid or unknown
├── DatasetError      a folder or table does not have the expected layout
├── PictureError      an image cannot be decoded
├── CheckpointError   weights are corrupt, unsafe, or do not fit the model
├── GalleryError      a gallery is corrupt, in use, or of another model
├── EvaluationError   an evaluation has nothing to evaluate
├── ExportError       an exported model differs from the original
├── TrainingError     training cannot continue
└── StorageError      a file or folder cannot be written

The command line prints the message as one sentence and ends with exit status 2.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any


class ResightError(Exception):
    """Base class of the errors that a user can fix."""


class ConfigError(ResightError):
    """An option, recipe, data set or backbone is invalid or unknown."""


class DatasetError(ResightError):
    """A folder or table does not have the expected layout."""


class PictureError(ResightError):
    """An image cannot be decoded."""


class CheckpointError(ResightError):
    """Weights are corrupt, unsafe, or do not fit the model."""


class GalleryError(ResightError):
    """A gallery is corrupt, in use, or of another model."""


class EvaluationError(ResightError):
    """An evaluation has nothing to evaluate."""


class ExportError(ResightError):
    """An exported model differs from the original."""


class TrainingError(ResightError):
    """Training cannot continue."""


class StorageError(ResightError):
    """A file or folder cannot be written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an unknown name, which lists the known ones."""
    return ConfigError(f"there is no {kind} named {name!r}; known are: {', '.join(known)}")


def require_extra(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: such as `openvino`.
        extra: the extra of resight that installs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"this needs {module.split('.')[0]}, which is not installed: pip install 'resight[{extra}]'"
        ) from error
