"""A network in an ONNX file that another program wrote: normalized images in, embeddings out. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resight.errors import CheckpointError, require_extra

Network = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Graph:
    """A network in onnxruntime that takes float32 [B, 3, H, W] and gives float32 [B, D]."""

    session: Any
    name: str
    """Of the input."""
    size: tuple[int, int] | None
    """H and W in pixels; None where the graph takes any."""
    single: bool
    """Whether it takes only one image at a time."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Compute the outputs, float32 [B, D], of normalized images, float32 [B, 3, H, W]."""
        batches = np.split(images, len(images)) if self.single else [images]
        return np.concatenate([self.session.run(None, {self.name: batch})[0] for batch in batches])


def open_graph(file: Path, threads: int = 0) -> Graph:
    """Open an ONNX file and check the form of its input and output.

    Raises:
        CheckpointError: it cannot be read, does not take [B, 3, H, W] in float32, or gives something else than one
            output [B, D].
        ConfigError: onnxruntime is not installed.
    """
    onnxruntime = require_extra("onnxruntime", "export")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors: warnings are about graphs that still work
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} is no ONNX file that onnxruntime can open: {reason}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not _takes_images(inputs[0]):
        listed = ", ".join(f"{node.name} {_form(node)}" for node in inputs)
        raise CheckpointError(f"{file} must have one input, images float32 [B, 3, H, W], and its inputs are: {listed}")
    if len(outputs) != 1 or not _gives_rows(outputs[0]):
        listed = ", ".join(f"{node.name} {_form(node)}" for node in outputs)
        raise CheckpointError(f"{file} must have one output, embeddings float32 [B, D], and its outputs are: {listed}")
    batch, _, height, width = inputs[0].shape
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Graph(session, inputs[0].name, size, single=batch == 1)


def as_network(graph: Graph, mean: Sequence[float], std: Sequence[float]) -> Network:
    """A network with the inputs and the output of an exported model.

    Its input `images` are uint8 [B, 3, H, W], which are divided by 255 and normalized, or float32, normalized already;
    labels are ignored. Its output has unit length.

    Args:
        graph: of the ONNX file.
        mean: of each channel, for values in [0, 1].
        std: of each channel, for values in [0, 1].
    """
    means, deviations = (np.array(values, np.float32).reshape(3, 1, 1) for values in (mean, std))

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        images = inputs["images"]
        if images.dtype == np.uint8:
            images = (images.astype(np.float32) / np.float32(255) - means) / deviations
        rows = graph(images)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))

    return run


def _takes_images(node: Any) -> bool:
    """Whether an input is float32 [B, 3, H, W], with any B, or with a B of 1; a size that varies has a name or None."""
    if node.type != "tensor(float)" or len(node.shape) != 4:
        return False
    batch, channels, *_ = node.shape
    return (batch == 1 or not isinstance(batch, int)) and (channels == 3 or not isinstance(channels, int))


def _gives_rows(node: Any) -> bool:
    """Whether an output is float32 [B, D]."""
    return node.type == "tensor(float)" and len(node.shape) == 2


def _form(node: Any) -> str:
    shape = ", ".join("?" if number is None else str(number) for number in node.shape)
    return f"{node.type.removeprefix('tensor(').removesuffix(')')} [{shape}]"
