"""What decoding left out or converted, counted once for each run. Nothing here imports torch."""

from collections.abc import Mapping
from threading import Lock
from typing import Final, Literal

PictureNote = Literal["frames", "transparency", "cmyk"]
_TEXTS: Final[dict[str, tuple[str, str, str]]] = {  # verb for one picture, verb for several, and the rest
    "frames": ("has", "have", "several frames: the first is used"),
    "transparency": ("has", "have", "transparent pixels: they are laid over black"),
    "cmyk": ("is", "are", "of CMYK: converted to RGB without a colour profile"),
}
NoteCounts = dict[str, tuple[int, str]]
"""By kind of note: the number of pictures, and the name that comes first in the alphabet."""


class PictureNotes:
    """Counts pictures of which a part is not used, or whose colours are converted. Threads may share one."""

    def __init__(self) -> None:
        self._counts: NoteCounts = {}
        self._lock = Lock()

    def add(self, note: PictureNote, name: str) -> None:
        """Count a picture."""
        self.merge({note: (1, name)})

    def merge(self, counts: Mapping[str, tuple[int, str]]) -> None:
        """Add what was counted elsewhere, such as in another process."""
        with self._lock:
            for note, (count, name) in counts.items():
                before, first = self._counts.get(note, (0, name))
                self._counts[note] = (before + count, min(first, name))

    def counts(self) -> NoteCounts:
        """Return the counts so far."""
        with self._lock:
            return dict(self._counts)

    def lines(self) -> list[str]:
        """Return a sentence for each kind, such as `3 pictures have several frames: the first is used (a.gif, ...)`."""
        counts = self.counts()
        return [_sentence(note, *counts[note]) for note in _TEXTS if note in counts]


def _sentence(note: str, count: int, name: str) -> str:
    one, several, rest = _TEXTS[note]
    subject = f"1 picture {one}" if count == 1 else f"{count} pictures {several}"
    return f"{subject} {rest} ({name}{', ...' if count > 1 else ''})"
