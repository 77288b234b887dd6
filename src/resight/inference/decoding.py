"""Decoding of image files within a limit of bytes."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from resight.config.scaling import Scaling, ScalingRule, rule_of
from resight.config.sections import Preprocessing
from resight.data.decode import image_size
from resight.data.image import Picture, as_tensor, decode, resize
from resight.data.picture_file import printable, read_file
from resight.data.picture_notes import PictureNotes
from resight.data.threads import preparing_threads
from resight.device import available_cores
from resight.inference.inputs import Inputs, Label

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


def decoded_batches(
    inputs: Inputs, batch_size: int, preprocessing: Preprocessing, scaling: Scaling
) -> Iterator[tuple[slice, Tensor]]:
    """Rows and uint8 [r, 3, H, W], decoded and resized by as many threads as there are cores, one batch ahead.

    The bytes of images that are decoded and not yet resized are limited.

    Args:
        inputs: the images, and the modality of each.
        batch_size: images in a batch of whole sightings.
        preprocessing: size and interpolation.
        scaling: by modality, how one channel of more than 8 bits becomes 8.

    Raises:
        PictureError: a picture cannot be decoded, or has another form.
    """

    def shrink(image: Tensor) -> Tensor:
        return resize(image, preprocessing.size, preprocessing.test_interpolation)

    def prepare(image: Picture, modality: Label) -> Tensor:
        rule = rule_of(scaling, modality)
        if isinstance(image, str | Path | bytes):
            return decode_prepared(image, shrink, rule)
        return shrink(as_tensor(image, rule))

    def is_prepared(image: Picture) -> bool:
        form = (torch.uint8, (3, *preprocessing.size), "cpu")
        return isinstance(image, Tensor) and (image.dtype, tuple(image.shape), image.device.type) == form

    def start(part: slice) -> Iterable[Any]:
        images = inputs.images[part]
        if all(map(is_prepared, images)):  # as in a service, where handing them to threads takes as long as the network
            return images
        return pool.map(prepare, images, inputs.modality[part])

    parts = list(inputs.batches(batch_size))
    with preparing_threads(available_cores()) as pool:
        waiting = [start(part) for part in parts[:1]]
        for n, part in enumerate(parts):
            waiting += [start(p) for p in parts[n + 1 : n + 2]]
            yield part, torch.stack(list(waiting.pop(0)))
