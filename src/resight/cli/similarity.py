"""`resight similarity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.parsing import parse, print_json


@dataclass(frozen=True)
class Similarity:
    """Compare two pictures: similarity, and the probability of the same identity where the model is calibrated."""

    first: Positional[Path]
    """A picture."""
    second: Positional[Path]
    """Another picture."""
    model: Path
    """A model folder."""
    cameras: tuple[str, str] | None = None
    """Of the two pictures."""
    modalities: tuple[str, str] | None = None
    """Of the two pictures."""
    prior: float = 0.5
    """Probability, before the comparison, that the two are of one identity."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Embed both and print their similarity."""
    options = parse(Similarity, arguments, "resight similarity")
    from resight.inference.similarity import similarity

    embedder = options.embedding.load(options.model)
    found = similarity(embedder, options.first, options.second, options.cameras, options.modalities, options.prior)
    if options.json:
        print_json(vars(found))
        return
    print(f"similarity {found.similarity:.4f}")
    if found.probability is not None:
        same = "the same identity" if found.known else "not above the threshold"
        print(f"probability of the same identity {100 * found.probability:.1f} %: {same}")
