"""Read the files of pictures that anyone may have made, within limits. Nothing here imports torch."""

import os
import struct
from pathlib import Path
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG
from typing import Final

from resight.errors import ConfigError, PictureError

LIMIT_VARIABLE: Final = "RESIGHT_MAX_MEGAPIXELS"
_DEFAULT_MEGAPIXELS: Final = 100.0
_MIN_FILE_LIMIT: Final = 2**26  # bytes that a file may always have
_BYTES_PER_PIXEL: Final = 8  # of the largest uncompressed pixel, 16 bits in 4 channels
_KINDS: Final = ((S_ISDIR, "a folder"), (S_ISFIFO, "a pipe"), (S_ISCHR, "a device"), (S_ISBLK, "a device"))


def max_megapixels() -> float:
    """Return the largest size of a picture that is decoded, in millions of pixels.

    Raises:
        ConfigError: `RESIGHT_MAX_MEGAPIXELS` is no positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text or _DEFAULT_MEGAPIXELS)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ConfigError(
            f"{LIMIT_VARIABLE} is {printable(text)!r}, and must be a positive number of megapixels, such as 100"
        )
    return limit


def require_size(width: int, height: int, name: str) -> None:
    """Make sure that a picture is not larger than the limit.

    Raises:
        PictureError: it is larger; the text says how to raise the limit.
        ConfigError: `RESIGHT_MAX_MEGAPIXELS` is no positive number.
    """
    limit = max_megapixels()
    if width * height > limit * 1e6:
        needed = -(-width * height // 10**6)
        raise PictureError(
            f"{name} has {width} x {height} pixels, and the limit is {limit:g} megapixels: scale it down, or set "
            f"{LIMIT_VARIABLE} to {needed} to read it"
        )


def require_file(path: Path, name: str) -> os.stat_result:
    """Return the status of a regular file, without opening it: to open a pipe could wait forever.

    Args:
        path: the file, or a symbolic link to it.
        name: of the file in error texts.

    Raises:
        PictureError: there is no such file, it is no regular file, or no file can have its name.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL, or a character that the file system cannot encode
        raise PictureError(f"{name} cannot be read: no file can have this name") from error
    return _require_regular(status, name)


def read_file(path: Path, name: str) -> bytes:
    """Read the bytes of a picture.

    Raises:
        PictureError: as `require_file`; or the file cannot be read, or has more bytes than a picture within the limit.
        ConfigError: `RESIGHT_MAX_MEGAPIXELS` is no positive number.
    """
    require_file(path, name)
    limit = max(_MIN_FILE_LIMIT, int(max_megapixels() * 1e6) * _BYTES_PER_PIXEL)
    try:
        with open(path, "rb", opener=lambda file, flags: os.open(file, flags | os.O_NONBLOCK)) as file:
            status = _require_regular(os.fstat(file.fileno()), name)  # it could be another file by now
            if status.st_size > limit:
                raise PictureError(
                    f"{name} has {status.st_size} bytes, and the limit for a picture is {limit}: set "
                    f"{LIMIT_VARIABLE}, the limit in megapixels, to a larger number if it is one"
                )
            return file.read(limit) or b""
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror}") from error


def size_before_opening(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a GIF or WebP; None for other formats.

    Pillow allocates memory for these two when it opens them.
    """
    try:
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif_size(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
    except (IndexError, struct.error):
        pass  # cut short: Pillow says so
    return None


def printable(text: object, limit: int = 300) -> str:
    """Return a name or a reason as one line that can be printed: other characters are escaped, and the middle is cut.

    >>> printable("a\\nb.jpg")
    'a\\\\nb.jpg'
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if len(line) <= limit else f"{line[: limit // 2]}...{line[-limit // 2 :]}"


def _gif_size(data: bytes) -> tuple[int, int]:
    """Of the screen, enlarged to contain the first frame."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << ((flags & 7) + 1) if flags & 128 else 0)  # behind the palette
    while data[position] not in b",;":  # the first frame, or the end
        if data[position] == ord("!"):  # an extension: its kind, then blocks, the last one empty
            position += 2
            while data[position]:
                position += data[position] + 1
        position += 1
    if data[position] == ord(";"):
        return width, height
    left, top, frame_width, frame_height = struct.unpack_from("<4H", data, position + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _require_regular(status: os.stat_result, name: str) -> os.stat_result:
    if S_ISREG(status.st_mode):
        return status
    kind = next((text for is_kind, text in _KINDS if is_kind(status.st_mode)), "a socket")
    raise PictureError(f"{name} is {kind}, not a file")
