"""`resight import-onnx`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from resight.cli.output import Output, metavar, show
from resight.cli.parsing import parse
from resight.config.sections import Interpolation


@dataclass(frozen=True)
class ImportOnnx(Output):
    """Make a model folder of an ONNX file of another program, whose preprocessing the options state.

    The network takes RGB images [B, 3, H, W] in float32 and gives embeddings [B, D].
    """

    file: Positional[Annotated[Path, metavar("FILE.onnx")]]
    """The ONNX file."""
    out: Annotated[Path, metavar("FOLDER")]
    """Folder to write; must not exist."""
    mean: tuple[float, float, float]
    """Mean of each channel that was taken off in training, for values in [0, 1]; ImageNet's is 0.485 0.456 0.406."""
    std: tuple[float, float, float]
    """Standard deviation of each channel, for values in [0, 1]; ImageNet's is 0.229 0.224 0.225."""
    size: tuple[int, int] | None = None
    """Height and width of the images in pixels, where the file does not state them."""
    interpolation: Interpolation = "bilinear"
    """Interpolation of resizing."""


def run(arguments: list[str]) -> None:
    """Import, and print the width and the id of the embeddings."""
    options = parse(ImportOnnx, arguments, "resight import-onnx")
    from resight.inference.import_onnx import import_onnx

    model = import_onnx(options.file, options.out, options.mean, options.std, options.size, options.interpolation)
    height, width = model.metadata.size
    show(
        options,
        {"folder": options.out, "width": model.width, "embedding_id": model.embedding_id, "size": (height, width)},
        f"{options.out}: images of {height}x{width}, embeddings of {model.width} numbers, id {model.embedding_id}",
    )
