"""`resight similarity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.output import Output, metavar, show
from resight.cli.parsing import parse


@dataclass(frozen=True)
class Similarity(Output):
    """Compute the similarity of two images, and the probability of the same identity if the model is calibrated."""

    first: Positional[Annotated[Path, metavar("IMAGE")]]
    """An image."""
    second: Positional[Annotated[Path, metavar("IMAGE")]]
    """Another image."""
    model: Annotated[Path, metavar("FOLDER")]
    """A model folder."""
    cameras: Annotated[tuple[str, str] | None, metavar("NAME NAME")] = None
    """Cameras of the two images."""
    modalities: Annotated[tuple[str, str] | None, metavar("NAME NAME")] = None
    """Modalities of the two images: rgb (the default), nir or tir."""
    prior: float = 0.5
    """Probability, before the comparison, that both images show the same identity; from 0 to 1."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)


def run(arguments: list[str]) -> None:
    """Embed both images, and print their similarity."""
    options = parse(Similarity, arguments, "resight similarity")
    from resight.inference.similarity import similarity
    from resight.progress import percent

    embedder = options.embedding.load(options.model)
    comparison = similarity(embedder, options.first, options.second, options.cameras, options.modalities, options.prior)
    lines = [f"similarity {comparison.similarity:.4f}"]
    if comparison.probability is not None:
        answer = "at or above the threshold" if comparison.known else "below the threshold"
        lines.append(f"probability of the same identity {percent(comparison.probability)}; the similarity is {answer}")
    show(options, comparison, *lines)
