"""Checksums of the files of an index, which it changes in place."""

import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

Sums = tuple[int, int, int]
"""Size, time of modification in nanoseconds (0 where the file must be read again), and CRC-32 of a file."""
_RECENT: Final = 1_000_000_000  # nanoseconds
_SMALL: Final = 65_536  # bytes
_JOURNAL: Final = "tracker_journal.dat"  # rewritten when an index is loaded, whatever its size


class FolderChecksums:
    """The checksums of all files in a folder, as they were last measured.

    Args:
        folder: with the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sums: dict[str, Sums] = {}
        """By the file's path in the folder."""

    def restore(self, stated: Mapping[str, Any] | None) -> None:
        """Take checksums that were stored."""
        self.sums = {name: (int(a), int(b), int(c)) for name, (a, b, c) in (stated or {}).items()}

    def measure(self) -> dict[str, Sums]:
        """Read what has changed since the last time, and return the checksums of all files."""
        measured: dict[str, Sums] = {}
        recent = time.time_ns() - _RECENT  # a file that has just changed may change again at the same time
        for name, file in self._files().items():
            size = file.stat().st_size
            changed = file.stat().st_mtime_ns
            known = self.sums.get(name)
            if known is not None and known[:2] == (size, changed):
                measured[name] = known
            else:
                measured[name] = (size, changed if changed < recent else 0, _crc(file))
        self.sums = measured
        return measured

    def differing(self, small: bool = False) -> list[str]:
        """Return the files that differ from their checksums.

        Args:
            small: read only the small files, which loading an index may rewrite; of others, compare the size.
        """
        files = self._files()
        if files.keys() != self.sums.keys():
            return sorted(files.keys() ^ self.sums.keys())
        return [name for name, file in files.items() if self._differs(name, file, small)]

    def _differs(self, name: str, file: Path, small: bool) -> bool:
        size, _, crc = self.sums[name]
        if file.stat().st_size != size:
            return True
        skipped = small and size > _SMALL and file.name != _JOURNAL
        return not skipped and _crc(file) != crc

    def _files(self) -> dict[str, Path]:
        return {str(file.relative_to(self._folder)): file for file in sorted(self._folder.rglob("*")) if file.is_file()}


def _crc(file: Path) -> int:
    total = 0
    with file.open("rb") as opened:
        while data := opened.read(1 << 20):
            total = zlib.crc32(data, total)
    return total


def boot_id() -> str:
    """Return a text that differs after the system has been started again; empty where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
