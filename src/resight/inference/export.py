"""A model as one file that runs without this library: written, and checked against the model before it is stored."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resight.data.image import Picture, as_tensor, resize
from resight.device import has_vnni, processor_kind
from resight.errors import ConfigError, ExportError
from resight.files import write_folder
from resight.inference.embedder import Embedder, load
from resight.inference.runtime import METADATA, ExportMetadata, Network, Runtime, open_onnx, open_openvino

Kind = Literal["onnx", "openvino", "torch-export"]
ResolvedTarget = Literal["avx2", "vnni"]
Target = Literal["this", "avx2", "vnni"]
"""The CPUs that int8 is for: `avx2` limits weights to 7 bits, since CPUs without VNNI add pairs of 8-bit products in 16
bits, which saturate; `vnni` uses 8 bits; `this` is `vnni` where this machine has it, else `avx2`."""
FILES: Final[dict[str, str]] = {"onnx": "model.onnx", "openvino": "model.xml", "torch-export": "model.pt2"}
MIN_COSINE: Final = 0.9999
"""The smallest cosine to the model in float32 that is accepted, over every picture that is tried."""
MIN_COSINE_INT8: Final = 0.995
_BATCHES = (1, 2, 17)


@dataclass(frozen=True)
class Exported:
    """What was written, and the check that it passed."""

    folder: Path
    cosine: float
    """The smallest to the model in float32, over every picture that was tried."""
    tried: int
    """Pictures."""
    target: ResolvedTarget | None
    """The CPUs that int8 is for; None without int8."""
    checked_on: str
    """The kind of CPU: see `resight.device.processor_kind`."""


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

    def forward(self, images: Tensor, camera: Tensor, view: Tensor, modality: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] and int64 [B] labels, -1 where they are not known, to float32 [B, D] of unit length."""
        x = (images.float() / 255 - self.pixel_mean) / self.pixel_std
        side_info = {"camera": camera, "view": view, "modality": modality}
        embeddings = F.normalize(self.model.embed(x, side_info))
        if self.flip:
            embeddings = F.normalize(embeddings + F.normalize(self.model.embed(x.flip(-1), side_info)))
        return embeddings


def export(
    model: Embedder | str | Path,
    out: str | Path,
    kind: Kind,
    images: Sequence[Picture] = (),
    int8: bool = False,
    target: Target | None = None,
) -> Exported:
    """Write a folder with the model as one file and `export.json`, checked on this machine.

    The check compares embeddings of the file and of the model: at batches of 1, 2 and 17, with labels of every kind,
    and of up to 17 of the images from their files, each with its own decoding and resizing.

    Args:
        model: an embedder on the CPU in fp32, or a model folder.
        out: a new folder.
        kind: of file.
        images: pictures of any form like those to embed, to try and to calibrate int8 on; noise is tried without any.
        int8: products in int8; the range of their inputs is taken from the images.
        target: the CPUs that int8 is for; None is `this`.

    Raises:
        ConfigError: the options exclude each other, or a library that writes the file is not installed.
        ExportError: the embeddings of the file differ from those of the model; nothing is written.
        StorageError: the folder cannot be written.
    """
    check_options(kind, int8, target)
    embedder = model if isinstance(model, Embedder) else load(model, "cpu", "fp32")
    precision = embedder.compute.precision
    if precision != "fp32":
        raise ConfigError(f"an export is checked against float32: load the model with fp32, not {precision}")
    if int8 and len(images) < 16:
        raise ConfigError(f"int8 is calibrated on pictures like those to embed: give 16 or more, not {len(images)}")
    if int8 and target in ("this", None):
        target = "vnni" if has_vnni() else "avx2"
    return _write_checked(embedder, Path(out), kind, images, cast("ResolvedTarget | None", target))


def check_options(kind: Kind, int8: bool, target: Target | None) -> None:
    """Raise a ConfigError where options exclude each other; this needs neither a model nor pictures."""
    if target is not None and not int8:
        raise ConfigError(f"the target {target} is for int8: add --int8, or leave --target out")
    if int8 and kind == "torch-export":
        raise ConfigError("int8 is for onnx and openvino; torch-export keeps float32")


def _write_checked(
    embedder: Embedder, out: Path, kind: Kind, images: Sequence[Picture], target: ResolvedTarget | None
) -> Exported:
    network = ExportNetwork(embedder)
    size, interpolation = embedder.card.preprocessing.size, embedder.card.preprocessing.test_interpolation
    resized = [resize(as_tensor(image), size, interpolation) for image in images]
    trials = [trial(embedder, count, resized, seed) for seed, count in enumerate(_BATCHES)]
    quantize = None if target is None else partial(_to_int8, images=resized, target=target)
    results = list[Exported]()

    def fill(folder: Path) -> None:
        _write(network, trials[1], folder, kind, quantize)
        exported = _open(folder / FILES[kind], kind)
        metadata = _metadata(embedder, kind, target, (folder / FILES[kind]).read_bytes())
        cosines, tried = [_min_cosine(network, exported, trials)], sum(_BATCHES)
        if images and kind != "torch-export":
            sample = list(images[:: max(1, len(images) // _BATCHES[-1])][: _BATCHES[-1]])
            names = embedder.card.vocabulary.modalities
            modality = [names[n % len(names)] for n in range(len(sample))]  # any will do for a comparison
            arrays = [x.permute(1, 2, 0).numpy() if isinstance(x, Tensor) else x for x in sample]  # no torch there
            products = Runtime(metadata, exported).embed(arrays, modality=modality)
            products *= embedder.embed(sample, modality=modality)
            cosines.append(float(products.sum(1).min()))
            tried += len(sample)
        cosine = float(np.min(cosines))  # of numpy, since Python's min can pass over NaN
        limit = MIN_COSINE if target is None else MIN_COSINE_INT8
        if not cosine >= limit:  # NaN too
            raise ExportError(_parity_error(kind, target, cosine, limit))
        results.append(Exported(out, cosine, tried, target, processor_kind()))
        metadata = metadata.model_copy(update={"cosine": cosine, "checked_on": processor_kind()})
        (folder / METADATA).write_text(metadata.model_dump_json(indent=2) + "\n")

    with embedder.evaluation_mode():
        network.eval()
        write_folder(out, fill)
    return results[0]


def _min_cosine(network: ExportNetwork, exported: Network, trials: Sequence[dict[str, Tensor]]) -> float:
    cosines = [-1.0] * len(trials)
    for n, inputs in enumerate(trials):
        with torch.inference_mode():
            expected = network(**inputs).numpy()
        embeddings = exported({name: x.numpy() for name, x in inputs.items()})
        if embeddings.shape == expected.shape:
            cosines[n] = float((expected * embeddings).sum(1).min())
    return float(np.min(cosines))  # of numpy, since Python's min can pass over NaN


def _parity_error(kind: Kind, target: ResolvedTarget | None, cosine: float, limit: float) -> str:
    advice = "another kind of file (--to)" if target is None else "more --images, or an export without --int8"
    if target == "vnni" and not has_vnni():
        advice = f"--target avx2 (this CPU has no VNNI, so products with weights of 8 bits saturate), {advice}"
    if target == "avx2" and has_vnni():
        advice = f"--target vnni (if every CPU that will run the file has VNNI), {advice}"
    precision = "in float32" if target is None else f"in int8 for the target {target}"
    return (
        f"the exported {kind} {precision} has a cosine of {cosine:.5f} to the model on this machine's CPU "
        f"({processor_kind()}), where {limit} is required, so nothing is written: try {advice}"
    )


def trial(embedder: Embedder, size: int, images: Sequence[Tensor], seed: int) -> dict[str, Tensor]:
    """A batch to try a network with: pictures, or noise, and labels of every kind, unknown ones too."""
    generator = torch.Generator().manual_seed(seed)
    known = embedder.card.vocabulary
    counts = {"camera": len(known.cameras), "view": len(known.views), "modality": len(known.modalities)}
    if images:
        x = torch.stack([images[(seed + n) % len(images)] for n in range(size)])
    else:
        x = torch.randint(0, 256, (size, 3, *embedder.card.preprocessing.size), generator=generator, dtype=torch.uint8)
    labels = {kind: torch.randint(-1, max(1, n), (size,), generator=generator) for kind, n in counts.items()}
    return {"images": x, **labels}


def _write(
    network: ExportNetwork, inputs: dict[str, Tensor], folder: Path, kind: Kind, quantize: Callable[[Path], None] | None
) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = {name: {0: batch} for name in inputs}
    with torch.no_grad():
        program = torch.export.export(network, (), dict(inputs), dynamic_shapes=shapes, strict=False)
    openvino = _needed("openvino") if kind == "openvino" else None
    if kind == "torch-export":
        torch.export.save(program, folder / FILES[kind])
    elif openvino and quantize is None:
        converted = openvino.convert_model(program)
        for model_input, name in zip(converted.inputs, inputs, strict=True):
            model_input.set_names({name})
        openvino.save_model(converted, folder / FILES[kind], compress_to_fp16=False)
    else:
        _needed("onnxscript")
        graph = folder / FILES["onnx"]
        torch.onnx.export(program, dynamo=True, verbose=False).save(str(graph))  # pyright: ignore[reportOptionalMemberAccess]
        if quantize is not None:
            quantize(graph)
        if openvino:
            openvino.save_model(openvino.Core().read_model(graph), folder / FILES[kind], compress_to_fp16=False)
            graph.unlink()


def _to_int8(file: Path, images: Sequence[Tensor], target: ResolvedTarget) -> None:
    """Quantize the weights of products to int8, per channel, and their inputs to uint8, over the calibrated range."""
    quantization = _needed("onnxruntime.quantization")
    prepared = file.with_name("prepared.onnx")
    preprocess = _needed("onnxruntime.quantization.shape_inference").quant_pre_process
    preprocess(str(file), str(prepared), skip_symbolic_shape=True)
    unknown = {name: np.full(16, -1, np.int64) for name in ("camera", "view", "modality")}
    batches = ({"images": np.stack(images[n : n + 16]), **unknown} for n in range(0, len(images) - 15, 16))
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


def _open(file: Path, kind: Kind) -> Network:
    if kind == "onnx":
        return open_onnx(file, 0)
    if kind == "openvino":
        return open_openvino(file, 0)
    run: Callable[..., Tensor] = torch.export.load(file).module()
    return lambda inputs: run(**{name: torch.from_numpy(x) for name, x in inputs.items()}).detach().numpy()


def _metadata(embedder: Embedder, kind: Kind, target: ResolvedTarget | None, file: bytes) -> ExportMetadata:
    images, known = embedder.card.preprocessing, embedder.card.vocabulary
    export_id = embedder.embedding_id
    if target is not None:
        export_id = hashlib.sha256(f"{export_id} {kind} int8 {target}".encode()).hexdigest()[:16]
    return ExportMetadata(
        kind=kind,
        file=FILES[kind],
        sha256=hashlib.sha256(file).hexdigest(),
        int8=target is not None,
        target=target,
        embedding_id=export_id,
        row_width=embedder.model.width,
        flip=embedder.settings.flip,
        fusion=embedder.fusion,
        size=images.size,
        interpolation=images.test_interpolation,
        cameras=known.cameras,
        views=known.views,
        modalities=known.modalities,
    )


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"exporting needs {module.split('.')[0]}: pip install 'resight[export]'") from error
