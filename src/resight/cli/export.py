"""`resight export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from resight.cli.parsing import parse


@dataclass(frozen=True)
class Export:
    """Write a model as one file that runs without this library, checked against the model before it is kept."""

    model: Positional[Path]
    """A model's folder."""
    to: Literal["onnx", "openvino", "torch-export"]
    """What runs it."""
    out: Path
    """The folder to write; must not exist."""
    int8: bool = False
    """Products in int8 (onnx, openvino), fitted to --pictures."""
    pictures: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATHS")] = ()
    """Picture files, folders or tables, of the kind that will be embedded: what is written is tried with them."""
    most: int = 256
    """At most so many of them, evenly taken."""


def run(arguments: list[str]) -> None:
    """Writes, checks, and says how near it came."""
    options = parse(Export, arguments, "resight export")
    from resight.datasets.anything import read_anything
    from resight.embedder import load
    from resight.export import export
    from resight.loading.pictures import decode, resize

    embedder = load(options.model, "cpu", "fp32")
    pictures = list[Path]()
    if options.pictures:
        pictures = [next(iter(sighting.pictures.values())) for sighting in read_anything(options.pictures)]
        pictures = pictures[:: max(1, len(pictures) // options.most)][: options.most]
    size, interpolation = embedder.card.pictures.size, embedder.card.pictures.test_interpolation
    held = [resize(decode(path), size, interpolation) for path in pictures]
    done = export(embedder, options.out, options.to, held, options.int8)
    print(f"{done.folder}: cosine to the model in float32 {done.cosine:.6f} at the least, over {done.tried} pictures")
