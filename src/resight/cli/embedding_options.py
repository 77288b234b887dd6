"""The options of every verb that embeds: they override the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from resight.inference.embedder import Embedder


@dataclass(frozen=True)
class EmbeddingOptions:
    """How the model embeds; `card` is as its card says."""

    flip: Literal["card", "on", "off"] = "card"
    """Whether an embedding is the mean over the picture and its mirror image."""
    fusion: Literal["card", "concat", "mean"] = "card"
    """How the embeddings of a sighting's modalities become one."""
    unknown: Literal["card", "mean", "off"] = "card"
    """The side information of pictures whose camera or view is unknown: the mean of what was learned, or none."""
    precision: Literal["card", "auto", "fp32", "bf16", "fp16"] = "card"
    """Arithmetic of the matrix products; `auto` is measured on this machine."""
    batch_size: int | None = None
    """Images embedded at once."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto`."""

    def given(self) -> dict[str, Any]:
        """The arguments of `resight.load` that are not left to the card."""
        given: dict[str, Any] = {"device": self.device, "batch_size": self.batch_size}
        given |= {"flip": {"card": None, "on": True, "off": False}[self.flip]}
        for name in ("fusion", "unknown", "precision"):
            value = getattr(self, name)
            given[name] = None if value == "card" else value
        return given

    def load(self, folder: Path) -> Embedder:
        """The model of a folder, with these options."""
        from resight.inference.embedder import load

        return load(folder, **self.given())
