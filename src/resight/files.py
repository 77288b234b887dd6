"""Atomic writes: a file or folder is written completely, or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resight.errors import StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


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
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storing(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storing(path):
        try:
            partial.mkdir(parents=True)
            fill(partial)
            _sync(partial)
            os.rename(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def point(link: Path, target: Path) -> None:
    """Create or replace the symbolic link `link` in one step.

    Args:
        link: the link.
        target: in the folder of the link, or below it.

    Raises:
        StorageError: the link cannot be written.
    """
    partial = link.with_name(f".{link.name}.{os.getpid()}.partial")
    with storing(link):
        partial.unlink(missing_ok=True)
        partial.symlink_to(os.path.relpath(target, link.parent))
        os.replace(partial, link)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and check that files can be written there.

    Raises:
        StorageError: the folder cannot be created or written to.
    """
    with storing(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
