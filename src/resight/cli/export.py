"""`resight export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from resight.cli.output import Output, metavar, show
from resight.cli.parsing import parse

_TARGET_HELP = (
    "CPUs to export int8 for. avx2 has 7-bit weights and is accurate on every CPU with AVX2. vnni has 8-bit weights "
    "and loses accuracy on CPUs without VNNI. this, the default of --int8, is vnni if this machine has VNNI, else avx2."
)


@dataclass(frozen=True)
class Export(Output):
    """Export a model to a file that runs without this library, and check its embeddings against the model's."""

    model: Positional[Annotated[Path, metavar("MODEL")]]
    """A model folder."""
    to: Literal["onnx", "openvino", "torch-export"]
    """Format of the exported model."""
    out: Annotated[Path, metavar("FOLDER")]
    """Folder to write; must not exist."""
    int8: bool = False
    """Quantize matrix products to int8 (onnx, openvino), calibrated on --images."""
    target: Annotated[Literal["this", "avx2", "vnni"] | None, tyro.conf.arg(help=_TARGET_HELP)] = None
    images: Annotated[tuple[Path, ...], metavar("PATH ...")] = ()
    """Image files, folders or tables, similar to those that will be embedded, for calibration and the check."""
    max_images: int = 256
    """Maximum number of images, evenly sampled."""


def run(arguments: list[str]) -> None:
    """Export, check, and print the lowest cosine similarity between exported and original embeddings."""
    options = parse(Export, arguments, "resight export")
    from resight.data.readers.anything import read_images, sample_images
    from resight.inference.export import check_options, export
    from resight.progress import counted

    check_options(options.to, options.int8, options.target)
    images = sample_images(read_images(list(options.images)), options.max_images) if options.images else []
    result = export(options.model, options.out, options.to, images, options.int8, options.target)
    target = f"int8 for the target {result.target}, " if result.target else ""
    cosine = f"cosine to the model in float32 at least {result.cosine:.6f}, over {counted(result.tried, 'image')}"
    show(
        options,
        result,
        f"{result.folder}: {target}{cosine}, checked on this machine's CPU ({result.checked_on})",
    )
