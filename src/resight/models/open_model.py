"""Open a model, in whichever of the known forms it is: a model folder, or a folder of roboflow's `reid`."""

from pathlib import Path

from resight.models.checkpoint import CARD, ModelCard, load_model, read_card, weights_digest
from resight.models.convert.reid_folder import convert_reid_folder, is_reid_folder
from resight.models.transreid import TransReID


def open_model(folder: Path) -> tuple[TransReID, ModelCard]:
    """Read a model; it is in evaluation mode, on the CPU, and its card has the SHA-256 of the weights.

    Raises:
        CheckpointError: the folder is no model folder, a file of it is corrupt, or its files do not fit each other.
    """
    if (folder / CARD).exists() or not is_reid_folder(folder):
        return load_model(folder)
    conversion = convert_reid_folder(folder)
    digest = weights_digest(conversion.model.state_dict())
    return conversion.model, conversion.card.model_copy(update={"weights_sha256": digest})


def open_card(folder: Path) -> ModelCard:
    """Read the card of a model; a folder of `reid` is converted for that.

    Raises:
        CheckpointError: as `open_model`.
    """
    return read_card(folder) if (folder / CARD).exists() or not is_reid_folder(folder) else open_model(folder)[1]
