"""Embedding with an exported model, by onnxruntime or OpenVINO. Nothing here imports torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from resight.config.document import Document, require_intact
from resight.config.scaling import Scaling, ScalingRule, rule_of
from resight.config.sections import Interpolation, LearnedFusion
from resight.data.decode import ArrayPicture, as_array
from resight.errors import CheckpointError, ConfigError, require_extra
from resight.inference.foreign import Network, as_network, open_graph
from resight.inference.inputs import Label, as_inputs, fuse
from resight.inference.openvino_library import openvino_library

METADATA: Final = "export.json"
_AGAIN: Final = "export the model again with this version"
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BATCH = 32


class ExportMetadata(Document):
    """What `export.json` states of an exported model."""

    kind: Literal["onnx", "openvino", "torch-export"]
    file: str
    """The name of the file that is opened."""
    files: dict[str, str] = Field(default={})
    """SHA-256 of every file of the export, by name: an OpenVINO export has its weights in a second file."""
    int8: bool = False
    target: Literal["avx2", "vnni"] | None = None
    """The CPUs that int8 is for."""
    embedding_id: str
    """Of the embedder in float32; an int8 export has its own."""
    row_width: int = Field(ge=1)
    """D, numbers of one image's embedding, or of a sighting's where the graph fuses modalities."""
    flip: bool = False
    """Whether the graph averages over the mirror image."""
    fusion: Literal["auto", "concat", "mean", "learned"] = "concat"
    """Of the modalities of a sighting; `learned`: the graph fuses them, and has the input `rows`, int64 [N, M]: the
    image of each modality of each sighting, or -1 where it is absent."""
    model_fusion: LearnedFusion | None = None
    """How the graph fuses them; None where it does not."""
    size: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float] | None = None
    """Mean of each channel, for values in [0, 1], of a graph that another program wrote (`import_onnx`). None: the
    graph is of `resight export`, and takes uint8 images and labels."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of each channel, likewise."""
    scaling: Scaling = Field(default={})
    """By modality, how one channel of more than 8 bits becomes 8."""
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
        slots, size = numbers["modality"], len(stated.modalities)
        vectors = [np.zeros((0, stated.row_width), np.float32)]
        for part in inputs.batches(_BATCH):
            labelled = zip(inputs.images[part], inputs.modality[part], strict=True)
            rules = ((image, rule_of(stated.scaling, name)) for image, name in labelled)
            pixels = np.stack([prepare(image, stated.size, stated.interpolation, rule) for image, rule in rules])
            network_inputs = {"images": pixels, **{kind: labels[part] for kind, labels in numbers.items()}}
            if stated.fusion == "learned":
                network_inputs["rows"] = inputs.rows(part, slots, size)[1]
            vectors.append(self.network(network_inputs))
        joined = np.concatenate(vectors)
        if stated.fusion == "learned":
            return joined
        return fuse(joined, inputs.sighting, slots, inputs.count, size, stated.fusion)


def load(folder: str | Path, threads: int = 0) -> Runtime:
    """Open what `resight export` or `resight import-onnx` wrote.

    Args:
        folder: with `export.json`.
        threads: that work on one batch; 0 for as many as the machine has.

    Raises:
        CheckpointError: it is no such folder, of another format, or corrupt.
        ConfigError: the library that runs it is not installed.
    """
    path = Path(folder)
    try:
        metadata = ExportMetadata.read(path / METADATA, "an exported model", _AGAIN)
    except OSError as error:
        raise CheckpointError(
            f"{path} is no exported model: it has no readable {METADATA} ({error.strerror})"
        ) from error
    if metadata.kind not in _OPENERS:
        raise ConfigError(f"{path} is of the kind {metadata.kind!r}, which is opened with torch.export.load, not here")
    if metadata.file not in metadata.files:
        raise CheckpointError(f"{path / METADATA} states no SHA-256 of {metadata.file}: {_AGAIN}")
    require_intact(path, metadata.files, METADATA, _AGAIN)
    if metadata.mean is not None and metadata.std is not None:
        graph = open_graph(path / metadata.file, threads)
        return Runtime(metadata, as_network(graph, metadata.mean, metadata.std))
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
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    with openvino_library() as openvino:
        core = openvino.Core()
        try:
            network = core.compile_model(core.read_model(str(file)), "CPU", settings)
        except Exception as error:
            raise CheckpointError(f"{file} is corrupt: {error}") from error
    names = [node.get_any_name() for node in network.inputs]
    return lambda inputs: np.array(network({name: inputs[name] for name in names})[0])


_OPENERS: Final[dict[str, Callable[[Path, int], Network]]] = {"onnx": open_onnx, "openvino": open_openvino}


def prepare(
    picture: ArrayPicture, size: Sequence[int], interpolation: str, rule: ScalingRule | None = None
) -> np.ndarray:
    """A picture of any form as uint8 [3, H, W]; `rule` says how one channel of more than 8 bits becomes 8.

    Raises:
        PictureError: it cannot be decoded, or is of another form.
    """
    height, width = size
    resized = Image.fromarray(as_array(picture, rule)).resize((width, height), _FILTERS[interpolation])
    return np.asarray(resized).transpose(2, 0, 1)
