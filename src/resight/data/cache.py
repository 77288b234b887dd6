"""Pictures decoded and resized once, as one memory-mapped file of pixels.

A file holds the pictures of one training set at one size. Its name follows from what it is made of: each picture's
path, length and time of change, the size, and how it was resized; so another set, another size or a changed picture
makes another file. It is written beside its place and moved there in one step, by one process at a time; others wait.

The files lie in `~/.cache/resight/pictures`, or where `RESIGHT_CACHE` says, readable by their owner alone: they are
copies of the pictures. `resight data clean` removes them.
"""

import fcntl
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resight.config.sections import Interpolation
from resight.data.image import decode, resize
from resight.errors import PictureError
from resight.files import storing

_FORMAT = "1"  # of the files; another number makes all of them anew
_TOGETHER = 1024  # pictures decoded at once


def cache_folder() -> Path:
    """Where packed pictures lie."""
    return Path(os.environ.get("RESIGHT_CACHE", Path.home() / ".cache" / "resight")) / "pictures"


def pack(
    paths: list[Path],
    size: tuple[int, int],
    interpolation: Interpolation,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The pictures, decoded and resized, from the cache or newly packed into it.

    Args:
        paths: N files.
        size: height H and width W.
        interpolation: how they are resized.
        progress: is told how many are decoded.

    Returns:
        uint8 [N, 3, H, W], memory-mapped; read-only.

    Raises:
        PictureError: one cannot be decoded.
        StorageError: the cache cannot be written.
    """
    target = cache_folder() / f"{_key(paths, size, interpolation)}.u8"
    shape = (len(paths), 3, *size)
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(target.with_suffix(".lock")):
            if not target.exists():
                _write(target, paths, shape, interpolation, progress)
        held = np.memmap(target, np.uint8, "c", shape=shape)  # copy-on-write: torch wants arrays it may write to
    return torch.from_numpy(held)


def clean() -> tuple[int, int]:
    """Removes all packed pictures; returns how many files and bytes these were.

    Raises:
        StorageError: one cannot be removed.
    """
    files = [f for f in cache_folder().glob("*") if f.suffix in (".u8", ".lock", ".partial")]
    size = sum(f.stat().st_size for f in files)
    for file in files:
        with storing(file):
            file.unlink(missing_ok=True)
    return sum(f.suffix == ".u8" for f in files), size


def _key(paths: list[Path], size: tuple[int, int], interpolation: Interpolation) -> str:
    digest = blake2b(f"{_FORMAT} {size} {interpolation}".encode(), digest_size=16)
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise PictureError(f"{path} cannot be read: {error.strerror}") from error
        digest.update(f"{path.absolute()}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _write(
    target: Path,
    paths: list[Path],
    shape: tuple[int, ...],
    interpolation: Interpolation,
    progress: Callable[[int], None],
) -> None:
    partial = target.with_suffix(".partial")

    def made_of(path: Path) -> bytes:
        return resize(decode(path), (shape[2], shape[3]), interpolation).numpy().tobytes()

    try:
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))  # a disk that is too small is found out now
            with ThreadPoolExecutor() as pool:
                for start in range(0, len(paths), _TOGETHER):  # so that decoding does not run ahead of the disk
                    made = pool.map(made_of, paths[start : start + _TOGETHER])
                    for done, pixels in enumerate(made, start=start + 1):
                        file.write(pixels)
                        progress(done)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    """Until the end of the block no other process is in it with this lock."""
    with os.fdopen(os.open(lock, os.O_CREAT | os.O_RDWR, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
