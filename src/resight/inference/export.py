"""A model as one file that runs without this library: written, and checked against the model before it is stored."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, cast

import numpy as np
import torch
from torch import Tensor

from resight.config.scaling import rule_of
from resight.data.image import Picture, as_tensor, resize
from resight.data.subsets import all_subsets
from resight.device import processor_kind
from resight.errors import ConfigError, ExportError
from resight.files import file_digest, write_folder
from resight.inference.embedder import Embedder
from resight.inference.export_graph import FILES, ExportNetwork, Kind, ResolvedTarget, quantize_graph, write_graph
from resight.inference.load import load
from resight.inference.runtime import METADATA, ExportMetadata, Network, Runtime, open_onnx, open_openvino

Target = Literal["this", "avx2", "vnni"]
"""The CPUs that int8 is for: `avx2` limits weights to 7 bits, since CPUs without VNNI add pairs of 8-bit products in 16
bits, which saturate; `vnni` uses 8 bits; `this` is `vnni` where this machine has it, else `avx2`."""
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


def has_vnni() -> bool:
    """Whether this CPU, within the limit in ONEDNN_MAX_CPU_ISA, adds up 8-bit products without saturating in 16 bits:
    VNNI on x86, the dot product on ARM."""
    has = torch.cpu.get_capabilities()
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() in ("SSE41", "AVX", "AVX2", "AVX512_CORE"):
        return False
    return any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


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
    known, scaling = embedder.card.vocabulary.modalities, embedder.scaling
    names = [name for name in known if rule_of(scaling, name)] or known  # of those that decode every image
    resized = [resize(as_tensor(image, rule_of(scaling, names[0])), size, interpolation) for image in images]
    trials = [trial(embedder, count, resized, seed) for seed, count in enumerate(_BATCHES)]
    more = partial(_fused_inputs, embedder)
    quantize = None if target is None else partial(quantize_graph, images=resized, target=target, rows=more)
    results = list[Exported]()

    def fill(folder: Path) -> None:
        graph_digest = write_graph(network, trials[1], folder, kind, quantize)
        exported = _open(folder / FILES[kind], kind)
        files = {file.name: file_digest(file) for file in sorted(folder.iterdir())}
        metadata = _metadata(embedder, kind, target, graph_digest, files)
        cosines, tried = [_min_cosine(network, exported, trials)], sum(_BATCHES)
        if images and kind != "torch-export":
            sample = list(images[:: max(1, len(images) // _BATCHES[-1])][: _BATCHES[-1]])
            arrays = [x.permute(1, 2, 0).numpy() if isinstance(x, Tensor) else x for x in sample]  # no torch there
            products = Runtime(metadata, exported).embed(_sightings(embedder, arrays, names))
            products *= embedder.embed(_sightings(embedder, sample, names))
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


def _sightings(embedder: Embedder, images: Sequence[Picture], decodable: Sequence[str]) -> list[dict[str, Picture]]:
    """Make sightings of the images, as many as there are, each with another subset of the `decodable` modalities."""
    subsets = _subsets(embedder)
    subsets = [names for names in subsets if set(names) <= set(decodable)] or subsets
    return [
        {name: images[(n + m) % len(images)] for m, name in enumerate(subsets[n % len(subsets)])}
        for n in range(len(images))
    ]


def _subsets(embedder: Embedder) -> list[list[str]]:
    """The subsets of the model's modalities."""
    return [name.split("+") for name in all_subsets(embedder.card.vocabulary.modalities)]


def _fused_inputs(embedder: Embedder, count: int) -> dict[str, np.ndarray]:
    """The further input of a network that fuses modalities: sightings of `count` images, every subset in turn."""
    if embedder.fusion != "learned":
        return {}
    modalities, subsets = embedder.card.vocabulary.modalities, _subsets(embedder)
    rows = np.full((count, len(modalities)), -1, np.int64)
    for n in range(count):
        for m, name in enumerate(subsets[n % len(subsets)]):
            rows[n, modalities.index(name)] = (n + m) % count
    return {"rows": rows}


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
    more = {name: torch.from_numpy(rows) for name, rows in _fused_inputs(embedder, size).items()}
    return {"images": x, **labels, **more}


def _open(file: Path, kind: Kind) -> Network:
    if kind == "onnx":
        return open_onnx(file, 0)
    if kind == "openvino":
        return open_openvino(file, 0)
    run: Callable[..., Tensor] = torch.export.load(file).module()
    return lambda inputs: run(**{name: torch.from_numpy(x) for name, x in inputs.items()}).detach().numpy()


def _metadata(
    embedder: Embedder, kind: Kind, target: ResolvedTarget | None, graph_digest: str, files: dict[str, str]
) -> ExportMetadata:
    images, known = embedder.card.preprocessing, embedder.card.vocabulary
    export_id = embedder.embedding_id
    if target is not None:  # the range of the inputs, which the images decide, is in the graph
        facts = json.dumps([export_id, kind, "int8", target, graph_digest])
        export_id = hashlib.sha256(facts.encode()).hexdigest()[:16]
    return ExportMetadata(
        kind=kind,
        file=FILES[kind],
        files=files,
        int8=target is not None,
        target=target,
        embedding_id=export_id,
        row_width=embedder.width if embedder.fusion == "learned" else embedder.model.width,
        model_fusion=embedder.card.model.fusion if embedder.fusion == "learned" else None,
        flip=embedder.settings.flip,
        fusion=embedder.fusion,
        size=images.size,
        interpolation=images.test_interpolation,
        scaling=embedder.scaling,
        cameras=known.cameras,
        views=known.views,
        modalities=known.modalities,
    )
