"""`vectors.f32`: the vectors of a gallery as one memory-mapped matrix, for exact search.

The file is derived from `gallery.sqlite` and can be deleted. After a header of 4,096 bytes, the vector of the record
with number n is row n - 1; rows of removed records are zeros. A writer stores new rows before its transaction ends, and
zeroes removed ones after that; the header says which transaction the file follows. Only a process that holds SQLite's
write lock changes the file.
"""

import errno
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from resight.errors import GalleryError
from resight.files import move, storing

MATRIX: Final = "vectors.f32"
_HEADER: Final = 4096  # bytes
_LAYOUT: Final = struct.Struct("<8sII16sQQ")  # magic, format, width, gallery, generation, last number
_MAGIC: Final = b"RESGVECS"
_FORMAT: Final = 1
_BLOCK: Final = 65_536  # rows that are multiplied at once
_COPIED: Final = 1 << 20  # bytes of rows that are copied at once
_SMALL: Final = 1 << 21  # multiplications of a product; a smaller one is made in groups of queries
_ALONE: Final = 1 << 18  # multiplications of a group, which OpenBLAS makes in the thread itself
_RUN: Final = 512  # rows that are written at once
_ROUNDING: Final = 1e-5  # upper bound of the float32 rounding error of a product of unit-length vectors


class Matrix:
    """The memory-mapped vectors of a gallery.

    Args:
        file: `vectors.f32`; it need not exist.
        width: numbers of a vector.
        gallery_id: of the gallery that the file must belong to.
    """

    def __init__(self, file: Path, width: int, gallery_id: str) -> None:
        self.file = file
        self.width = width
        self._gallery = bytes.fromhex(gallery_id)
        self._rows: np.ndarray | None = None  # float32 [n, D], mapped
        self._inode = 0

    def generation(self) -> tuple[int, int] | None:
        """Generation and last number that the file follows; None where it is absent, of another gallery or corrupt."""
        try:
            with self.file.open("rb") as opened:
                header = opened.read(_LAYOUT.size + 4)
                size = os.fstat(opened.fileno()).st_size
        except FileNotFoundError:
            return None
        if len(header) < _LAYOUT.size + 4 or zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little"):
            return None
        magic, number, width, gallery, generation, last = _LAYOUT.unpack(header[:-4])
        if (magic, number, width, gallery) != (_MAGIC, _FORMAT, self.width, self._gallery):
            return None
        return (generation, last) if size >= self._offset(last + 1) else None

    def rebuild(self, vectors: Iterable[tuple[int, bytes]], generation: int, last_number: int) -> None:
        """Write the file again, beside the old one and in its place when complete; removed rows take no disk space."""
        partial = self.file.with_name(f".{self.file.name}.partial")
        with storing(self.file):
            partial.unlink(missing_ok=True)
            with _opened(partial) as handle:
                os.ftruncate(handle.fd, self._offset(last_number + 1))
                for number, data in vectors:
                    _write(handle.fd, [data], self._offset(number))
                self._write_header(handle.fd, generation, last_number)
                os.fsync(handle.fd)
            move(partial, self.file)

    def put(self, vectors: Iterable[tuple[int, bytes]]) -> None:
        """Store rows, so that they are on disk; each run of successive numbers is one write."""
        with storing(self.file), _opened(self.file) as handle:
            run = list[bytes]()
            first = 0
            for number, data in vectors:
                if run and (number != first + len(run) or len(run) == _RUN):
                    _write(handle.fd, run, self._offset(first))
                    run = []
                if not run:
                    first = number
                run.append(data)
            if run:
                _write(handle.fd, run, self._offset(first))
            os.fdatasync(handle.fd)

    def zero(self, numbers: Sequence[int]) -> None:
        """Overwrite rows with zeros in place, also for processes that have the file mapped."""
        if numbers and self.file.exists():
            self.put((number, bytes(4 * self.width)) for number in sorted(numbers))

    def follow(self, generation: int, last_number: int) -> None:
        """Say in the header that the file has all of a generation."""
        with storing(self.file), _opened(self.file) as handle:
            os.ftruncate(handle.fd, self._offset(last_number + 1))  # rows after that are of an add that failed
            self._write_header(handle.fd, generation, last_number)

    def rows(self, last_number: int) -> np.ndarray:
        """The mapped rows, float32 [last_number, D].

        Raises:
            GalleryError: the file is gone or too short.
        """
        if self._rows is None or len(self._rows) < last_number or self._changed():
            self._rows = None
            if last_number == 0:
                return np.zeros((0, self.width), np.float32)
            try:
                self._inode = self.file.stat().st_ino
                shape = (last_number, self.width)
                self._rows = np.asarray(np.memmap(self.file, "<f4", "r", _HEADER, shape))
            except (OSError, ValueError) as error:
                raise GalleryError(f"{self.file} has changed while the gallery is open; open it again") from error
        return self._rows[:last_number]

    def nearest(self, queries: np.ndarray, rows: np.ndarray, last_number: int, k: int) -> list[list[tuple[float, int]]]:
        """For each query the k nearest of some rows: similarity and number, nearest first, the lower number of equals.

        Blocks of rows are multiplied in float32; every row that may be among the k nearest is scored again in float64,
        so that equal vectors have equal similarities in whatever block they are.

        Args:
            queries: float32 [Q, D].
            rows: int64 [n], ascending, the rows to search.
            last_number: rows of the matrix.
            k: how many.
        """
        matrix = self.rows(last_number)
        best = [list[tuple[float, int]]() for _ in queries]  # of each query: -similarity, number
        for start in range(0, last_number, _BLOCK):
            first, last = np.searchsorted(rows, (start, start + _BLOCK))
            selected = rows[first:last]  # [n]
            if not len(selected):
                continue
            scores = _products(queries, matrix[start : start + _BLOCK], selected - start)  # [Q, n]
            for query, row_scores, nearest in zip(queries, scores, best, strict=True):
                # Take every row that may be among the k nearest of this block and those before it
                lowest = np.partition(row_scores, -k)[-k] - _ROUNDING if k < len(row_scores) else -np.inf
                if len(nearest) >= k:
                    lowest = max(lowest, -nearest[k - 1][0] - _ROUNDING)
                candidates = selected[row_scores >= lowest]
                exact = (matrix[candidates].astype(np.float64) * query).sum(1).astype(np.float32)
                nearest += [(-float(score), int(place) + 1) for score, place in zip(exact, candidates, strict=True)]
                nearest.sort()
                del nearest[k:]
        return [[(-distance, number) for distance, number in row] for row in best]

    def close(self) -> None:
        """Forget the mapping."""
        self._rows = None

    def _offset(self, number: int) -> int:
        return _HEADER + 4 * self.width * (number - 1)

    def _changed(self) -> bool:
        try:
            return self.file.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _write_header(self, fd: int, generation: int, last_number: int) -> None:
        data = _LAYOUT.pack(_MAGIC, _FORMAT, self.width, self._gallery, generation, last_number)
        os.pwrite(fd, data + zlib.crc32(data).to_bytes(4, "little"), 0)


def _products(queries: np.ndarray, block: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products with some rows of a block, [Q, n]."""
    if len(rows) == len(block):
        return _product(queries, block)
    if 2 * len(rows) > len(block):  # a product with all is faster than a copy of more than half
        return _product(queries, block)[:, rows]
    size = max(1, _COPIED // (4 * block.shape[1]))  # copies that stay in the cache of a core
    parts = [_product(queries, block[rows[first : first + size]]) for first in range(0, len(rows), size)]
    return np.concatenate(parts, axis=1)


def _product(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products with all rows, [Q, n]; a small one is made in groups of queries, mostly without other threads."""
    if len(queries) * rows.size >= _SMALL:
        return queries @ rows.T
    size = max(1, _ALONE // rows.size)
    return np.concatenate([queries[first : first + size] @ rows.T for first in range(0, len(queries), size)])


def _write(fd: int, rows: Sequence[bytes], offset: int) -> None:
    if os.pwritev(fd, rows, offset) != sum(map(len, rows)):  # the system writes what there is room for
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _opened:  # noqa: N801
    """A file open for writing at places, created where it does not exist, readable by its owner alone."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> "_opened":
        self.fd = os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
