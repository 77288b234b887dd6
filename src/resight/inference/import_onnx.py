"""An ONNX file of another program, with its preprocessing stated, as a model like any other. Imports no torch."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

import numpy as np

from resight.config.sections import Interpolation, Preprocessing
from resight.errors import CheckpointError, ConfigError
from resight.files import file_digest, write_folder
from resight.inference.foreign import Graph, as_network, open_graph
from resight.inference.runtime import METADATA, ExportMetadata, Runtime, load

_FILE: Final = "model.onnx"


def import_onnx(
    file: str | Path,
    out: str | Path,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    size: tuple[int, int] | None = None,
    interpolation: Interpolation = "bilinear",
) -> Runtime:
    """Write a folder with an ONNX file of another program and its preprocessing, and open it.

    The graph takes RGB images, float32 [B, 3, H, W], divided by 255, the mean taken off, divided by the standard
    deviation; and gives embeddings, float32 [B, D], which get unit length. `resight.load` and every command that
    takes a model take the folder. Its `embedding_id` is a hash of the file and of the preprocessing.

    Args:
        file: the ONNX file, with its weights inside.
        out: a new folder.
        mean: of each channel, for values in [0, 1].
        std: of each channel, for values in [0, 1].
        size: height and width of the images in pixels; None where the graph states them.
        interpolation: of resizing.

    Raises:
        CheckpointError: the graph cannot be opened, or has another form; nothing is written.
        ConfigError: the folder exists, a value is out of range, or the size is not known or not the graph's.
        StorageError: the folder cannot be written.

    Example:
        `import_onnx("osnet.onnx", "osnet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))`
    """
    source, folder = Path(file), Path(out)
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists already and is not written over; use another folder")
    if not source.is_file():
        raise CheckpointError(f"there is no file {source}")
    graph = open_graph(source)
    images = Preprocessing().changed(
        size=_size_of(graph, size, source), mean=mean, std=std, test_interpolation=interpolation
    )
    row_width = _try(graph, images, source)

    def fill(partial: Path) -> None:
        shutil.copyfile(source, partial / _FILE)
        digest = file_digest(partial / _FILE)
        metadata = ExportMetadata(
            kind="onnx",
            file=_FILE,
            files={_FILE: digest},
            embedding_id=_embedding_id(digest, images),
            row_width=row_width,
            size=images.size,
            interpolation=images.test_interpolation,
            mean=images.mean,
            std=images.std,
        )
        (partial / METADATA).write_text(metadata.model_dump_json(indent=2) + "\n")
        open_graph(partial / _FILE)  # a file whose weights are in another file works only beside that

    write_folder(folder, fill)
    return load(folder)


def _size_of(graph: Graph, stated: tuple[int, int] | None, source: Path) -> tuple[int, int]:
    size = stated or graph.size
    if size is None:
        raise ConfigError(f"{source} takes images of any size: state the height and width it was trained with (size)")
    if graph.size not in (None, size):
        raise ConfigError(
            f"{source} takes images of {graph.size[0]}x{graph.size[1]} pixels, not {size[0]}x{size[1]}: leave size out"
        )
    return size


def _try(graph: Graph, images: Preprocessing, source: Path) -> int:
    """Embed two images of noise; return D."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *images.size), np.uint8)
    try:
        rows = as_network(graph, images.mean, images.std)({"images": pixels})
    except Exception as error:  # onnxruntime has an exception for each kind of failure
        reason = " ".join(str(error).split())[:200]
        height, width = images.size
        raise CheckpointError(f"{source} fails on two images of {height}x{width} pixels: {reason}") from error
    if rows.ndim != 2 or len(rows) != 2 or rows.shape[1] == 0:
        raise CheckpointError(f"{source} must give embeddings [B, D], and gives {list(rows.shape)} for two images")
    if not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise CheckpointError(f"{source} gives embeddings of noise that are zero, infinite or NaN")
    return rows.shape[1]


def _embedding_id(digest: str, images: Preprocessing) -> str:
    """16 hexadecimal digits of a hash of the file and the preprocessing."""
    facts = ["onnx", digest, images.size, images.mean, images.std, images.test_interpolation]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
