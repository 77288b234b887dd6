"""`resight similarity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.parsing import parse, print_json


@dataclass(frozen=True)
class Similarity:
    """Compute the similarity of two images, and the probability of the same identity if the model is calibrated."""

    first: Positional[Path]
    """An image."""
    second: Positional[Path]
    """Another image."""
    model: Path
    """A model folder."""
    cameras: tuple[str, str] | None = None
    """Cameras of the two images."""
    modalities: tuple[str, str] | None = None
    """Modalities of the two images."""
    prior: float = 0.5
    """Probability, before the comparison, that both images show the same identity."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Embed both images, and print their similarity."""
    options = parse(Similarity, arguments, "resight similarity")
    from resight.inference.similarity import similarity

    embedder = options.embedding.load(options.model)
    comparison = similarity(embedder, options.first, options.second, options.cameras, options.modalities, options.prior)
    if options.json:
        print_json(vars(comparison))
        return
    print(f"similarity {comparison.similarity:.4f}")
    if comparison.probability is not None:
        same = "the same identity" if comparison.known else "not above the threshold"
        print(f"probability of the same identity {100 * comparison.probability:.1f} %: {same}")
