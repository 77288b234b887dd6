"""`resight explain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.output import Output, metavar, note, show
from resight.cli.parsing import parse


@dataclass(frozen=True)
class Explain(Output):
    """Draw why two images are similar: where the model looks in each, and the patches that resemble each other."""

    first: Positional[Annotated[Path, metavar("IMAGE")]]
    """An image."""
    second: Positional[Annotated[Path, metavar("IMAGE")]]
    """Another image."""
    model: Annotated[Path, metavar("FOLDER")]
    """A model folder; its backbone must be a vision transformer."""
    out: Annotated[Path, metavar("FILE.png")]
    """The drawing to write."""
    cameras: Annotated[tuple[str, str] | None, metavar("NAME NAME")] = None
    """Cameras of the two images."""
    modalities: Annotated[tuple[str, str] | None, metavar("NAME NAME")] = None
    """Modalities of the two images: rgb (the default), nir or tir."""
    embedding: OmitArgPrefixes[EmbeddingOptions] = field(default_factory=EmbeddingOptions)


def run(arguments: list[str]) -> None:
    """Explain the similarity of both images, write the drawing, and print the pairs of patches."""
    options = parse(Explain, arguments, "resight explain")
    from resight.inference.explain import explain
    from resight.report.explanation import draw_explanation

    embedder = options.embedding.load(options.model)
    explanation = explain(embedder, options.first, options.second, options.cameras, options.modalities)
    draw_explanation(explanation, options.first, options.second, options.out)
    pairs = explanation.pairs()
    document = {
        "comparison": explanation.comparison, "patch_similarity": explanation.patch_similarity, "pairs": pairs,
        "attention": explanation.attention, "maps": explanation.maps, "out": options.out,
    }  # fmt: skip
    lines = [f"similarity {explanation.comparison.similarity:.4f}; of the patches {explanation.patch_similarity:.4f}"]
    lines += [
        f"row {pair.first[0] + 1}, column {pair.first[1] + 1} resembles row {pair.second[0] + 1}, column "
        f"{pair.second[1] + 1}: similarity {pair.similarity:.4f}"
        for pair in pairs
    ]
    show(options, document, *lines)
    note(options, f"drawing: {options.out}")
