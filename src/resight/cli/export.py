"""`resight export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from resight.cli.parsing import parse

_TARGET_HELP = (
    "The CPUs that --int8 is for. avx2 is for CPUs without VNNI: it costs one bit of the weights, and its files run on "
    "all newer CPUs too. vnni uses all 8 bits, which lose accuracy on CPUs without VNNI. this is vnni where this "
    "machine has VNNI, else avx2; it is what --int8 alone means."
)


@dataclass(frozen=True)
class Export:
    """Write a model as one file that runs without this library, checked against the model before it is stored."""

    model: Positional[Path]
    """A model's folder."""
    to: Literal["onnx", "openvino", "torch-export"]
    """What runs it."""
    out: Path
    """The folder to write; must not exist."""
    int8: bool = False
    """Products in int8 (onnx, openvino), calibrated on --images."""
    target: Annotated[Literal["this", "avx2", "vnni"] | None, tyro.conf.arg(help=_TARGET_HELP)] = None
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATHS")] = ()
    """Picture files, folders or tables like those to embed: the check uses them."""
    max_images: int = 256
    """At most so many of them, evenly sampled."""


def run(arguments: list[str]) -> None:
    """Write and check the file, and print its smallest cosine to the model."""
    options = parse(Export, arguments, "resight export")
    from resight.data.readers.anything import read_images, sample_images
    from resight.inference.export import check_options, export

    check_options(options.to, options.int8, options.target)
    images = sample_images(read_images(list(options.images)), options.max_images) if options.images else []
    result = export(options.model, options.out, options.to, images, options.int8, options.target)
    target = f"int8 for the target {result.target}, " if result.target else ""
    cosine = f"cosine to the model in float32 {result.cosine:.6f} at the least, over {result.tried} pictures"
    print(f"{result.folder}: {target}{cosine}, checked on this machine's CPU ({result.checked_on})")
