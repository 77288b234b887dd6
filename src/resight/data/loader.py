"""Batches of images, with their labels as numbers.

B sightings, M modalities, H x W pixels, R images that are present.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from resight.config.scaling import Scaling, ScalingRule, rule_of
from resight.config.sections import Interpolation
from resight.data.cache import pack
from resight.data.image import decode, resize
from resight.data.sightings import SightingTable
from resight.data.threads import preparing_threads
from resight.data.vocabulary import Vocabulary, label_numbers
from resight.errors import DatasetError

_AHEAD = 3  # batches decoded in advance


@dataclass(frozen=True)
class Batch:
    """The images and labels of B sightings. Labels are numbers of the vocabulary, or `UNKNOWN`."""

    images: Tensor
    """uint8 [B, M, 3, H, W]; zeros where a modality is absent."""
    present: Tensor
    """bool [B, M]."""
    identity: Tensor
    """int64 [B]."""
    camera: Tensor
    """int64 [B]."""
    view: Tensor
    """int64 [B]."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))

    def side_info(self) -> dict[str, Tensor]:
        """Return labels of the R images that are present, in row-major order: int64 [R] for each kind of label."""
        rows, modality = self.present.nonzero(as_tuple=True)
        return {"camera": self.camera[rows], "view": self.view[rows], "modality": modality}

    def rows(self) -> Tensor:
        """Return the position of each image among the R that are present, int64 [B, M]; -1 where one is absent."""
        return number_rows(self.present)


def number_rows(present: Tensor) -> Tensor:
    """Number the images that are present, in row-major order: int64 [B, M] of bool [B, M]; -1 where one is absent."""
    return (present.flatten().cumsum(0) - 1).view(present.shape).masked_fill(~present, -1)


class Loader:
    """Makes batches of a table's rows, decoding ahead in background threads.

    Args:
        table: of sightings.
        vocabulary: numbers of labels, and the order of modalities.
        size: height H and width W of the images in a batch, in pixels.
        interpolation: of resizing.
        scaling: by modality, how one channel of more than 8 bits becomes 8; None refuses such images.

    Raises:
        DatasetError: a sighting has no image in any of the vocabulary's modalities.
    """

    def __init__(
        self,
        table: SightingTable,
        vocabulary: Vocabulary,
        size: tuple[int, int],
        interpolation: Interpolation,
        scaling: Scaling | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.size = size
        self.interpolation: Interpolation = interpolation
        self.rules: list[ScalingRule | None] = [rule_of(scaling or {}, m) for m in vocabulary.modalities]
        self.packed: Tensor | None = None
        self.pinned = False
        """Whether batches are in pinned memory, from which a GPU copies them while training continues."""
        self.paths: list[list[str | None]] = [
            [row[m] for m in vocabulary.modalities] for row in table.arrow.to_pylist()
        ]
        empty = next((row for row, paths in enumerate(self.paths) if not any(paths)), None)
        if empty is not None:
            raise DatasetError(
                f"sighting {empty} has only {', '.join(table[empty].images)}, and the model was trained on "
                f"{', '.join(vocabulary.modalities)}"
            )
        self.place = _positions(self.paths)
        self.identity = label_numbers(table.column("identity"), vocabulary.identities)
        self.camera = label_numbers(table.column("camera"), vocabulary.cameras)
        self.view = label_numbers(table.column("view"), vocabulary.views)

    def pack(self, progress: Callable[[int], None] = lambda count: None) -> None:
        """Decode and resize every image once, into the cache, instead of whenever a batch needs it.

        Args:
            progress: called with the number of images decoded so far.

        Raises:
            PictureError: an image cannot be decoded.
            StorageError: the cache cannot be written.
        """
        rules = [rule for row in self.paths for path, rule in zip(row, self.rules, strict=True) if path is not None]
        self.packed = pack(self.files, self.size, self.interpolation, progress, rules)  # uint8 [F, 3, H, W]

    @property
    def files(self) -> list[Path]:
        """The F image files, row by row."""
        return [Path(path) for paths in self.paths for path in paths if path is not None]

    def batches(self, rows: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Iterate over one batch for each list of rows, in their order.

        Args:
            rows: for each batch the B rows of the table.

        Raises:
            PictureError: an image cannot be decoded.
        """
        lists = iter(rows)
        with preparing_threads(1) as pool:
            pending: list[Future[Batch]] = [pool.submit(self._batch, r) for r in islice(lists, _AHEAD)]
            try:
                while pending:
                    yield pending.pop(0).result()
                    pending += [pool.submit(self._batch, r) for r in islice(lists, 1)]
            finally:
                for future in pending:
                    future.cancel()

    def _batch(self, rows: Sequence[int]) -> Batch:
        index = torch.tensor(rows, dtype=torch.int64)
        position = self.place[index]  # [B, M]
        present = position >= 0
        if self.packed is not None:
            images = self.packed.index_select(0, position.flatten().clamp_min(0)).unflatten(0, position.shape)
            images[~present] = 0  # [B, M, 3, H, W]
        else:
            images = torch.zeros((*position.shape, 3, *self.size), dtype=torch.uint8)
            for b, m in present.nonzero().tolist():
                image = decode(Path(str(self.paths[rows[b]][m])), rule=self.rules[m])
                images[b, m] = resize(image, self.size, self.interpolation)
        batch = Batch(images, present, self.identity[index], self.camera[index], self.view[index])
        return Batch(*(t.pin_memory() for t in vars(batch).values())) if self.pinned else batch


def _positions(paths: Sequence[Sequence[str | None]]) -> Tensor:
    """int64 [N, M]: the position of each image in the row-by-row list of all files; -1 where there is no image."""
    present = torch.tensor([[path is not None for path in row] for row in paths], dtype=torch.bool)
    return number_rows(present.view(len(paths), -1))
