"""A cache of decoded and resized images: one memory-mapped file of pixels for each training set and size.

The name of a file is a hash of each image's path, length, modification time and scaling rule, of the size, and of the
interpolation; so another set, size or rule or a changed image gives another file. A file ends with a SHA-256 of this
name and the pixels, which is checked when the file is opened: a file that is short, altered or of another set is
written again. A file is written under a temporary name, then renamed, by one process at a time; other processes wait.

The files are in `~/.cache/resight/pictures`, or below the folder of the environment variable `RESIGHT_CACHE`. Only
their owner can read them, because they are copies of the images. The folder is not used if it is a symbolic link,
belongs to another user, or others can write into it, and no file in it is read through a symbolic link.
`resight data clean` removes the files.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG, S_IWGRP, S_IWOTH
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from torch import Tensor

from resight.config.scaling import ScalingRule
from resight.config.sections import Interpolation
from resight.data.image import decode, resize
from resight.data.picture_file import printable, require_file
from resight.data.threads import preparing_threads
from resight.errors import StorageError
from resight.files import storing

_FORMAT: Final = "3"  # of the files; a change rebuilds all of them
_DECODE_BATCH: Final = 1024  # images
_READ: Final = 2**24  # bytes that are checked at a time
_DIGEST: Final = hashlib.sha256
_DIGEST_SIZE: Final = 32  # bytes, behind the pixels
_OTHERS_WRITE: Final = S_IWGRP | S_IWOTH
_Rules = Sequence[ScalingRule | None] | None


def cache_folder() -> Path:
    """Return the folder of the packed images."""
    return Path(os.environ.get("RESIGHT_CACHE") or Path.home() / ".cache" / "resight") / "pictures"


def pack(
    paths: list[Path],
    size: tuple[int, int],
    interpolation: Interpolation,
    progress: Callable[[int], None] = lambda count: None,
    rules: _Rules = None,
) -> Tensor:
    """Return images, decoded and resized, from the cache; decode them into the cache if they are not there.

    Args:
        paths: N image files.
        size: height H and width W, in pixels.
        interpolation: of resizing.
        progress: called with the number of images decoded so far.
        rules: N rules, how one channel of more than 8 bits becomes 8; None for none.

    Returns:
        uint8 [N, 3, H, W], memory-mapped; changes are not written to the file.

    Raises:
        PictureError: an image cannot be decoded.
        StorageError: the cache cannot be written, or others can write into its folder.
    """
    name = _name(paths, size, interpolation, rules)
    shape = (len(paths), 3, *size)
    with storing(cache_folder() / f"{name}.u8"), _opened_folder(create=True) as folder:
        pixels = _read(folder, name, shape)
        if pixels is None:
            with _locked(folder, name):
                pixels = _read(folder, name, shape)  # another process may have written it
                if pixels is None:
                    _write(folder, name, _images(paths, size, interpolation, progress, rules), int(np.prod(shape)))
                    pixels = _read(folder, name, shape)
    if pixels is None:
        raise StorageError(f"{cache_folder() / name}.u8 was altered while it was written: train again, or --no-cache")
    return torch.from_numpy(pixels)


def clean() -> tuple[int, int]:
    """Remove all packed images, and return the number of files and their size in bytes.

    Raises:
        StorageError: a file cannot be removed, or others can write into the folder.
    """
    if not os.path.lexists(cache_folder()):
        return 0, 0
    with storing(cache_folder()), _opened_folder() as folder:
        files = [f for f in os.scandir(folder) if Path(f.name).suffix in (".u8", ".lock", ".partial")]
        size = sum(f.stat(follow_symlinks=False).st_size for f in files)
        for file in files:
            os.unlink(file.name, dir_fd=folder)
    return sum(f.name.endswith(".u8") for f in files), size


def _name(paths: list[Path], size: tuple[int, int], interpolation: Interpolation, rules: _Rules = None) -> str:
    digest = hashlib.blake2b(f"{_FORMAT} {size} {interpolation}".encode(), digest_size=16)
    for path, rule in zip(paths, rules or [None] * len(paths), strict=True):
        status = require_file(path, printable(path))
        digest.update(os.fsencode(path.absolute()) + f"\0{status.st_size}\0{status.st_mtime_ns}\0{rule}\0".encode())
    return digest.hexdigest()


def _images(
    paths: list[Path],
    size: tuple[int, int],
    interpolation: Interpolation,
    progress: Callable[[int], None],
    rules: _Rules,
) -> Generator[bytes]:
    """The pixels of each image, uint8 [3, H, W]."""

    def decode_and_resize(path: Path, rule: ScalingRule | None) -> bytes:
        return resize(decode(path, rule=rule), size, interpolation).numpy().tobytes()

    rule_of_path = rules or [None] * len(paths)
    with preparing_threads() as pool:
        for start in range(0, len(paths), _DECODE_BATCH):  # limits the decoded images in memory
            batch = slice(start, start + _DECODE_BATCH)
            images = pool.map(decode_and_resize, paths[batch], rule_of_path[batch])
            for count, pixels in enumerate(images, start=start + 1):
                yield pixels
                progress(count)


def _write(folder: int, name: str, images: Generator[bytes], size: int) -> None:
    partial = f"{name}.partial"
    digest = _DIGEST(name.encode())
    _remove(folder, partial)  # of a process that was killed
    try:
        with _open(folder, partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size + _DIGEST_SIZE)  # fails now if the disk is too small
            for pixels in images:
                file.write(pixels)
                digest.update(pixels)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, f"{name}.u8", src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        _remove(folder, partial)


def _read(folder: int, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """uint8 [N, 3, H, W], memory-mapped; None if there is no file, or it is not what `_write` wrote."""
    try:
        file = _open(folder, f"{name}.u8", os.O_RDONLY | os.O_NONBLOCK, "rb")
    except OSError:  # there is none, or it is a symbolic link
        return None
    size = int(np.prod(shape))
    with file:
        status = os.fstat(file.fileno())
        if not S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
            return None
        if status.st_size != size + _DIGEST_SIZE or not _is_intact(file, name, size):
            return None
        return np.memmap(file, np.uint8, "c", shape=shape)  # copy-on-write: torch requires writable arrays


def _is_intact(file: BinaryIO, name: str, size: int) -> bool:
    digest = _DIGEST(name.encode())
    for start in range(0, size, _READ):
        digest.update(file.read(min(_READ, size - start)))
    return file.read() == digest.digest()


@contextmanager
def _opened_folder(create: bool = False) -> Generator[int]:
    """A descriptor of the cache's folder, in which only this user can write."""
    path = cache_folder()
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True, mode=0o700)
    if path.is_symlink():
        raise _unsafe(path, "is a symbolic link")
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            raise _unsafe(path, f"belongs to another user (number {status.st_uid})")
        if status.st_mode & _OTHERS_WRITE:
            raise _unsafe(path, f"can be written by other users (its mode is {S_IMODE(status.st_mode):o}, not 700)")
        yield folder
    finally:
        os.close(folder)


def _unsafe(path: Path, reason: str) -> StorageError:
    return StorageError(f"the cache {path} {reason}: remove it, or set RESIGHT_CACHE to a folder of your own")


def _open(folder: int, name: str, flags: int, mode: str) -> Any:
    return os.fdopen(os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder), mode)


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@contextmanager
def _locked(folder: int, name: str) -> Generator[None]:
    """Hold a file lock during the block."""
    with _open(folder, f"{name}.lock", os.O_CREAT | os.O_RDWR, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
