"""A model at rest: a folder with `model.safetensors` and `config.json`, which together are all that using it needs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from resight.config.sections import Model, Preprocessing, Section, explain
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError
from resight.models.transreid import TransReID
from resight.models.weights import fit, read_tensors
from resight.retrieval.calibration import Calibration

WEIGHTS, CARD, CALIBRATION = "model.safetensors", "config.json", "calibration.json"


class ModelCard(Section):
    """What a model's folder says beside the weights: the network, its preprocessing, and what its numbers mean."""

    format: int = 1
    """Of this file."""
    model: Model
    preprocessing: Preprocessing
    vocabulary: Vocabulary

    def build(self) -> TransReID:
        """The network, with random weights."""
        return TransReID(self.model, self.preprocessing.size, self.vocabulary)


def fill_model_folder(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Writes a model's two files into an existing folder (`storage.write_folder` makes it whole or not at all)."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    (folder / WEIGHTS).write_bytes(save(tensors))
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> ModelCard:
    """Reads a model folder's `config.json`.

    Raises:
        CheckpointError: there is none, or it is not one of ours.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_text())
    except OSError as error:
        raise CheckpointError(f"{folder} is no model folder: it has no readable {CARD} ({error.strerror})") from error
    except ValidationError as error:
        raise CheckpointError(f"{folder / CARD} does not describe a model: {explain(error)}") from error


def read_calibration(folder: Path) -> Calibration | None:
    """Reads a model folder's `calibration.json`; None where the model was not calibrated.

    Raises:
        CheckpointError: it is not one of ours.
    """
    if not (folder / CALIBRATION).exists():
        return None
    try:
        return Calibration.model_validate_json((folder / CALIBRATION).read_text())
    except ValidationError as error:
        raise CheckpointError(f"{folder / CALIBRATION} is no calibration: {explain(error)}") from error


def load_model(folder: Path) -> tuple[TransReID, ModelCard]:
    """Reads a model folder; the model is in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the folder is no model folder, or weights and card do not go together.
    """
    card = read_card(folder)
    model = card.build()
    fit(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return model.eval(), card


def fingerprint_of(folder: Path) -> str:
    """SHA-256 over a model's weights and card, the first 16 digits."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, CARD):
        with (folder / name).open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()[:16]
