"""A teacher in training: a model whose embeddings of the same images the student learns to match."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.config.distillation import Distillation
from resight.config.run import Run
from resight.data.vocabulary import Vocabulary, label_numbers
from resight.device import Compute
from resight.errors import CheckpointError, ConfigError
from resight.files import write_json
from resight.inference.embedder import Embedder
from resight.inference.exported import is_exported
from resight.inference.load import load
from resight.losses.distillation import DistillationLoss, distillation_loss
from resight.models.checkpoint import ModelCard, read_card
from resight.models.hub.download import local_folder
from resight.models.transreid import TransReID
from resight.training.run_folder import RunFolder

TEACHER: Final = "teacher.json"
_KINDS: Final = {"camera": "cameras", "view": "views", "modality": "modalities"}


class Distiller:
    """Embeds images by the teacher, and compares the student's embeddings with the teacher's.

    The teacher is in evaluation mode and never changes; the projection, which is trained, is only in the training state
    of a checkpoint.

    Args:
        teacher: the model to learn from.
        student: the metadata of the model that is trained.
        width: D, the length of the student's embedding.
        settings: the weights of the losses.
    """

    def __init__(self, teacher: Embedder, student: ModelCard, width: int, settings: Distillation) -> None:
        self.teacher = teacher
        self.settings = settings
        self.mean, self.std = student.preprocessing.mean, student.preprocessing.std
        self.numbers = _label_numbers(student.vocabulary, teacher.card.vocabulary)
        self.projection: nn.Linear | None = None
        """From the width of the student's embedding to that of the teacher's; None where they are equal."""
        teacher_width = teacher.embed_tensor(torch.zeros(1, 3, *teacher.card.preprocessing.size)).shape[1]
        if width != teacher_width:
            self.projection = nn.Linear(width, teacher_width, bias=False).to(teacher.device)

    @classmethod
    def create(cls, run: Run, card: ModelCard, model: TransReID, compute: Compute) -> "Distiller | None":
        """Load the teacher of a run on the student's device and in its precision; None for a run without one.

        Raises:
            CheckpointError: the teacher cannot be loaded.
            ConfigError: the teacher does not fit the student.
        """
        if run.teacher is None:
            return None
        device = str(next(model.parameters()).device)
        teacher = load(run.teacher, device, compute.precision, flip=False)
        require_teacher_fits(run, teacher.card)
        return cls(teacher, card, model.width, run.distillation)

    @property
    def description(self) -> str:
        """The teacher, and how the student's embedding is compared with its own, in one line."""
        card, projection = self.teacher.card, self.projection
        height, width = card.preprocessing.size
        how = "" if projection is None else f", projection from {projection.in_features} to {projection.out_features}"
        return f"teacher {self.teacher.folder}: {card.model.backbone} at {height}x{width}{how}"

    @property
    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The names and parameters that are trained."""
        return [] if self.projection is None else list(self.projection.named_parameters("projection"))

    def targets(self, images: Tensor, side_info: Mapping[str, Tensor], size: int | None) -> Tensor:
        """Embed the student's images by the teacher: float32 [R, E] of unit length.

        The images are normalized as the teacher's, and resized to its size by a bilinear filter with antialiasing.

        Args:
            images: float32 [R, 3, H, W], augmented, normalized as the student's.
            side_info: int64 [R] by kind, in the student's numbers of labels.
            size: images at once; None for all.
        """
        stated = self.teacher.card.preprocessing
        labels = {kind: number.to(images.device)[side_info[kind]] for kind, number in self.numbers.items()}
        scale, shift = _channels(images, self.std, stated.std), _shift(images, self.mean, stated.mean, stated.std)
        parts = list[Tensor]()
        for start in range(0, len(images), size or len(images)):
            part = slice(start, start + (size or len(images)))
            pixels = images[part] * scale + shift
            if pixels.shape[-2:] != stated.size:
                pixels = F.interpolate(pixels, stated.size, mode="bilinear", antialias=True)
            parts.append(self.teacher.embed_tensor(pixels, {kind: rows[part] for kind, rows in labels.items()}))
        return torch.cat(parts).to(images.device)  # cat copies: a tensor of inference mode has no gradient graph

    def loss(self, model: TransReID, features: Sequence[Tensor], targets: Tensor) -> DistillationLoss:
        """Compare the student's embeddings with the teacher's.

        Args:
            model: the student.
            features: float32 [B, D] of each branch, before BNNeck.
            targets: float32 [B, E], the teacher's embeddings.
        """
        embeddings = model.combine(features)
        projected = embeddings if self.projection is None else self.projection(embeddings)
        return distillation_loss(embeddings, projected, targets, self.settings)

    def dump(self) -> dict[str, Any]:
        """Return the state of the projection, for `torch.save`."""
        return {} if self.projection is None else self.projection.state_dict()

    def restore(self, stored: dict[str, Any]) -> None:
        """Load a state that `dump` returned."""
        if self.projection is not None:
            self.projection.load_state_dict(stored)

    def record(self, folder: RunFolder) -> None:
        """Write the teacher's embedding_id into the run folder.

        Raises:
            StorageError: the file cannot be written.
        """
        facts = {"teacher": str(self.teacher.folder), "embedding_id": self.teacher.embedding_id}
        write_json(folder.path / TEACHER, facts)

    def require_same(self, folder: RunFolder) -> None:
        """Check, for a run that has checkpoints, that its teacher is still the same.

        Raises:
            ConfigError: it is another model.
            CheckpointError: the run folder does not say which it was.
        """
        file = folder.path / TEACHER
        try:
            before = cast("dict[str, Any]", json.loads(file.read_bytes()))["embedding_id"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{file} does not state the embedding_id of the run's teacher ({error}): restore it, or start a new run"
            ) from error
        current = self.teacher.embedding_id
        if before != current:
            raise ConfigError(
                f"the run was started with a teacher whose embedding_id is {before}, and {self.teacher.folder} now has "
                f"{current}: restore that teacher, or start a new run"
            )


def require_teacher(run: Run) -> None:
    """Check what can be known of a run's teacher before a picture is read.

    Raises:
        CheckpointError: the teacher is a path without a model folder, or cannot be downloaded.
        ConfigError: the options exclude each other, or the teacher does not fit.
    """
    if run.teacher is None:
        return
    if run.model.fusion is not None:
        raise ConfigError(
            "a teacher embeds each image alone, and the student has model.fusion: leave teacher or model.fusion out"
        )
    if run.fsdp:
        raise ConfigError("--fsdp and --teacher exclude each other: leave one out")
    folder = local_folder(run.teacher)
    if not is_exported(folder):
        require_teacher_fits(run, read_card(folder))


def require_teacher_fits(run: Run, card: ModelCard) -> None:
    """Check a teacher's model card.

    Raises:
        ConfigError: the teacher fuses modalities inside the network.
    """
    if card.model.fusion is not None:
        raise ConfigError(
            f"the teacher {run.teacher} fuses the modalities of a sighting (model.fusion {card.model.fusion}), and a "
            "student learns from the embedding of each image: give a teacher without model.fusion"
        )


def _label_numbers(student: Vocabulary, teacher: Vocabulary) -> dict[str, Tensor]:
    """For each kind of label, the teacher's number of each of the student's labels, and -1 (unknown) at the end, where
    the student's unknown label, -1, finds it.

    Raises:
        ConfigError: the teacher does not know one of the modalities.
    """
    unknown = [name for name in student.modalities if name not in teacher.modalities]
    if unknown:
        raise ConfigError(
            f"the teacher knows no modality {unknown[0]}, only {', '.join(teacher.modalities)}: give another teacher"
        )
    return {
        kind: label_numbers([*getattr(student, labels), None], getattr(teacher, labels))
        for kind, labels in _KINDS.items()
    }


def _channels(images: Tensor, std: Sequence[float], other: Sequence[float]) -> Tensor:
    return images.new_tensor([a / b for a, b in zip(std, other, strict=True)]).view(3, 1, 1)


def _shift(images: Tensor, mean: Sequence[float], other: Sequence[float], std: Sequence[float]) -> Tensor:
    values = [(a - b) / s for a, b, s in zip(mean, other, std, strict=True)]
    return images.new_tensor(values).view(3, 1, 1)
