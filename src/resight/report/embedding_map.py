"""A map of a gallery: its embeddings in two dimensions (UMAP), where near points are similar sightings."""

import hashlib
import heapq
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib.figure
import numpy as np

from resight.errors import ConfigError, require_extra
from resight.files import make_folder, write_file
from resight.gallery.engines.contract import Engine
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.gallery.values import require_count

Colour = Literal["identity", "camera"]
MIN_RECORDS: Final = 5
"""Fewer points have no neighborhoods to draw."""
PALETTE: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a08a00", "#7b4fb3")
"""Of the labels with the most points; distinct for colour-blind readers too (after Okabe and Ito 2008)."""
_OTHER: Final = "#8a919c"
_NEIGHBORS: Final = 15
_PROGRESS_EVERY: Final = 500  # records


@dataclass(frozen=True)
class EmbeddingMap:
    """Records of a gallery, and where each is on the map."""

    records: list[Record]
    positions: np.ndarray
    """float32 [N, 2], from 0 to 1; both axes have the same scale."""
    total: int
    """Records of the gallery, of which `records` are a sample where there are more."""


def embedding_map(
    gallery: Gallery,
    max_records: int = 2000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> EmbeddingMap:
    """Lay out the embeddings of a gallery in two dimensions, so that neighbors stay neighbors (UMAP, McInnes et al.
    2018, with the cosine distance).

    Distances between groups that are far apart mean nothing.

    Args:
        gallery: an open gallery.
        max_records: of a larger gallery, so many are drawn: a sample that does not depend on the order of its records.
        seed: of the layout.
        progress: called with the number of records read so far.

    Raises:
        ConfigError: umap-learn is not installed, or there are fewer than 5 records.
    """
    require_extra("umap", "map")
    records, total = sample_records(gallery.engine, max_records, progress)
    return EmbeddingMap(records, project(np.stack([record.vector for record in records]), seed), total)


def sample_records(
    engine: Engine, max_records: int, progress: Callable[[int], None] = lambda count: None
) -> tuple[list[Record], int]:
    """Return at most so many records, those whose ids have the lowest hashes, by id; and the number of all.

    Raises:
        ConfigError: there are fewer than 5 records, or fewer than that are wanted.
    """
    if require_count(max_records, "the number of sightings on a map") < MIN_RECORDS:
        raise ConfigError(f"a map needs at least {MIN_RECORDS} sightings, not {max_records}")
    lowest: list[tuple[int, str, Record]] = []  # a heap, with the highest hash first
    total = 0
    for total, record in enumerate(engine.scan(), start=1):
        digest = hashlib.sha256(record.id.encode("utf-8", "surrogatepass")).digest()
        entry = (-int.from_bytes(digest[:8]), record.id, record)
        if len(lowest) < max_records:
            heapq.heappush(lowest, entry)
        elif entry[0] > lowest[0][0]:
            heapq.heapreplace(lowest, entry)
        if total % _PROGRESS_EVERY == 0:
            progress(total)
    if total < MIN_RECORDS:
        raise ConfigError(f"a map needs at least {MIN_RECORDS} sightings, and the gallery has {total}")
    progress(total)
    return sorted((record for _, _, record in lowest), key=lambda record: record.id), total


def project(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Lay out embeddings, float32 [N, E] of unit length, in two dimensions: float32 [N, 2], from 0 to 1.

    Raises:
        ConfigError: umap-learn is not installed.
    """
    umap = require_extra("umap", "map")
    neighbors = min(_NEIGHBORS, len(vectors) - 1)
    start = "spectral" if len(vectors) > 2 * _NEIGHBORS else "random"  # few points have no spectral layout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap-learn warns of what it does about duplicates and disconnected points
        layout = umap.UMAP(
            n_neighbors=neighbors, min_dist=0.15, metric="cosine", random_state=seed, n_jobs=1, init=start
        ).fit_transform(vectors)
    layout = np.nan_to_num(np.asarray(layout, np.float32))
    low = layout.min(0)
    extent = max(float((layout.max(0) - low).max()), 1e-6)
    centred = (1 - (layout.max(0) - low) / extent) / 2  # the shorter axis is centred
    return (layout - low) / extent + centred


def colours_of(labels: Sequence[str | None]) -> dict[str, str]:
    """Return the colour of each label: those with the most points have one of their own, the others share grey."""
    counts = Counter(label for label in labels if label is not None)
    ordered = sorted(counts, key=lambda label: (-counts[label], label))
    return {label: PALETTE[n] if n < len(PALETTE) else _OTHER for n, label in enumerate(ordered)}


def draw_map(drawn: EmbeddingMap, path: Path, colour: Colour = "identity") -> None:
    """Draw a map; points without a label are hollow.

    Args:
        drawn: the map.
        path: of the PNG.
        colour: what gives a point its colour.

    Raises:
        StorageError: the file cannot be written.
    """
    labels: list[str | None] = [getattr(record, colour) for record in drawn.records]
    colours = colours_of(labels)
    named = [label for label, value in colours.items() if value != _OTHER]
    nameless = "unassigned" if colour == "identity" else "no camera"
    groups = [label if label in named else nameless if label is None else "others" for label in labels]
    figure = matplotlib.figure.Figure(figsize=(8, 6.4), layout="constrained")
    axes: Any = figure.subplots()
    for name in (*named, "others", nameless):
        points = drawn.positions[[n for n, group in enumerate(groups) if group == name]]
        if len(points):
            edge = colours.get(name, _OTHER)
            inside = "none" if name == nameless else edge
            axes.scatter(points[:, 0], 1 - points[:, 1], 16, inside, edgecolors=edge, label=name)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.legend(title=colour, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.set_title(f"{len(drawn.records):,} of {drawn.total:,} sightings: near points are similar", fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    make_folder(path.parent)
    write_file(path, buffer.getvalue())
