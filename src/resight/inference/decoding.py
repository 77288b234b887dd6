"""Decoding of image files within a limit of bytes."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from torch import Tensor

from resight.config.scaling import ScalingRule
from resight.data.decode import image_size
from resight.data.image import decode
from resight.data.picture_file import printable, read_file
from resight.data.picture_notes import PictureNotes

Prepare = Callable[[Tensor], Tensor]
"""What is made of a decoded image uint8 [3, h, w] before the next is decoded: usually a smaller one."""


class ByteLimit:
    """Limits the bytes that threads of this process use at once. What is larger than the limit is used alone.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, count: int) -> Generator[None]:
        """Wait until so many bytes are free, and use them for the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self.used or self.used + count <= self.limit)
            self.used += count
        try:
            yield
        finally:
            with self._changed:
                self.used -= count
                self._changed.notify_all()


_BYTES: Final = 3  # of a decoded pixel
_BYTES_SCALED: Final = 16  # of a pixel that may be scaled: its value, as a float64 too
DECODED: Final = ByteLimit(256 << 20)
"""Of decoded images that are not prepared yet, and of their files."""


def decode_prepared(
    source: str | Path | bytes, prepare: Prepare, rule: ScalingRule | None = None, notes: PictureNotes | None = None
) -> Tensor:
    """Decode an image file, or the bytes of one, and prepare it, when there is room for its bytes.

    Args:
        source: a file, or the bytes of a file.
        prepare: what is made of the decoded image.
        rule: how one channel of more than 8 bits becomes 8; None refuses such an image.
        notes: count what is left out or converted; None counts nothing.

    Raises:
        PictureError: as `resight.data.decode.decode_array`.
    """
    name = "the picture" if isinstance(source, bytes) else printable(source)
    data = source if isinstance(source, bytes) else read_file(Path(source), name)
    width, height = image_size(data, name)
    with DECODED.reserve(len(data) + (_BYTES if rule is None else _BYTES_SCALED) * width * height):
        return prepare(decode(data, name, rule, notes))
