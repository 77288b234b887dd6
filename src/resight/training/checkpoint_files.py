"""The files of a checkpoint that training is resumed from, and how corrupt ones are noticed."""

from pathlib import Path
from typing import Final

from resight.config.document import Document, require_intact
from resight.errors import CheckpointError
from resight.files import file_digest
from resight.models.checkpoint import CARD

STATE: Final = "training.pt"
SHARDS: Final = "shards"
CHECKPOINT: Final = "checkpoint.json"
ADVICE: Final = "start a new run"


class CheckpointFiles(Document):
    """What `checkpoint.json` states: the files that training is resumed from, besides the weights."""

    files: dict[str, str]
    """SHA-256 of each, by its path in the checkpoint. The model card in turn has that of the weights."""

    @classmethod
    def of(cls, folder: Path) -> "CheckpointFiles":
        """Hash the files of a checkpoint."""
        paths = [folder / CARD, folder / STATE, *sorted((folder / SHARDS).rglob("*"))]
        return cls(files={str(path.relative_to(folder)): file_digest(path) for path in paths if path.is_file()})

    @classmethod
    def require(cls, folder: Path, shards: bool) -> None:
        """Compare the files of a checkpoint with their SHA-256, those in `shards` only if it is true.

        Raises:
            CheckpointError: a file is missing or corrupt, or `checkpoint.json` has another format.
        """
        try:
            files = cls.read(folder / CHECKPOINT, "a checkpoint", ADVICE).files
        except OSError as error:
            raise CheckpointError(
                f"{folder / CHECKPOINT} cannot be read ({error.strerror}): restore it from a copy, or {ADVICE}"
            ) from error
        checked = {name: digest for name, digest in files.items() if shards or not name.startswith(f"{SHARDS}/")}
        require_intact(folder, checked, CHECKPOINT, ADVICE)
