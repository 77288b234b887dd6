"""Atomic and durable writes: a file or folder is written completely, or not at all.

Content is written under a temporary name `.NAME.RANDOM.partial` beside the target, synced to the disk, and renamed;
then the folder is synced, so that a power failure cannot undo the rename. The writer holds a lock on the temporary
name. When a target is written again, temporary names of it that no process holds a lock on are removed: their writers
were interrupted. Where a lock is not possible (a link, some network file systems) they are removed when they are an
hour old.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from resight.errors import StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
_ABANDONED: Final = 3600  # seconds


@contextmanager
def storing(path: Path) -> Generator[None]:
    """Raise an `OSError` of the block as a `StorageError` that says why `path` cannot be written."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{path} cannot be written: {reason}") from error


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file in one step: after a crash or power failure it has either the old content or the new.

    Raises:
        StorageError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, private: bool = False) -> Generator[BinaryIO]:
    """Open a file for writing that takes the place of `path` after the block; if the block fails, nothing is changed.

    Args:
        path: the file.
        private: only the owner can read it.

    Raises:
        StorageError: the file cannot be written.
    """
    mode = 0o600 if private else 0o666
    with storing(path), _partial(path, lambda partial: partial.touch(mode, exist_ok=False)) as partial:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _rename(partial, path)


def write_json(path: Path, document: Any) -> None:
    """Write a document as JSON in one step.

    Raises:
        StorageError: the file cannot be written.
    """
    write_file(path, json.dumps(document, indent=2) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder in one step: fill a temporary folder, then rename it. A failure leaves nothing behind.

    Args:
        path: the new folder; must not exist.
        fill: writes the content into the folder that it is called with.

    Raises:
        StorageError: the folder cannot be written.
    """
    with storing(path):
        _create_folders(path.parent)
        with _partial(path, Path.mkdir) as partial:
            fill(partial)
            _sync_tree(partial)
            _rename(partial, path)


def point(link: Path, target: Path) -> None:
    """Create or replace the symbolic link `link` in one step.

    Args:
        link: the link.
        target: in the folder of the link, or below it.

    Raises:
        StorageError: the link cannot be written.
    """
    goal = os.path.relpath(target, link.parent)
    with storing(link), _partial(link, lambda partial: partial.symlink_to(goal)) as partial:
        _rename(partial, link)


def move(source: Path, target: Path) -> None:
    """Sync a file or folder and rename it, within one file system.

    Raises:
        StorageError: it cannot be renamed.
    """
    with storing(target):
        _sync_tree(source)
        _rename(source, target)
        _sync(source.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and check that files can be written there.

    Raises:
        StorageError: the folder cannot be created or written to.
    """
    with storing(path):
        _create_folders(path)
        with tempfile.TemporaryFile(dir=path) as probe:  # has no name, so nothing is left of it
            probe.write(b"\0" * 4096)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _partial(path: Path, create: Callable[[Path], None]) -> Generator[Path]:
    """Create a temporary name beside `path`, locked during the block; if it was not renamed, it is removed."""
    _remove_leftovers(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    create(partial)
    descriptor = None if partial.is_symlink() else os.open(partial, os.O_RDONLY)
    try:
        if descriptor is not None:
            with suppress(OSError):  # the file system has no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not partial.exists():  # another writer took it for a leftover, before the lock
                create(partial)
        yield partial
    finally:
        _remove(partial)
        if descriptor is not None:
            os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    """Remove what interrupted writers of `path` left; see the start of this module."""
    leftover_name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.partial")
    with suppress(PermissionError):
        for name in filter(leftover_name.fullmatch, os.listdir(path.parent)):
            with suppress(OSError):  # another process has removed it
                _remove_if_abandoned(path.with_name(name))


def _remove_if_abandoned(leftover: Path) -> None:
    abandoned = time.time() - leftover.lstat().st_mtime > _ABANDONED
    if leftover.is_symlink():
        if abandoned:
            _remove(leftover)
        return
    descriptor = os.open(leftover, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            abandoned = True
        except BlockingIOError:
            abandoned = False
        except OSError:
            pass  # no locks: its age decides
        if abandoned:
            _remove(leftover)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _create_folders(folder: Path) -> None:
    """Create a folder and its parents, and sync the folder of each that is new."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


def _rename(partial: Path, path: Path) -> None:
    """Rename a file or folder whose content is synced, and sync the folder that the new name is in."""
    os.replace(partial, path)
    _sync(path.parent)


def _sync_tree(path: Path) -> None:
    """Sync a file, or a folder with all that is below it: files first, then the folders that name them."""
    below = [path, *path.rglob("*")] if path.is_dir() else [path]
    for entry in sorted(below, key=lambda entry: len(entry.parts), reverse=True):
        if not entry.is_symlink():
            _sync(entry)


def _sync(path: Path) -> None:
    """Sync a file or folder to the disk; some file systems cannot sync a folder."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _NO_FOLDER_SYNC:
            raise
