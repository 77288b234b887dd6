"""What a process of the decoding pool does: bytes of picture files in, small pictures out. It opens no file."""

import os
import resource
import signal
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from resight.config.sections import Preprocessing
from resight.data.image import decode, resize, thumbnail
from resight.data.picture_file import LIMIT_VARIABLE
from resight.errors import PictureError

import_module("torchvision.transforms.v2")  # which `resize` needs: once for all processes, before the first picture

_MEMORY: Final = 2 << 30  # bytes that a process may use beyond what it has when it starts


@dataclass(frozen=True)
class DecodeTask:
    """The pictures of one request."""

    encoded: tuple[bytes, ...]
    """The bytes of the files."""
    thumbnails: bool
    """Whether a small JPEG is made of each."""


@dataclass(frozen=True)
class DecodedPicture:
    """A picture of the size that the model takes."""

    pixels: np.ndarray
    """uint8 [3, H, W]."""
    thumbnail: bytes | None


@dataclass(frozen=True)
class DecodeFailure:
    """Why one picture of a task cannot be decoded."""

    number: int
    """Of the picture in the task, from 0."""
    reason: str


DecodeResult = list[DecodedPicture] | DecodeFailure


def run_worker(connection: Connection, preprocessing: Preprocessing, max_megapixels: float) -> None:
    """Decode the tasks that arrive until the other end of the connection is closed.

    Args:
        connection: takes a list of `DecodeTask`, gives a list of as many `DecodeResult`.
        preprocessing: of the model.
        max_megapixels: a larger picture is a failure.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the service, which ends this process when it is done
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # likewise where SIGTERM is sent to the whole group of processes
    torch.set_num_threads(1)
    os.environ[LIMIT_VARIABLE] = str(max_megapixels)
    limit_memory(_MEMORY)
    while True:
        try:
            tasks: list[DecodeTask] = connection.recv()
        except (EOFError, OSError):  # the service has ended
            return
        connection.send([decode_task(task, preprocessing) for task in tasks])


def decode_task(task: DecodeTask, preprocessing: Preprocessing) -> DecodeResult:
    """Decode every picture of a task, one after the other; or say why the first bad one cannot be decoded."""
    decoded = list[DecodedPicture]()
    for number, data in enumerate(task.encoded):
        name = f"picture {number + 1}"
        try:
            image = decode(data, name)
            small = thumbnail(image.permute(1, 2, 0).numpy()) if task.thumbnails else None
            pixels: Tensor = resize(image, preprocessing.size, preprocessing.test_interpolation)
        except PictureError as error:
            return DecodeFailure(number, str(error))
        except (MemoryError, RuntimeError):  # torch raises RuntimeError where memory is not enough
            return DecodeFailure(number, f"{name} takes more memory than a picture may take")
        decoded.append(DecodedPicture(np.ascontiguousarray(pixels.numpy()), small))
    return decoded


def limit_memory(more: int) -> None:
    """Limit the address space of this process to what it has now, and so many bytes more."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return  # not Linux: the limit on pixels alone has to do
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
