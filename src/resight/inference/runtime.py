"""Embedding from an exported model, by onnxruntime or OpenVINO. Nothing here imports torch."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from resight.errors import CheckpointError, ConfigError, PictureError

SHEET: Final = "export.json"
Picture = str | Path | bytes | np.ndarray | Image.Image
"""A file, what a file holds, uint8 [h, w, 3] in RGB, or a picture of Pillow's."""
Label = str | None
Network = Callable[[dict[str, np.ndarray]], np.ndarray]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BATCH = 32


@dataclass(frozen=True)
class Runtime:
    """An exported model, ready to embed."""

    sheet: dict[str, Any]
    """Its `export.json`: `fingerprint` of the model it was made of, `width`, `size`, labels, and how near it came."""
    network: Network

    @property
    def width(self) -> int:
        """D, numbers of an embedding."""
        return int(self.sheet["width"])

    @property
    def fingerprint(self) -> str:
        """Of the model that was exported: galleries take its embeddings as that one's."""
        return str(self.sheet["fingerprint"])

    def embed(
        self,
        images: Picture | Sequence[Picture],
        camera: Label | Sequence[Label] = None,
        view: Label | Sequence[Label] = None,
        modality: Label | Sequence[Label] = None,
    ) -> np.ndarray:
        """Embeds one picture or many, as `resight.inference.embedder.Embedder.embed` does.

        Returns:
            float32 [B, D] of unit length.

        Raises:
            PictureError: one cannot be decoded.
            ConfigError: there are more or fewer labels than pictures.
        """
        one = isinstance(images, str | Path | bytes | np.ndarray | Image.Image)
        held: Sequence[Picture] = [images] if one else images  # pyright: ignore[reportAssignmentType]
        modality = "rgb" if modality is None and "rgb" in self.sheet["modalities"] else modality
        given = {"camera": camera, "view": view, "modality": modality}
        labels = {kind: _numbers(kind, value, self.sheet[_LISTS[kind]], len(held)) for kind, value in given.items()}
        found = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(held), _BATCH):
            part = slice(start, start + _BATCH)
            x = np.stack([prepare(picture, self.sheet["size"], self.sheet["interpolation"]) for picture in held[part]])
            found.append(self.network({"images": x, **{kind: numbers[part] for kind, numbers in labels.items()}}))
        return np.concatenate(found)


_LISTS: Final = {"camera": "cameras", "view": "views", "modality": "modalities"}


def load(folder: str | Path, threads: int = 0) -> Runtime:
    """Opens what `resight export` wrote.

    Args:
        folder: with `export.json`.
        threads: that work on one batch; 0 for as many as the machine has.

    Raises:
        CheckpointError: it is no such folder, or is damaged.
        ConfigError: what runs it is not installed.
    """
    path = Path(folder)
    try:
        sheet = json.loads((path / SHEET).read_text())
        kind, file = sheet["kind"], path / sheet["file"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no exported model: it has no readable {SHEET} ({error})") from error
    if kind not in _OPENERS:
        raise ConfigError(f"{path} is of the kind {kind!r}, which is opened with torch.export.load, not here")
    return Runtime(sheet, _OPENERS[kind](file, threads))


def open_onnx(file: Path, threads: int) -> Network:
    """A network in onnxruntime."""
    onnxruntime = _needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=onnxruntime.get_available_providers())
    except Exception as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    names = [given.name for given in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})[0]


def open_openvino(file: Path, threads: int) -> Network:
    """A network in OpenVINO, in float32 where it was not exported otherwise."""
    openvino = _needed("openvino")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    try:
        network = core.compile_model(core.read_model(str(file)), "CPU", settings)
    except Exception as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    names = [given.get_any_name() for given in network.inputs]
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
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise PictureError(f"an array must be uint8 [h, w, 3] in RGB, not {picture.dtype} {list(picture.shape)}")
        return Image.fromarray(picture)
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


def _numbers(kind: str, labels: Label | Sequence[Label], known: Sequence[str], count: int) -> np.ndarray:
    """int64 [B]: labels as numbers, -1 where they are not known."""
    each = [labels] * count if labels is None or isinstance(labels, str) else list(labels)
    if len(each) != count:
        raise ConfigError(f"{len(each)} labels of {kind} are given for {count} pictures")
    number = {label: n for n, label in enumerate(known)}
    return np.array([-1 if label is None else number.get(label, -1) for label in each], np.int64)


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"an exported model needs {module}: pip install {module}") from error
