"""Embedding options, which override the model card."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from resight.cli.output import metavar
from resight.config.scaling import Scaling, ScalingRule
from resight.errors import ConfigError

if TYPE_CHECKING:
    from resight.inference.embedder import Embedder


@dataclass(frozen=True)
class EmbeddingOptions:
    """Settings of the embedding; `card` takes the value of the model card."""

    flip: Literal["card", "on", "off"] = "card"
    """Average the embeddings of an image and its mirror image."""
    fusion: Literal["card", "concat", "mean"] = "card"
    """How the embeddings of a sighting's modalities are combined."""
    unknown: Literal["card", "mean", "off"] = "card"
    """Side information for an unknown camera or view: the mean of the learned embeddings, or none."""
    precision: Literal["card", "auto", "fp32", "bf16", "fp16"] = "card"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""
    scaling: Scaling = field(default_factory=dict[str, ScalingRule])
    """How images of 16 or 32 bits or of floating-point numbers become 8 bits, by modality (or `default`), instead of
    the rules of the model card: percentiles of each image, or limits in its units."""
    batch_size: Annotated[int | None, metavar("NUMBER")] = None
    """Number of images in a batch."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto`."""

    def given(self) -> dict[str, Any]:  # words: ok
        """Return the arguments of `resight.load`; None for a value of the model card.

        Raises:
            ConfigError: the batch size is less than 1.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"--batch-size must be 1 or more, not {self.batch_size}")
        arguments: dict[str, Any] = {"device": self.device, "batch_size": self.batch_size}
        arguments["scaling"] = self.scaling or None
        arguments |= {"flip": {"card": None, "on": True, "off": False}[self.flip]}
        for name in ("fusion", "unknown", "precision"):
            value = getattr(self, name)
            arguments[name] = None if value == "card" else value
        return arguments

    def load(self, folder: Path) -> Embedder:
        """Load the model of a folder with these options."""
        from resight.inference.load import load

        return load(folder, **self.given())
