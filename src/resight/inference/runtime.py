"""Embedding with an exported model, by onnxruntime or OpenVINO. Nothing here imports torch."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from resight.config.sections import Section
from resight.errors import CheckpointError, ConfigError, PictureError, require_extra
from resight.inference.inputs import Label, as_inputs, fuse

METADATA: Final = "export.json"
FORMAT: Final = 2
Picture = str | Path | bytes | np.ndarray | Image.Image
"""A file, what a file holds, uint8 [h, w, 3] in RGB, or a picture of Pillow's."""
Network = Callable[[dict[str, np.ndarray]], np.ndarray]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BATCH = 32


class ExportMetadata(Section):
    """What `export.json` states of an exported model."""

    format: int = FORMAT
    kind: str
    file: str
    sha256: str | None = None
    """Of the file."""
    int8: bool = False
    target: str | None = None
    """The CPUs that int8 is for."""
    embedding_id: str
    """Of the embedder in float32; an int8 export has its own."""
    row_width: int
    """D, numbers of one image's embedding."""
    flip: bool = False
    """Whether the graph averages over the mirror image."""
    fusion: str = "concat"
    size: tuple[int, int]
    interpolation: str
    cameras: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ("rgb",)
    cosine: float | None = None
    """The smallest to the model in float32, when it was exported."""
    checked_on: str | None = None
    """The kind of CPU of that check."""


@dataclass(frozen=True)
class Runtime:
    """An exported model, ready to embed."""

    metadata: ExportMetadata
    network: Network

    @property
    def width(self) -> int:
        """E, numbers of an embedding."""
        sizes = len(self.metadata.modalities) if self.metadata.fusion == "concat" else 1
        return self.metadata.row_width * sizes

    @property
    def embedding_id(self) -> str:
        """Embeddings of one id can be compared."""
        return self.metadata.embedding_id

    def embed(
        self,
        images: Any,
        camera: Label | Sequence[Label] = None,
        view: Label | Sequence[Label] = None,
        modality: Label | Sequence[Label] = None,
    ) -> np.ndarray:
        """Embed pictures or sightings, as `resight.inference.embedder.Embedder.embed` does.

        Returns:
            float32 [N, E] of unit length.

        Raises:
            PictureError: a picture cannot be decoded.
            ConfigError: labels and pictures differ in number, or a modality is not one of the model's.
        """
        stated = self.metadata
        inputs = as_inputs(images, camera, view, modality, stated.modalities)
        numbers = inputs.numbers(stated.cameras, stated.views, stated.modalities)
        rows = [np.zeros((0, stated.row_width), np.float32)]
        for part in inputs.batches(_BATCH):
            pixels = np.stack([prepare(image, stated.size, stated.interpolation) for image in inputs.images[part]])
            rows.append(self.network({"images": pixels, **{kind: labels[part] for kind, labels in numbers.items()}}))
        modality_numbers, size = numbers["modality"], len(stated.modalities)
        return fuse(np.concatenate(rows), inputs.sighting, modality_numbers, inputs.count, size, stated.fusion)


def load(folder: str | Path, threads: int = 0) -> Runtime:
    """Open what `resight export` wrote.

    Args:
        folder: with `export.json`.
        threads: that work on one batch; 0 for as many as the machine has.

    Raises:
        CheckpointError: it is no such folder, of another format, or corrupt.
        ConfigError: the library that runs it is not installed.
    """
    path = Path(folder)
    try:
        stated = json.loads((path / METADATA).read_text())
        number = stated.get("format")
        if isinstance(number, int) and number != FORMAT:
            raise CheckpointError(
                f"{path / METADATA} has format {number}, and this version of resight reads {FORMAT}: export the model "
                "again"
            )
        metadata = ExportMetadata.model_validate(stated)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is no exported model: it has no readable {METADATA} ({error})") from error
    if metadata.kind not in _OPENERS:
        raise ConfigError(f"{path} is of the kind {metadata.kind!r}, which is opened with torch.export.load, not here")
    return Runtime(metadata, _OPENERS[metadata.kind](path / metadata.file, threads))


def open_onnx(file: Path, threads: int) -> Network:
    """A network in onnxruntime."""
    onnxruntime = require_extra("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
    except Exception as error:
        raise CheckpointError(f"{file} is corrupt: {error}") from error
    names = [node.name for node in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})[0]


def open_openvino(file: Path, threads: int) -> Network:
    """A network in OpenVINO, in float32 where it was not exported otherwise."""
    openvino = require_extra("openvino", "export")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    try:
        network = core.compile_model(core.read_model(str(file)), "CPU", settings)
    except Exception as error:
        raise CheckpointError(f"{file} is corrupt: {error}") from error
    names = [node.get_any_name() for node in network.inputs]
    return lambda inputs: np.array(network({name: inputs[name] for name in names})[0])


_OPENERS: Final[dict[str, Callable[[Path, int], Network]]] = {"onnx": open_onnx, "openvino": open_openvino}


def prepare(picture: Picture, size: Sequence[int], interpolation: str) -> np.ndarray:
    """A picture of any form as uint8 [3, H, W].

    Raises:
        PictureError: it cannot be decoded, or is of another form.
    """
    height, width = size
    resized = _image(picture).resize((width, height), _FILTERS[interpolation])
    return np.asarray(resized).transpose(2, 0, 1)


def _image(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise PictureError(f"an array must be uint8 [h, w, 3] in RGB, not {picture.dtype} {list(picture.shape)}")
        return Image.fromarray(picture)
    if not isinstance(picture, str | Path | bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PictureError(
            f"a picture is a file, its bytes, an array or a picture of Pillow's, not {type(picture).__name__}"
        )
    name = "the picture" if isinstance(picture, bytes) else str(picture)
    try:
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror}") from error
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", strict=True))
    except ValueError as error:
        if "premature" in str(error).lower():
            raise PictureError(f"{name} is cut short ({len(data)} bytes)") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, EOFError, SyntaxError, ValueError) as error:
        raise PictureError(f"{name} is no picture that can be read ({error})") from error
