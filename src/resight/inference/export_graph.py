"""The network of an exported model, and the files that it is written to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.errors import require_extra
from resight.files import file_digest
from resight.inference.embedder import Embedder
from resight.inference.openvino_library import openvino_library

Kind = Literal["onnx", "openvino", "torch-export"]
ResolvedTarget = Literal["avx2", "vnni"]
FILES: Final[dict[str, str]] = {"onnx": "model.onnx", "openvino": "model.xml", "torch-export": "model.pt2"}


class ExportNetwork(nn.Module):
    """The network of an embedder with its preprocessing, from pixels to an embedding, in float32."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.model = embedder.model
        self.flip = embedder.settings.flip
        self.register_buffer("pixel_mean", torch.tensor(embedder.card.preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(embedder.card.preprocessing.std).view(1, 3, 1, 1))

    def forward(
        self, images: Tensor, camera: Tensor, view: Tensor, modality: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """uint8 [B, 3, H, W] and int64 [B] labels, -1 where they are not known, to float32 [B, D] of unit length.

        For a model that fuses modalities, `rows`, int64 [N, M], is the image of each modality of each sighting, or -1
        where it is absent; the result is then [N, E].
        """
        fused = () if rows is None else (rows,)
        x = (images.float() / 255 - self.pixel_mean) / self.pixel_std
        side_info = {"camera": camera, "view": view, "modality": modality}
        embeddings = F.normalize(self.model.embed(x, side_info, *fused))
        if self.flip:
            embeddings = F.normalize(embeddings + F.normalize(self.model.embed(x.flip(-1), side_info, *fused)))
        return embeddings


def write_graph(
    network: ExportNetwork, inputs: dict[str, Tensor], folder: Path, kind: Kind, quantize: Callable[[Path], None] | None
) -> str:
    """Write a network as one file of that kind, quantized where a function for that is given.

    Returns:
        the SHA-256 of the graph: of ONNX, where the file is made from that, since OpenVINO numbers the nodes of a graph
        otherwise each time.
    """
    batch = torch.export.Dim("batch", min=1, max=65_536)
    sightings = torch.export.Dim("sightings", min=1, max=65_536)
    shapes = {name: {0: sightings if name == "rows" else batch} for name in inputs}
    with torch.no_grad():
        program = torch.export.export(network, (), dict(inputs), dynamic_shapes=shapes, strict=False)
    if kind == "torch-export":
        torch.export.save(program, folder / FILES[kind])
    elif kind == "openvino" and quantize is None:
        with openvino_library() as openvino:
            converted = openvino.convert_model(program)
            for model_input, name in zip(converted.inputs, inputs, strict=True):
                model_input.set_names({name})
            openvino.save_model(converted, folder / FILES[kind], compress_to_fp16=False)
    else:
        require_extra("onnxscript", "export")
        graph = folder / FILES["onnx"]
        torch.onnx.export(program, dynamo=True, verbose=False).save(str(graph))  # pyright: ignore[reportOptionalMemberAccess]
        if quantize is not None:
            quantize(graph)
        digest = file_digest(graph)
        if kind == "openvino":
            with openvino_library() as openvino:
                openvino.save_model(openvino.Core().read_model(graph), folder / FILES[kind], compress_to_fp16=False)
            graph.unlink()
        return digest
    return file_digest(folder / FILES[kind])


def quantize_graph(
    file: Path, images: Sequence[Tensor], target: ResolvedTarget, rows: Callable[[int], Mapping[str, np.ndarray]]
) -> None:
    """Quantize the weights of products to int8, per channel, and their inputs to uint8, over the calibrated range.

    Args:
        file: the ONNX file, which is replaced.
        images: uint8 [3, H, W] each, which the range is calibrated on.
        target: the CPUs that it is for.
        rows: the further inputs of a model that fuses modalities, for a number of images.
    """
    quantization = require_extra("onnxruntime.quantization", "export")
    prepared = file.with_name("prepared.onnx")
    preprocess = require_extra("onnxruntime.quantization.shape_inference", "export").quant_pre_process
    preprocess(str(file), str(prepared), skip_symbolic_shape=True)
    unknown = {name: np.full(16, -1, np.int64) for name in ("camera", "view", "modality")}
    more = rows(16)
    batches = ({"images": np.stack(images[n : n + 16]), **unknown, **more} for n in range(0, len(images) - 15, 16))
    quantization.quantize_static(
        str(prepared),
        str(file),
        SimpleNamespace(get_next=lambda: next(batches, None)),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=target == "avx2",  # weights of -64 to 64: a sum of two products, 2 * 255 * 64, fits 16 bits
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QUInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    prepared.unlink()
