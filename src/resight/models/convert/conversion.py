"""A converted model, and the folder that it is written to."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from resight.errors import ConfigError
from resight.files import storing, write_folder
from resight.models.checkpoint import ModelCard, fill_model_folder
from resight.models.transreid import TransReID


@dataclass(frozen=True)
class Conversion:
    """A converted model, and a report of the conversion."""

    model: TransReID
    card: ModelCard
    left_out: dict[str, str]
    """Names of unused tensors in the checkpoint, and the reasons."""
    notes: tuple[str, ...]
    """What was changed, and what was assumed because no tensor tells it."""

    def write(self, folder: str | Path) -> None:
        """Write a model folder.

        Raises:
            ConfigError: the folder exists.
            StorageError: the folder cannot be written.
        """
        require_new_folder(Path(folder))
        write_folder(Path(folder), lambda partial: fill_model_folder(partial, self.model.state_dict(), self.card))


def require_new_folder(folder: Path) -> None:
    """Check that a model folder can be written, before the work of a conversion.

    Raises:
        ConfigError: something of that name exists, also a link to nothing.
        StorageError: the name is not possible.
    """
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} exists already and is not written over; use another --out")
    with storing(folder):
        with suppress(FileNotFoundError):  # the name of the temporary folder of `write_folder` is the longest one
            folder.with_name(f".{folder.name}.{'0' * 8}.partial").lstat()
        existing = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")
