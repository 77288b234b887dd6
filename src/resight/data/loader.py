"""What the model is fed: pictures with their labels as numbers.

B sightings, M modalities, H x W pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from resight.config.sections import Interpolation
from resight.data.cache import pack
from resight.data.image import decode, resize
from resight.data.sightings import SightingTable
from resight.data.vocabulary import Vocabulary, label_numbers
from resight.errors import DatasetError

_AHEAD = 3  # batches decoded in advance


@dataclass(frozen=True)
class Batch:
    """Some sightings. Label numbers follow the vocabulary; `UNKNOWN` where there is none."""

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
        """The same batch on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))

    def side_info(self) -> dict[str, Tensor]:
        """Labels of each picture that is present, in row-major order: int64 [R] by kind, R = present.sum()."""
        rows, modality = self.present.nonzero(as_tuple=True)
        return {"camera": self.camera[rows], "view": self.view[rows], "modality": modality}


class Loader:
    """Makes batches of a table's rows, decoding ahead in background threads.

    Args:
        table: where the rows are taken from.
        vocabulary: gives labels their numbers and modalities their order.
        size: height and width of the pictures made.
        interpolation: how they are resized.

    Raises:
        DatasetError: a sighting has no picture in any of the vocabulary's modalities.
    """

    def __init__(
        self,
        table: SightingTable,
        vocabulary: Vocabulary,
        size: tuple[int, int],
        interpolation: Interpolation,
    ) -> None:
        self.vocabulary, self.size = vocabulary, size
        self.interpolation: Interpolation = interpolation
        self.packed: Tensor | None = None
        self.pinned = False
        """Whether batches are laid where a GPU can fetch them by itself while training goes on."""
        self.paths: list[list[str | None]] = [
            [row[m] for m in vocabulary.modalities] for row in table.arrow.to_pylist()
        ]
        empty = next((row for row, paths in enumerate(self.paths) if not any(paths)), None)
        if empty is not None:
            raise DatasetError(
                f"sighting {empty} has {', '.join(table[empty].images)} alone, and the model was trained on "
                f"{', '.join(vocabulary.modalities)}"
            )
        self.place = _places(self.paths)
        self.identity = label_numbers(table.column("identity"), vocabulary.identities)
        self.camera = label_numbers(table.column("camera"), vocabulary.cameras)
        self.view = label_numbers(table.column("view"), vocabulary.views)

    def pack(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Has every picture decoded and resized once, into the cache, instead of whenever it is asked for.

        Args:
            progress: is told how many pictures are done.

        Raises:
            PictureError: one cannot be decoded.
            StorageError: the cache cannot be written.
        """
        self.packed = pack(self.files, self.size, self.interpolation, progress)  # uint8 [F, 3, H, W]

    @property
    def files(self) -> list[Path]:
        """The F picture files, row by row."""
        return [Path(path) for paths in self.paths for path in paths if path is not None]

    def batches(self, rows: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """One batch for each list of rows, in their order.

        Raises:
            PictureError: a picture cannot be decoded.
        """
        lists = iter(rows)
        with ThreadPoolExecutor(1) as pool:
            waiting: list[Future[Batch]] = [pool.submit(self._batch, r) for r in islice(lists, _AHEAD)]
            try:
                while waiting:
                    yield waiting.pop(0).result()
                    waiting += [pool.submit(self._batch, r) for r in islice(lists, 1)]
            finally:
                for future in waiting:
                    future.cancel()

    def _batch(self, rows: Sequence[int]) -> Batch:
        index = torch.tensor(rows, dtype=torch.int64)
        place = self.place[index]  # [B, M]
        present = place >= 0
        if self.packed is not None:
            images = self.packed.index_select(0, place.flatten().clamp_min(0)).unflatten(0, place.shape)
            images[~present] = 0  # [B, M, 3, H, W]
        else:
            images = torch.zeros((*place.shape, 3, *self.size), dtype=torch.uint8)
            for b, m in present.nonzero().tolist():
                images[b, m] = resize(decode(Path(str(self.paths[rows[b]][m]))), self.size, self.interpolation)
        batch = Batch(images, present, self.identity[index], self.camera[index], self.view[index])
        return Batch(*(t.pin_memory() for t in vars(batch).values())) if self.pinned else batch


def _places(paths: Sequence[Sequence[str | None]]) -> Tensor:
    """int64 [N, M]: the place of each picture among all that there are, row by row; -1 where there is none."""
    there = torch.tensor([[path is not None for path in row] for row in paths], dtype=torch.int64).view(len(paths), -1)
    return torch.where(there > 0, there.flatten().cumsum(0).view(there.shape) - 1, -1)
