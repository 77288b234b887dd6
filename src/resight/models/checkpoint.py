"""The model folder: `model.safetensors` and the model card `config.json` are all that is needed to use a model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from resight.config.sections import Embedding, Model, Preprocessing, Section, explain
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError
from resight.models.transreid import TransReID
from resight.models.weights import fit, read_tensors
from resight.retrieval.calibration import Calibration

WEIGHTS, CARD, CALIBRATION = "model.safetensors", "config.json", "calibration.json"
FORMAT: Final = 2


class ModelCard(Section):
    """The metadata of a model: its network, preprocessing and labels, and how it embeds. Stored as `config.json`."""

    format: int = FORMAT
    """The format number of this file."""
    model: Model
    preprocessing: Preprocessing
    vocabulary: Vocabulary
    embedding: Embedding = Embedding()
    weights_sha256: str | None = None
    """SHA-256 of the weights' file that was written with this card."""

    def build(self) -> TransReID:
        """Build the network, with random weights."""
        vocabulary = self.vocabulary
        return TransReID(self.model, self.preprocessing.size, len(vocabulary.identities), vocabulary.counts)


def fill_model_folder(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a model's two files into an existing folder; `files.write_folder` makes the folder atomically."""
    data = _weights_file(weights)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
    (folder / WEIGHTS).write_bytes(data)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of the weights' file that `fill_model_folder` would write."""
    return hashlib.sha256(_weights_file(weights)).hexdigest()


def embedding_id(digest: str, card: ModelCard, settings: Embedding) -> str:
    """Return 16 hexadecimal digits of a hash of all that changes a vector.

    Args:
        digest: SHA-256 of the weights.
        card: preprocessing, network and label names.
        settings: flip, fusion and the answer to unknown side information; precision and batch size are left out.
    """
    known, images = card.vocabulary, card.preprocessing
    facts = {
        "weights": digest,
        "model": card.model.model_dump(mode="json"),
        "images": [images.size, images.mean, images.std, images.test_interpolation],
        "labels": [known.cameras, known.views, known.modalities],
        "flip": settings.flip,
        "fusion": "mean" if settings.fusion == "mean" else "concat",
        "unknown": settings.unknown,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _weights_file(weights: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder.

    Raises:
        CheckpointError: the card is missing, has another format, or does not describe a model.
    """
    try:
        text = (folder / CARD).read_text()
        content = json.loads(text)
        number = content.get("format") if isinstance(content, dict) else None
        if isinstance(number, int) and number != FORMAT:
            raise CheckpointError(
                f"{folder / CARD} has format {number}, and this version of resight reads format {FORMAT}: train or "
                "convert the model again with this version"
            )
        return ModelCard.model_validate_json(text)
    except OSError as error:
        raise CheckpointError(f"{folder} is no model folder: it has no readable {CARD} ({error.strerror})") from error
    except ValidationError as error:
        raise CheckpointError(f"{folder / CARD} does not describe a model: {explain(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / CARD} is no JSON: {error}") from error


def read_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of a model folder; None where the model was not calibrated.

    Raises:
        CheckpointError: `calibration.json` does not contain a calibration.
    """
    if not (folder / CALIBRATION).exists():
        return None
    try:
        return Calibration.model_validate_json((folder / CALIBRATION).read_text())
    except ValidationError as error:
        raise CheckpointError(f"{folder / CALIBRATION} is no calibration: {explain(error)}") from error


def load_model(folder: Path) -> tuple[TransReID, ModelCard]:
    """Read a model folder; the model is in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the folder is not a model folder, or its weights and card do not fit each other.
    """
    card = read_card(folder)
    model = card.build()
    fit(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return model.eval(), card
