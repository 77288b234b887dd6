"""The calibration of a model folder: `calibration.json`, which is read without the network."""

from pathlib import Path
from typing import Final

from resight.errors import CheckpointError
from resight.retrieval.calibration import Calibration

CALIBRATION: Final = "calibration.json"


def read_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of a model folder; None where the model was not calibrated.

    Raises:
        CheckpointError: `calibration.json` is corrupt, of another format, or does not contain a calibration.
    """
    file = folder / CALIBRATION
    if not file.exists():
        return None
    try:
        return Calibration.read(file, "a calibration", "run resight calibrate again")
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
