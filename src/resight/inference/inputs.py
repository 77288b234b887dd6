"""What a user hands in, as rows of images: a picture is a sighting of one modality, a sighting has a row per modality.

Imports no torch: models in torch and exported ones take their inputs here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from resight.data.sightings import Sighting, SightingTable
from resight.errors import ConfigError

Label = str | None
UNKNOWN: Final = -1
"""The number of a label that is missing, or was not in training."""


@dataclass(frozen=True)
class Inputs:
    """R images of N sightings, the images of one sighting in consecutive rows."""

    images: list[Any]
    """R pictures: paths, encoded bytes, arrays, tensors or Pillow images."""
    sighting: np.ndarray
    """int64 [R]: the sighting of each row, ascending."""
    modality: list[Label]
    """R names."""
    camera: list[Label]
    view: list[Label]
    count: int
    """N."""

    def batches(self, batch_size: int) -> Iterator[slice]:
        """Slices of rows: whole sightings, at most `batch_size` rows (or one sighting that has more)."""
        ends = np.searchsorted(self.sighting, np.arange(self.count), side="right")  # row after each sighting
        start = previous = 0
        for end in ends.tolist():
            if end - start > batch_size and previous > start:
                yield slice(start, previous)
                start = previous
            previous = end
        if previous > start:
            yield slice(start, previous)

    def rows(self, part: slice, modality: np.ndarray, size: int) -> tuple[int, np.ndarray]:
        """The images of the sightings of a batch of whole sightings.

        Args:
            part: of the rows of images.
            modality: int64 [R], of all images.
            size: M, modalities of the model.

        Returns:
            the first sighting, and int64 [n, M]: for each sighting the image of each modality, counted in the batch, or
            `UNKNOWN`. An image of unknown modality takes the first place that is free.
        """
        first = int(self.sighting[part.start])
        rows = np.full((int(self.sighting[part.stop - 1]) + 1 - first, size), UNKNOWN)
        slots = modality[part].tolist()
        for image, (sighting, slot) in enumerate(zip((self.sighting[part] - first).tolist(), slots, strict=True)):
            rows[sighting, slot if slot >= 0 else int((rows[sighting] < 0).argmax())] = image
        return first, rows

    def subsets(self, modalities: Sequence[str]) -> list[str | None]:
        """The modalities of each sighting, such as `rgb+tir`, in a model's order; None where one is unknown."""
        names: list[set[Label]] = [set() for _ in range(self.count)]
        for sighting, modality in zip(self.sighting.tolist(), self.modality, strict=True):
            names[sighting].add(modality)
        return [None if None in each else "+".join(name for name in modalities if name in each) for each in names]

    def numbers(self, cameras: Sequence[str], views: Sequence[str], modalities: Sequence[str]) -> dict[str, np.ndarray]:
        """int64 [R] by kind of side information: the place of each label in a model's names, `UNKNOWN` without one."""
        return {
            "camera": _numbers(self.camera, cameras),
            "view": _numbers(self.view, views),
            "modality": _numbers(self.modality, modalities),
        }


def as_inputs(
    images: Any, camera: Label | Sequence[Label], view: Label | Sequence[Label], modality: Label | Sequence[Label],
    modalities: Sequence[str],
) -> Inputs:  # fmt: skip
    """Take one picture or sighting, a list of either, or a `SightingTable`.

    Args:
        images: what to embed; a sighting may also be a dictionary of pictures by modality.
        camera: of all, or of each; None takes it from a sighting, and is unknown for a picture.
        view: likewise.
        modality: likewise, of pictures; None is `rgb` where the model knows that.
        modalities: the model's.

    Raises:
        ConfigError: labels and pictures differ in number, a label is no text, the model does not know a modality, or
            a sighting has none.
    """
    items: list[Any] = list(images) if isinstance(images, SightingTable | list | tuple) else [images]
    count = len(items)
    cameras, views, names = (
        per_item(kind, labels, count) for kind, labels in (("camera", camera), ("view", view), ("modality", modality))
    )
    default = "rgb" if "rgb" in modalities else modalities[0] if len(modalities) == 1 else None
    rows: list[tuple[Any, int, Label, Label, Label]] = []
    for n, item in enumerate(items):
        if isinstance(item, Sighting | Mapping):
            sighting = item if isinstance(item, Sighting) else Sighting(item)
            if not isinstance(sighting.images, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError(f"sighting {n} has images that are no dictionary by modality")
            if names[n] is not None:
                raise ConfigError("a sighting names the modality of each of its pictures; give modality= for pictures")
            if not sighting.images:
                raise ConfigError(f"sighting {n} has no picture")
            labels = (cameras[n] or _label("camera", sighting.camera), views[n] or _label("view", sighting.view))
            rows += [(image, n, name, *labels) for name, image in sighting.images.items()]
        else:
            rows.append((item, n, names[n] or default, cameras[n], views[n]))
    unknown = [row[2] for row in rows if row[2] is not None and row[2] not in modalities]
    if unknown:
        raise ConfigError(f"the model knows no modality {unknown[0]!r:.60}, only {', '.join(modalities)}")
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], [], [], []]
    return Inputs(columns[0], np.array(columns[1], np.int64), columns[2], columns[3], columns[4], count)


def fuse(rows: np.ndarray, sighting: np.ndarray, modality: np.ndarray, count: int, size: int, how: str) -> np.ndarray:
    """Fuse the embeddings of each sighting's modalities.

    Args:
        rows: float32 [R, D] of unit length.
        sighting: int64 [R], from 0 to N - 1.
        modality: int64 [R], from 0 to M - 1; `UNKNOWN` is possible in a mean.
        count: N.
        size: M, modalities of the model.
        how: `concat`, which leaves zeros where a modality is absent, or `mean`.

    Returns:
        float32 [N, M D] for `concat`, else [N, D], of unit length.

    Raises:
        ConfigError: a modality is unknown, which `concat` has no place for.
    """
    width = rows.shape[1]
    if how == "concat":
        if size > 1 and (modality < 0).any():
            raise ConfigError("embeddings of several modalities are concatenated: name each picture's modality")
        fused = np.zeros((count, size, width), np.float32)
        fused[sighting, np.maximum(modality, 0)] = rows
        fused = fused.reshape(count, size * width)
    else:
        fused = np.zeros((count, width), np.float32)
        np.add.at(fused, sighting, rows)
    return fused / np.maximum(np.linalg.norm(fused, axis=1, keepdims=True), np.float32(1e-12))


def per_item(kind: str, labels: Label | Sequence[Label], count: int) -> list[Label]:
    """Return a label for each of `count` pictures, from one for all or one for each.

    Raises:
        ConfigError: there are more or fewer labels, or one is neither a text nor None.
    """
    if labels is None or isinstance(labels, str):
        return [labels] * count
    if not isinstance(labels, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        _label(kind, labels)
    each = [_label(kind, label) for label in labels]
    if len(each) != count:
        raise ConfigError(f"{len(each)} labels of {kind} are given for {count} pictures")
    return each


def _label(kind: str, label: Any) -> Label:
    if label is None or isinstance(label, str):
        return label
    raise ConfigError(f"a {kind} is a text, or None where it is unknown, not {label!r:.60}")


def _numbers(labels: Sequence[Label], known: Sequence[str]) -> np.ndarray:
    number = {label: n for n, label in enumerate(known)}
    return np.array([UNKNOWN if label is None else number.get(label, UNKNOWN) for label in labels], np.int64)
