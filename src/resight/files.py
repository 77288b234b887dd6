"""Files and folders that are either wholly there or not there at all."""

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
    """Turns an operating system's refusal to write `path` into a `StorageError` that says why."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"{path} cannot be written: {reason}") from error


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader, or a power cut, meets the old content or the new, never a part."""
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
    """Writes a document as JSON, with `write_file`."""
    write_file(path, json.dumps(document, indent=2) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write into a folder beside `path`, then moves it to `path` in one step.

    `path` must not exist. If `fill` fails, nothing is left behind.
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
    """Makes the symbolic link `link` lead to `target` (its sibling or below), replacing it in one step."""
    partial = link.with_name(f".{link.name}.{os.getpid()}.partial")
    with storing(link):
        partial.unlink(missing_ok=True)
        partial.symlink_to(os.path.relpath(target, link.parent))
        os.replace(partial, link)


def make_folder(path: Path) -> None:
    """Makes a folder, with those above it, and proves that it can be written to."""
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
