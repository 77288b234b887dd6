"""The model folder: `model.safetensors` and the model card `config.json` are all that is needed to use a model."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save
from torch import Tensor

from resight.config.document import Document, require_intact
from resight.config.sections import Embedding, Fusion, Model, Preprocessing
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError, ConfigError
from resight.models.tensor_file import read_tensors
from resight.models.transreid import TransReID, build_empty
from resight.models.weights import fit, require_finite

WEIGHTS, CARD = "model.safetensors", "config.json"
_AGAIN: Final = "train or convert the model again with this version"


class ModelCard(Document):
    """The metadata of a model: its network, preprocessing and labels, and how it embeds. Stored as `config.json`."""

    model: Model
    preprocessing: Preprocessing
    vocabulary: Vocabulary
    embedding: Embedding = Embedding()
    weights_sha256: str | None = None
    """SHA-256 of the weights' file that was written with this card; a card that is stored has it."""

    def build(self) -> TransReID:
        """Build the network, with random weights."""
        vocabulary = self.vocabulary
        return TransReID(self.model, self.preprocessing.size, len(vocabulary.identities), vocabulary.counts)

    def build_empty(self) -> TransReID:
        """Build the network without weights, for `weights.fit`; no random weights are drawn."""
        vocabulary = self.vocabulary
        return build_empty(self.model, self.preprocessing.size, len(vocabulary.identities), vocabulary.counts)


def fill_model_folder(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a model's two files into an existing folder; `files.write_folder` makes the folder atomically.

    Raises:
        CheckpointError: a weight is NaN or infinite; nothing is written.
    """
    require_finite(weights, "the model")
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
    facts: dict[str, Any] = {
        "weights": digest,
        "model": card.model.model_dump(mode="json"),
        "images": [images.size, images.mean, images.std, images.test_interpolation],
        "labels": [known.cameras, known.views, known.modalities],
        "flip": settings.flip,
        "fusion": effective_fusion(settings.fusion, card.model),
        "unknown": settings.unknown,
    }
    scaling = settings.scaling or images.scaling
    if scaling:  # without a rule, the id is as before there were rules
        facts["scaling"] = sorted(scaling.items())
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def effective_fusion(fusion: Fusion, model: Model) -> Fusion:
    """Resolve `auto`: the network's own fusion where it has one, else concatenation.

    Raises:
        ConfigError: `learned` is asked for, and the network has no fusion.
    """
    if fusion == "learned" and model.fusion is None:
        raise ConfigError("the model was trained without model.fusion: use the fusion mean or concat, not learned")
    if fusion == "auto":
        return "concat" if model.fusion is None else "learned"
    return fusion


def _weights_file(weights: Mapping[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder.

    Raises:
        CheckpointError: the card is missing, corrupt, of another format, without the SHA-256 of the weights, or does
            not describe a model.
    """
    try:
        card = ModelCard.read(folder / CARD, "a model", _AGAIN)
    except OSError as error:
        raise CheckpointError(f"{folder} is no model folder: it has no readable {CARD} ({error.strerror})") from error
    if card.weights_sha256 is None:
        raise CheckpointError(
            f"{folder / CARD} has no weights_sha256, so whether the weights are intact cannot be checked: {_AGAIN}"
        )
    return card


def load_model(folder: Path) -> tuple[TransReID, ModelCard]:
    """Read a model folder; the model is in evaluation mode, on the CPU.

    Raises:
        CheckpointError: the folder is not a model folder, a file of it is corrupt, or its weights and card do not
            belong to each other.
    """
    card = read_card(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"there is no checkpoint at {weights}")
    require_intact(folder, {WEIGHTS: card.weights_sha256 or ""}, CARD, _AGAIN)
    model = card.build_empty()
    fit(model, read_tensors(weights), weights)
    return model.eval(), card
