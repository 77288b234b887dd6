"""An exported model, or an imported ONNX file, as an embedder: every command that takes a model takes it."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch
from torch import Tensor

from resight.config.sections import Embedding, Model, Preprocessing
from resight.data.vocabulary import Vocabulary
from resight.device import Compute, resolve_compute
from resight.errors import ConfigError
from resight.inference import runtime
from resight.inference.embedder import Embedder
from resight.inference.runtime import METADATA, ExportMetadata, Runtime
from resight.models.calibration import read_calibration
from resight.models.checkpoint import ModelCard

_FIXED: Final = ("flip", "fusion", "unknown", "scaling", "precision", "compile")


class ExportedEmbedder(Embedder):
    """Embeds pictures and sightings with an exported model, in onnxruntime or OpenVINO on the CPU.

    Decoding, resizing and the fusion of modalities are those of every embedder; side information, flip and precision
    are what was exported.

    Args:
        exported: the opened model.
        folder: that it was opened from.
        batch_size: images at once; None for 32.
    """

    def __init__(self, exported: Runtime, folder: Path, batch_size: int | None = None) -> None:  # pyright: ignore[reportMissingSuperCall]
        stated = exported.metadata
        self.exported = exported
        self.folder = folder
        self.card = _card(stated)
        self.settings = self.card.embedding
        self.device = torch.device("cpu")
        self.compute: Compute = resolve_compute(self.device, "fp32", batch_size)
        self.batch_size = self.compute.batch_size
        self.calibration = read_calibration(folder)
        self.fusion = stated.fusion

    def __getattr__(self, name: str) -> NoReturn:
        if name == "model":
            raise ConfigError(
                f"{self.folder} is an exported model, whose network is one file: give the model folder for this"
            )
        raise AttributeError(name)

    @property
    def description(self) -> str:
        """Library, arithmetic, image size and batch size, in one line."""
        stated = self.exported.metadata
        arithmetic = "int8" if stated.int8 else "fp32"
        height, width = stated.size
        return f"{stated.kind} on the CPU, {arithmetic}; images of {height}x{width}, batches of {self.batch_size}"

    @property
    def threads(self) -> int:
        """1: the library that runs the export has threads of its own, and takes one batch at a time."""
        return 1

    @property
    def width(self) -> int:
        """E, the numbers of an embedding."""
        return self.exported.width

    @property
    def embedding_id(self) -> str:
        """The id that the export states."""
        return self.exported.embedding_id

    def embed_tensor(
        self,
        images: Tensor,
        side_info: Mapping[str, Tensor] | None = None,
        normalize: bool = True,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Embed preprocessed images, [B, 3, H, W], as `Embedder.embed_tensor` does: float32 [B, D] of unit length.

        Raises:
            ConfigError: the graph normalizes its images itself, or `normalize` is off.
        """
        if self.exported.metadata.mean is None:
            raise ConfigError(f"{self.folder} takes 8-bit images, and normalizes them itself: give the model folder")
        if not normalize:
            raise ConfigError(f"{self.folder} gives embeddings of unit length alone")
        return torch.from_numpy(self.exported.network({"images": images.float().cpu().numpy()}))

    @contextmanager
    def evaluation_mode(self) -> Generator[None]:
        """Do nothing: an exported model has no other mode."""
        yield

    def _forward(self, pixels: Tensor, side_info: Mapping[str, Tensor], rows: Tensor | None = None) -> np.ndarray:
        inputs = {"images": pixels.numpy(), **{kind: labels.numpy() for kind, labels in side_info.items()}}
        if rows is not None:
            inputs["rows"] = rows.numpy()
        return self.exported.network(inputs)


def is_exported(folder: Path) -> bool:
    """Whether a folder is of `resight export` or `resight import-onnx`."""
    return (folder / METADATA).is_file()


def load_exported(folder: Path, device: str = "auto", batch_size: int | None = None, **options: Any) -> Embedder:
    """Open an exported model as an embedder.

    Args:
        folder: with `export.json`.
        device: `auto` or `cpu`.
        batch_size: images at once; None for 32.
        options: other arguments of `resight.load`; each must be None, or what the export has.

    Raises:
        CheckpointError: a file of the folder is corrupt.
        ConfigError: an option differs from the export, or the library that runs it is not installed.
    """
    if device not in ("auto", "cpu"):
        raise ConfigError(f"an exported model runs on the CPU here, not on {device}: leave the device out")
    embedder = ExportedEmbedder(runtime.load(folder), folder, batch_size)
    for name in _FIXED:
        value = options.get(name)
        fixed = getattr(embedder.settings, name, False)
        same = (None, fixed, "auto") if name in ("precision", "fusion") else (None, fixed)
        if value not in same:
            raise ConfigError(
                f"{folder} is an exported model with {name} {fixed}, which cannot become {value} any more: leave it "
                "out, or export the model again"
            )
    return embedder


def _card(stated: ExportMetadata) -> ModelCard:
    """The model card that the metadata of an export amounts to."""
    learned = None if stated.fusion != "learned" else stated.model_fusion
    images = Preprocessing(size=stated.size, test_interpolation=stated.interpolation, scaling=stated.scaling)
    if stated.mean is not None and stated.std is not None:
        images = images.changed(mean=stated.mean, std=stated.std)
    return ModelCard(
        model=Model(backbone=stated.kind, fusion=learned),
        preprocessing=images,
        vocabulary=Vocabulary((), stated.cameras, stated.views, stated.modalities),
        embedding=Embedding(precision="fp32", flip=stated.flip, fusion=stated.fusion),
        weights_sha256=stated.files.get(stated.file),
    )
