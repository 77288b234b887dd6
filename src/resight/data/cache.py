"""A cache of decoded and resized images: one memory-mapped file of pixels for each training set and size.

The name of a file is a hash of each image's path, length and modification time, of the size, and of the interpolation;
so another set, another size or a changed image gives another file. A file is written under a temporary name, then
renamed, by one process at a time; other processes wait.

The files are in `~/.cache/resight/pictures`, or below the folder of the environment variable `RESIGHT_CACHE`. Only
their owner can read them, because they are copies of the images. `resight data clean` removes them.
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

_FORMAT = "1"  # of the files; a change rebuilds all of them
_DECODE_BATCH = 1024  # images


def cache_folder() -> Path:
    """Return the folder of the packed images."""
    return Path(os.environ.get("RESIGHT_CACHE", Path.home() / ".cache" / "resight")) / "pictures"


def pack(
    paths: list[Path],
    size: tuple[int, int],
    interpolation: Interpolation,
    progress: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Return images, decoded and resized, from the cache; decode them into the cache if they are not there.

    Args:
        paths: N image files.
        size: height H and width W, in pixels.
        interpolation: of resizing.
        progress: called with the number of images decoded so far.

    Returns:
        uint8 [N, 3, H, W], memory-mapped; changes are not written to the file.

    Raises:
        PictureError: an image cannot be decoded.
        StorageError: the cache cannot be written.
    """
    target = cache_folder() / f"{_name(paths, size, interpolation)}.u8"
    shape = (len(paths), 3, *size)
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(target.with_suffix(".lock")):
            if not target.exists():
                _write(target, paths, shape, interpolation, progress)
        pixels = np.memmap(target, np.uint8, "c", shape=shape)  # copy-on-write: torch requires writable arrays
    return torch.from_numpy(pixels)


def clean() -> tuple[int, int]:
    """Remove all packed images, and return the number of files and their size in bytes.

    Raises:
        StorageError: a file cannot be removed.
    """
    files = [f for f in cache_folder().glob("*") if f.suffix in (".u8", ".lock", ".partial")]
    size = sum(f.stat().st_size for f in files)
    for file in files:
        with storing(file):
            file.unlink(missing_ok=True)
    return sum(f.suffix == ".u8" for f in files), size


def _name(paths: list[Path], size: tuple[int, int], interpolation: Interpolation) -> str:
    digest = blake2b(f"{_FORMAT} {size} {interpolation}".encode(), digest_size=16)
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise PictureError(f"{path} cannot be read: {error.strerror}") from error
        digest.update(f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _write(
    target: Path,
    paths: list[Path],
    shape: tuple[int, ...],
    interpolation: Interpolation,
    progress: Callable[[int], None],
) -> None:
    partial = target.with_suffix(".partial")

    def decode_and_resize(path: Path) -> bytes:
        return resize(decode(path), (shape[2], shape[3]), interpolation).numpy().tobytes()

    try:
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))  # fails now if the disk is too small
            with ThreadPoolExecutor() as pool:
                for start in range(0, len(paths), _DECODE_BATCH):  # limits the decoded images in memory
                    images = pool.map(decode_and_resize, paths[start : start + _DECODE_BATCH])
                    for count, pixels in enumerate(images, start=start + 1):
                        file.write(pixels)
                        progress(count)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _locked(lock: Path) -> Generator[None]:
    """Hold a file lock during the block."""
    with os.fdopen(os.open(lock, os.O_CREAT | os.O_RDWR, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
