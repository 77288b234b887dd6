"""Sightings with their embeddings, in memory and on disk.

A folder holds `query/` and `gallery/` (or `query/` alone, where it is searched as well), each with `embeddings.npy`,
float32 or float16 [N, E], and `sightings.parquet`, a table of the same N rows; and `about.json`. The arrays are memory-
mapped, so that a gallery need not fit in memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resight.data.sightings import SightingTable
from resight.errors import DatasetError, EvaluationError
from resight.files import write_folder

_VECTORS, _TABLE, _ABOUT = "embeddings.npy", "sightings.parquet", "about.json"


@dataclass(frozen=True)
class Embedded:
    """Sightings and their embeddings."""

    vectors: np.ndarray
    """float32 or float16 [N, E], of unit length; may be memory-mapped."""
    sightings: SightingTable
    """N of them."""


def is_embeddings(folder: Path) -> bool:
    """Whether a folder looks like one that `save` wrote."""
    return (folder / "query" / _VECTORS).exists()


def save(folder: Path, query: Embedded, gallery: Embedded, about: dict[str, Any], half: bool = False) -> None:
    """Writes a folder of embeddings, whole or not at all.

    Args:
        folder: new.
        query: what asks.
        gallery: what is searched; where it is `query`, it is written once.
        about: what should be known of it: the data set, its protocol, the model.
        half: write float16 instead of float32.

    Raises:
        StorageError: it cannot be written.
    """

    def fill(target: Path) -> None:
        for name, items in (("query", query), ("gallery", gallery)):
            if name == "query" or gallery is not query:
                (target / name).mkdir()
                np.save(target / name / _VECTORS, items.vectors.astype(np.float16 if half else np.float32))
                items.sightings.write(target / name / _TABLE)
        (target / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")

    write_folder(folder, fill)


def load(folder: Path) -> tuple[Embedded, Embedded, dict[str, Any]]:
    """Query, gallery and what is known of them; the arrays are memory-mapped.

    Raises:
        DatasetError: the folder is not one of embeddings, or vectors and sightings do not go together.
        EvaluationError: the embeddings have not unit length.
    """
    if not is_embeddings(folder):
        raise DatasetError(f"{folder} is no folder of embeddings: it has no query/{_VECTORS}")
    query = _read(folder / "query")
    gallery = _read(folder / "gallery") if (folder / "gallery").exists() else query
    if query.vectors.shape[1] != gallery.vectors.shape[1]:
        raise DatasetError(
            f"{folder}: query embeddings have {query.vectors.shape[1]} numbers and those of the gallery "
            f"{gallery.vectors.shape[1]}; they are of two models"
        )
    try:
        about = json.loads((folder / _ABOUT).read_text()) if (folder / _ABOUT).exists() else {}
    except ValueError as error:
        raise DatasetError(f"{folder / _ABOUT} is no JSON: {error}") from error
    return query, gallery, about


def _read(folder: Path) -> Embedded:
    path = folder / _VECTORS
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as an array: {error}") from error
    if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.float16):
        raise DatasetError(f"{path} is {vectors.dtype} {list(vectors.shape)}; it must be float32 or float16 [N, E]")
    sightings = SightingTable.read(folder / _TABLE)
    if len(sightings) != len(vectors):
        raise DatasetError(f"{folder}: {len(vectors)} embeddings and {len(sightings)} sightings; each needs the other")
    length = np.linalg.norm(np.asarray(vectors[:4096], np.float32), axis=1)
    wrong = np.flatnonzero(~(np.abs(length - 1) < 0.01))
    if len(wrong):
        raise EvaluationError(
            f"{path} row {wrong[0]} has length {length[wrong[0]]:.3g}; embeddings are compared by their inner product "
            "and must have length 1: divide each row by its Euclidean norm"
        )
    return Embedded(vectors, sightings)
