"""A model as one file that runs without this library: written, checked against the model, and only then kept."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.embedder import Embedder
from resight.errors import ConfigError, ExportError
from resight.runtime import SHEET, Network, open_onnx, open_openvino
from resight.storage import write_folder

Kind = Literal["onnx", "openvino", "torch-export"]
FILES: Final[dict[str, str]] = {"onnx": "model.onnx", "openvino": "model.xml", "torch-export": "model.pt2"}
NEAR: Final = 0.9999
"""The least cosine to the model in float32, over every picture that is tried."""
NEAR_INT8: Final = 0.995
_BATCHES = (1, 2, 17)


@dataclass(frozen=True)
class Exported:
    """What was kept."""

    folder: Path
    cosine: float
    """The least to the model in float32, over every picture that was tried."""
    tried: int
    """Pictures."""


class Network32(nn.Module):
    """The whole way from pixels to an embedding, in float32.

    Args:
        embedder: holds the model and its preprocessing.
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.model = embedder.model
        shape = (1, 3, 1, 1)
        self.register_buffer("pixel_mean", torch.tensor(embedder.card.pictures.mean).view(shape))
        self.register_buffer("pixel_std", torch.tensor(embedder.card.pictures.std).view(shape))

    def forward(self, pictures: Tensor, camera: Tensor, view: Tensor, modality: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] and int64 [B] labels, -1 where they are not known, to float32 [B, D] of unit length."""
        x = (pictures.float() / 255 - self.pixel_mean) / self.pixel_std
        return F.normalize(self.model.embed(x, {"camera": camera, "view": view, "modality": modality}))


def export(embedder: Embedder, out: Path, kind: Kind, pictures: Sequence[Tensor] = (), int8: bool = False) -> Exported:
    """Writes a folder with the model as one file and `export.json`, checked at batches of 1, 2 and 17.

    Args:
        embedder: of the model, on the CPU, in fp32.
        out: a new folder.
        kind: of file.
        pictures: uint8 [3, H, W] each, of the model's own size, that are tried; and that int8 is fitted to. Noise is
            tried where there are none.
        int8: products in int8, what goes into them scaled as the pictures show.

    Raises:
        ConfigError: the options do not go together, or what writes the file is not installed.
        ExportError: what was written does not give what the model gives; it is not kept.
        StorageError: it cannot be written.
    """
    if embedder.precision != "fp32":
        raise ConfigError(f"an export is checked against float32: load the model with fp32, not {embedder.precision}")
    if int8 and kind == "torch-export":
        raise ConfigError("int8 is for onnx and openvino; torch-export keeps float32")
    if int8 and len(pictures) < 16:
        raise ConfigError(
            f"int8 is fitted to pictures of the kind that will be embedded: give 16 or more, not {len(pictures)}"
        )
    network = Network32(embedder).eval()
    tried = [trial(embedder, size, pictures, seed) for seed, size in enumerate(_BATCHES)]
    found = list[float]()

    def fill(folder: Path) -> None:
        _write(network, tried[1], folder, kind, pictures if int8 else None)
        again = _open(folder / FILES[kind], kind)
        for inputs in tried:
            with torch.inference_mode():
                expected = network(**inputs).numpy()
            got = again({name: x.numpy() for name, x in inputs.items()})
            found.append(float((expected * got).sum(1).min()) if got.shape == expected.shape else -1.0)
        least = NEAR_INT8 if int8 else NEAR
        if not min(found) >= least:  # NaN too
            raise ExportError(
                f"the exported {kind} does not give what the model gives: a cosine of {min(found):.5f}, where "
                f"{least} is asked for; it is not kept"
            )
        (folder / SHEET).write_text(json.dumps(_sheet(embedder, kind, int8, min(found)), indent=2) + "\n")

    write_folder(out, fill)
    return Exported(out, min(found), sum(_BATCHES))


def trial(embedder: Embedder, size: int, pictures: Sequence[Tensor], seed: int) -> dict[str, Tensor]:
    """A batch to try a network with: pictures, or noise, and labels of every kind, unknown ones too."""
    generator = torch.Generator().manual_seed(seed)
    known = embedder.card.vocabulary
    counts = {"camera": len(known.cameras), "view": len(known.views), "modality": len(known.modalities)}
    if pictures:
        x = torch.stack([pictures[(seed + n) % len(pictures)] for n in range(size)])
    else:
        x = torch.randint(0, 256, (size, 3, *embedder.card.pictures.size), generator=generator, dtype=torch.uint8)
    labels = {kind: torch.randint(-1, max(1, n), (size,), generator=generator) for kind, n in counts.items()}
    return {"pictures": x, **labels}


def _write(
    network: Network32, inputs: dict[str, Tensor], folder: Path, kind: Kind, calibration: Sequence[Tensor] | None
) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = {name: {0: batch} for name in inputs}
    with torch.no_grad():
        program = torch.export.export(network, (), dict(inputs), dynamic_shapes=shapes, strict=False)
    if kind == "torch-export":
        torch.export.save(program, folder / FILES[kind])
    elif kind == "openvino" and calibration is None:
        openvino = _needed("openvino")
        converted = openvino.convert_model(program)
        for given, name in zip(converted.inputs, inputs, strict=True):
            given.set_names({name})
        openvino.save_model(converted, str(folder / FILES[kind]), compress_to_fp16=False)
    else:
        _needed("onnxscript")
        file = folder / FILES["onnx"]
        torch.onnx.export(program, dynamo=True, verbose=False).save(str(file))  # pyright: ignore[reportOptionalMemberAccess]
        if calibration is not None:
            _to_int8(file, inputs, calibration)
        if kind == "openvino":
            openvino = _needed("openvino")
            openvino.save_model(
                openvino.Core().read_model(str(file)), str(folder / FILES[kind]), compress_to_fp16=False
            )
            file.unlink()


def _to_int8(file: Path, inputs: dict[str, Tensor], pictures: Sequence[Tensor]) -> None:
    """Products with weights in int8, per channel; what goes into them in uint8, between the least and most seen."""
    quantization = _needed("onnxruntime.quantization")
    prepared = file.with_name("prepared.onnx")
    _needed("onnxruntime.quantization.shape_inference").quant_pre_process(
        str(file), str(prepared), skip_symbolic_shape=True
    )
    batches = [pictures[n : n + 16] for n in range(0, len(pictures) - 15, 16)]

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            unknown = np.full(16, -1, np.int64)
            self.left = iter(
                {"pictures": torch.stack(list(x)).numpy(), **{name: unknown for name in inputs if name != "pictures"}}
                for x in batches
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    quantization.quantize_static(
        str(prepared),
        str(file),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QUInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    prepared.unlink()


def _open(file: Path, kind: Kind) -> Network:
    if kind == "onnx":
        return open_onnx(file, 0)
    if kind == "openvino":
        return open_openvino(file, 0)
    run: Callable[..., Tensor] = torch.export.load(file).module()
    return lambda inputs: run(**{name: torch.from_numpy(x) for name, x in inputs.items()}).detach().numpy()


def _sheet(embedder: Embedder, kind: Kind, int8: bool, cosine: float) -> dict[str, Any]:
    pictures, known = embedder.card.pictures, embedder.card.vocabulary
    return {
        "format": 1,
        "kind": kind,
        "file": FILES[kind],
        "int8": int8,
        "fingerprint": embedder.fingerprint,
        "width": embedder.width,
        "input": "pictures uint8 [B, 3, H, W] in RGB, resized; camera, view, modality int64 [B], -1 where not known",
        "size": list(pictures.size),
        "interpolation": pictures.test_interpolation,
        "cameras": list(known.cameras),
        "views": list(known.views),
        "modalities": list(known.modalities),
        "cosine": cosine,
    }


def _needed(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"exporting needs {module.split('.')[0]}: pip install 'resight[export]'") from error
