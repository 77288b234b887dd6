"""Everything that can go wrong in a way that a user can mend.

ResightError
├── ConfigError       an option, recipe, data set or backbone that cannot be
├── DatasetError      a folder or table that is not in the layout it is read as
├── PictureError      a picture that cannot be decoded
├── CheckpointError   weights that are damaged, unsafe or do not fit
├── GalleryError      a gallery that is damaged, in use, or of another model
├── EvaluationError   a measurement that has nothing to measure
├── ExportError       an export that does not give what the model gives
├── TrainingError    a training that cannot go on
└── StorageError      a file or folder that cannot be written

The command line prints the message as one sentence and ends with exit status 2.
"""

from collections.abc import Iterable


class ResightError(Exception):
    """What a user can mend; the message says what is wrong, where, and what to do."""


class ConfigError(ResightError):
    """An option, recipe, data set or backbone that cannot be."""


class DatasetError(ResightError):
    """A folder or table that is not in the layout it is read as."""


class PictureError(ResightError):
    """A picture that cannot be decoded."""


class CheckpointError(ResightError):
    """Weights that are damaged, unsafe or do not fit."""


class GalleryError(ResightError):
    """A gallery that is damaged, in use, or of another model."""


class EvaluationError(ResightError):
    """A measurement that has nothing to measure."""


class ExportError(ResightError):
    """An export that does not give what the model gives."""


class TrainingError(ResightError):
    """A training that cannot go on."""


class StorageError(ResightError):
    """A file or folder that cannot be written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not known, listing the names that are."""
    return ConfigError(f"there is no {kind} named {name!r}; known are: {', '.join(known)}")
