"""Malformed uploads, drawn from a seed: truncated files, bombs, polyglots, wrong types, huge sizes, lying lengths."""

import gzip
import struct
import zipfile
import zlib
from functools import cache
from io import BytesIO

from PIL import Image
from service_helpers import jpeg


def png(width, height, compressed=None, extra=b""):
    """A PNG that claims a size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000)) if compressed is None else compressed
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def truncated(rng):
    whole = jpeg(rng.randrange(100))
    return whole[: rng.randrange(1, len(whole) - 2)]


def bomb(rng):
    """A few kilobytes that would be gigabytes of pixels."""
    side = rng.randrange(20_000, 60_000)
    return png(side, side, zlib.compress(bytes(10**6), 9))


def text_bomb(rng):
    """A PNG whose compressed text chunk is large when it is read."""
    data = b"key\0\0" + large_text()
    extra = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return png(rng.randrange(1000, 2000), 70_000, extra=extra)


@cache
def large_text():
    return zlib.compress(bytes(80_000_000), 1)


def gif_bomb(rng):
    size = struct.pack("<HH", rng.randrange(50_000, 65_535), 65_535)
    return b"GIF89a" + size + b"\xf0\x00\x00" + bytes(6) + b"," + bytes(4) + size + b"\x00\x02\x02\x4c\x01\x00;"


def tiff_bomb(rng):
    side = rng.randrange(30_000, 60_000)
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, side)]
    tags.append((279, 4, 8))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def polyglot(rng):
    """Another file with the first bytes of a picture, or a picture's bytes in another file."""
    other = rng.choice([b"%PDF-1.7\n", b"#!/bin/sh\nrm -rf /\n", b"<svg onload='x'/>", b"<?php x(); ?>", archive()])
    head = rng.choice([b"", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"BM"])
    return head + other + rng.randbytes(50)


def archive():
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("picture.jpg", jpeg())
    return buffer.getvalue()


def compressed(rng):
    return gzip.compress(bytes(rng.randrange(10**6, 10**7)))


def noise(rng):
    return rng.randbytes(rng.randrange(1, 5000))


def other_format(rng):
    """Formats that Pillow reads, and the service does not."""
    buffer = BytesIO()
    Image.new("RGB", (rng.randrange(1, 40), 20)).save(buffer, rng.choice(["PCX", "TGA", "SGI", "ICO", "PDF", "EPS"]))
    return buffer.getvalue()


def corrupt_png(rng):
    """A PNG whose compressed pixels end or are wrong."""
    good = zlib.compress(rng.randbytes(64 * 64 * 3 + 64))
    return png(64, 64, good[: rng.randrange(2, len(good) // 2)])


def grey_16(rng):
    buffer = BytesIO()
    Image.new("I;16", (rng.randrange(8, 64), 32)).save(buffer, "PNG")
    return buffer.getvalue()


def empty(rng):
    return b""


KINDS = (truncated, bomb, text_bomb, gif_bomb, tiff_bomb, polyglot, compressed, noise, other_format, corrupt_png,
         grey_16, empty)  # fmt: skip
HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}


def bodies(rng):
    """Malformed bodies of a form: no boundary, no end, fields without names, wrong types."""
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    choices = [
        (part + jpeg()[: rng.randrange(50)], HEADERS),
        (b"--b\r\n" + rng.randbytes(30), HEADERS),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", HEADERS),
        (b"--b\r\n" + b"A: b\r\n" * rng.randrange(1, 300) + b"\r\n\r\n--b--", HEADERS),
        (jpeg(), {"Content-Type": "image/jpeg"}),
        (b'{"image": "/etc/passwd"}', {"Content-Type": "application/json"}),
        (b"image=/etc/passwd", {"Content-Type": "application/x-www-form-urlencoded"}),
        (part + b"http://example.org/a.jpg\r\n--b--\r\n", HEADERS),
        (part + jpeg() + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data"}),
        (part * 1200 + b"\r\n--b--\r\n", HEADERS),
    ]
    return rng.choice(choices)
