"""Files of any content become pixels or one sentence; no file takes more memory than the limit allows."""

import io
import os
import re
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from resight.data import decode as decode_module
from resight.data.decode import FORMATS, as_array, decode_array, image_size
from resight.data.image import as_tensor, decode
from resight.data.picture_file import LIMIT_VARIABLE, max_megapixels, printable, size_before_opening
from resight.errors import ConfigError, PictureError
from resight.inference.runtime import prepare

WIDTH, HEIGHT = 24, 18
SMALLER = str((WIDTH * HEIGHT - 1) / 1e6)
"""Megapixels, one pixel fewer than the test's pictures have."""


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@cache
def files():
    """The bytes of a file of every format, and of many kinds of pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT // 6, WIDTH // 6, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    rgb = Image.fromarray(pixels)
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(np.arange(WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH)))
    palette = rgb.quantize(16)
    other = Image.new("RGB", rgb.size, "red")
    return {
        "rgb.jpg": encoded(rgb, "JPEG", quality=95),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "grey.jpg": encoded(rgb.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "several.mpo": encoded(rgb, "MPO", save_all=True, append_images=[other]),
        "rgb.png": encoded(rgb, "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=bytes(range(16))),
        "two.png": encoded(rgb.convert("1"), "PNG"),
        "grey.png": encoded(rgb.convert("L"), "PNG", transparency=3),
        "rgb.bmp": encoded(rgb, "BMP"),
        "rgb.gif": encoded(rgb, "GIF"),
        "animated.gif": encoded(rgb, "GIF", save_all=True, append_images=[other], disposal=2, transparency=1),
        "rgb.tif": encoded(rgb, "TIFF"),
        "lzw.tif": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "cmyk.tif": encoded(rgb.convert("CMYK"), "TIFF"),
        "rgb.webp": encoded(rgb, "WEBP"),
        "lossless.webp": encoded(rgb, "WEBP", lossless=True),
        "alpha.webp": encoded(alpha, "WEBP", lossless=True),
        "rgb.ppm": encoded(rgb, "PPM"),
        **({"rgb.avif": encoded(rgb, "AVIF")} if "AVIF" in FORMATS else {}),
    }


NAMES = list(files())


def deep_files():
    levels = np.random.default_rng(0).integers(0, 60000, (HEIGHT, WIDTH))
    short, long, real = (Image.fromarray(levels.astype(kind)) for kind in (np.uint16, np.int32, np.float32))
    return {
        "16.png": encoded(short, "PNG"),
        "16.tif": encoded(short, "TIFF"),
        "16.pgm": encoded(long, "PPM"),
        "32.tif": encoded(long, "TIFF"),
        "float.tif": encoded(real, "TIFF"),
    }


def declares(name, width, height):
    """A small file whose header states another size."""
    data = bytearray(files()[name])
    kind = Path(name).suffix
    if kind == ".jpg":
        frame = next(m.start() for m in re.finditer(rb"\xff[\xc0\xc2]\x00[\x0b\x11\x14]", bytes(data)))
        data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif kind == ".png":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif kind == ".bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == ".gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == ".webp" and data[12:16] == b"VP8 ":
        data[26:30] = struct.pack("<HH", width, height)
    elif kind == ".webp" and data[12:16] == b"VP8L":
        data[21:25] = struct.pack("<I", width - 1 | height - 1 << 14)
    elif kind == ".ppm":
        return bytes(data).replace(b"%d %d" % (WIDTH, HEIGHT), b"%d %d" % (width, height))
    return bytes(data)


def as_pillow_decodes(data):
    """The reference: simplejpeg where it can, and otherwise Pillow's conversion, multiplied by the opacity."""
    if data.startswith(b"\xff\xd8\xff"):
        try:
            return simplejpeg.decode_jpeg(data, "RGB", strict=True)
        except ValueError:
            pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transparency in a palette
        image = Image.open(io.BytesIO(data))
        rgba = np.array(image.convert("RGBA")).astype(np.float64)
        straight = np.array(image.convert("RGB"))
    return np.rint(straight * (rgba[..., 3:] / 255)).astype(np.uint8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_every_path_gives_the_same_pixels(tmp_path, name):
    data = files()[name]
    expected = as_pillow_decodes(data)
    path = tmp_path / name
    path.write_bytes(data)
    for source in (path, str(path), data):
        found = decode_array(source)
        assert found.dtype == np.uint8
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(as_array(source), expected)
        np.testing.assert_array_equal(decode(source).permute(1, 2, 0).numpy(), expected)
        np.testing.assert_array_equal(prepare(source, (HEIGHT, WIDTH), "bilinear").transpose(1, 2, 0), expected)
        assert image_size(source) == (WIDTH, HEIGHT)
    pillow_image = Image.fromarray(expected)
    for image in (expected, pillow_image, pillow_image.convert("RGBA")):
        np.testing.assert_array_equal(as_array(image), expected)
        np.testing.assert_array_equal(as_tensor(image).permute(1, 2, 0).numpy(), expected)
        np.testing.assert_array_equal(prepare(image, (HEIGHT, WIDTH), "bilinear").transpose(1, 2, 0), expected)


def test_transparent_pixels_are_laid_over_black_and_the_first_frame_is_used():
    for opacity, expected in ((0, (0, 0, 0)), (51, (40, 20, 10)), (255, (200, 100, 50))):
        alpha = Image.new("RGBA", (4, 3), (200, 100, 50, opacity))
        assert (decode_array(encoded(alpha, "PNG")) == expected).all()
        assert (as_array(alpha) == expected).all()
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_array(data) == (255, 0, 0)).all()


def test_arrays_and_tensors_of_any_layout_keep_their_pixels():
    whole = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    read_only = whole[::-1, ::2]
    read_only.flags.writeable = False
    np.testing.assert_array_equal(as_tensor(read_only).permute(1, 2, 0).numpy(), read_only)
    np.testing.assert_array_equal(as_tensor(torch.from_numpy(whole).permute(2, 0, 1)).permute(1, 2, 0).numpy(), whole)


def test_decoding_imports_no_torch():
    script = (
        "import sys, resight.data.decode, resight.inference.runtime; print([m for m in sys.modules if m == 'torch'])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


MEASURE = """
import resource, sys
from pathlib import Path
from resight.data.decode import decode_array
from resight.errors import PictureError
data = Path(sys.argv[1]).read_bytes()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
try:
    decode_array(data)
    print("decoded", peak() - before)
except PictureError as error:
    print("refused", peak() - before, error)
"""


@pytest.mark.parametrize("name", ["rgb.jpg", "progressive.jpg", "rgb.png", "rgb.bmp", "rgb.gif", "rgb.ppm", "rgb.webp"])
def test_a_small_file_that_declares_many_pixels_takes_no_memory(tmp_path, name):
    width, height = (16383, 16000) if name.endswith("webp") else (20000, 20000)
    path = tmp_path / name
    path.write_bytes(declares(name, width, height))
    command = [sys.executable, "-W", "error", "-c", MEASURE, path]
    verdict, kibibytes, *text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert verdict == "refused"
    assert int(kibibytes) < 20_000
    assert f"has {width} x {height} pixels, and the limit is 100 megapixels" in " ".join(text)
    assert f"set {LIMIT_VARIABLE} to {-(-width * height // 10**6)} to read it" in " ".join(text)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_the_limit_is_for_every_format(monkeypatch, name):
    data = files()[name]
    monkeypatch.setenv(LIMIT_VARIABLE, SMALLER)
    for function in (decode_array, image_size, as_array, decode):
        with pytest.raises(PictureError, match=f"the picture has {WIDTH} x {HEIGHT} pixels, and the limit is"):
            function(data)
    array = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert as_array(array).shape == as_array(Image.fromarray(array)).shape == array.shape  # are decoded already
    monkeypatch.setenv(LIMIT_VARIABLE, str(WIDTH * HEIGHT / 1e6))
    assert decode_array(data).shape == array.shape


def test_the_frame_of_a_gif_may_be_larger_than_its_screen(monkeypatch):
    data = declares("animated.gif", 2, 3)
    assert image_size(data) == size_before_opening(data) == (WIDTH, HEIGHT)
    assert decode_array(data).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setenv(LIMIT_VARIABLE, SMALLER)
    with pytest.raises(PictureError, match="the limit is"):
        decode_array(data)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("gif", "webp"))])
def test_the_size_before_opening_is_pillow_s(name):
    assert size_before_opening(files()[name]) == (WIDTH, HEIGHT)
    for length in range(12, 60):
        assert size_before_opening(files()[name][:length]) in (None, (WIDTH, HEIGHT))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
def test_our_limit_replaces_pillow_s(monkeypatch, name):
    monkeypatch.setattr(decode_module, "_LARGE_IMAGE", 9)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_array(files()[name]).shape == (HEIGHT, WIDTH, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_array(files()[name]).shape == (HEIGHT, WIDTH, 3)
    assert Image.MAX_IMAGE_PIXELS is None


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf", "1e999", " ", "1\n\x1b[31m"])
def test_a_limit_that_is_no_positive_number_is_refused(monkeypatch, text):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    if text == "1\n\x1b[31m":
        text = "1\\\\n\\\\x1b[31m"
    with pytest.raises(ConfigError, match=f"{LIMIT_VARIABLE} is {re.escape(repr(text))[1:-1]}|must be a positive"):
        decode_array(files()["rgb.jpg"])


def test_the_limit_has_a_default(monkeypatch):
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert max_megapixels() == 100
    monkeypatch.setenv(LIMIT_VARIABLE, "2.5")
    assert max_megapixels() == 2.5


def test_a_file_of_more_bytes_than_a_picture_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    path = tmp_path / "a.png"
    path.touch()
    os.truncate(path, 2**40)  # takes no space on the disk
    with pytest.raises(PictureError, match=f"has {2**40} bytes, and the limit for a picture is {2**26}"):
        decode_array(path)


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    """Pillow would start `gs`; here it is a program that leaves a file."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    for function in (decode_array, image_size, decode, lambda source: prepare(source, (8, 8), "bilinear")):
        with pytest.raises(PictureError, match=r"a\.jpg is no picture that can be read \(it starts with b'%!PS"):
            function(path)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("file_format", ["ICO", "TGA", "PCX", "DDS", "PDF", "SGI"])
def test_formats_that_are_not_listed_are_refused(file_format):
    assert file_format not in FORMATS
    with pytest.raises(PictureError, match="is no picture that can be read"):
        decode_array(encoded(Image.new("RGB", (16, 16)), file_format))


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket.jpg"))
    for path, kind in (
        (tmp_path / "pipe.jpg", "a pipe"),
        (tmp_path / "link.jpg", "a pipe"),
        (tmp_path / "folder.jpg", "a folder"),
        (tmp_path / "socket.jpg", "a socket"),
        (Path("/dev/zero"), "a device"),
        (Path("/dev/tty"), "a device"),
    ):
        for function in (decode_array, image_size, as_array, decode, lambda p: prepare(p, (8, 8), "bilinear")):
            with pytest.raises(PictureError, match=f"{path.name} is {kind}, not a file"):
                function(path)
    (tmp_path / "good.jpg").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_bytes(files()["rgb.jpg"])
    assert decode_array(tmp_path / "good.jpg").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\0b.jpg", r"a\x00b.jpg cannot be read: no file can have this name"),
        ("a\udcff.jpg", r"a\udcff.jpg cannot be read: No such file"),
        ("a\ud800.jpg", r"a\ud800.jpg cannot be read: no file can have this name"),
        ("a\nb\x1b[2J.jpg", r"a\nb\x1b[2J.jpg cannot be read: No such file"),
        ("n" * 5000 + ".jpg", "nnn.jpg cannot be read: File name too long"),
        ("d/" * 5000 + "a.jpg", "d/d/a.jpg cannot be read: File name too long"),
        ("", "is a folder"),
    ],
)
def test_names_that_no_file_has_are_printed_in_one_line(tmp_path, name, shown):
    for function in (decode_array, image_size, as_array, decode, lambda p: prepare(p, (8, 8), "bilinear")):
        with pytest.raises(PictureError) as raised:
            function(os.path.join(tmp_path, name))
        message = str(raised.value)
        assert shown in message
        assert message.isprintable()
        assert len(message) < 500
        message.encode()


def test_a_file_whose_name_is_not_utf_8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff.jpg")
    path.write_bytes(files()["rgb.jpg"])
    assert decode_array(path).shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(files()["rgb.jpg"][:300])
    with pytest.raises(PictureError, match=r"a\\udcff\.jpg is cut short \(300 bytes\)"):
        decode_array(path)


def test_long_names_are_cut_in_the_middle():
    assert printable("ä b.jpg") == "ä b.jpg"
    assert printable("a" * 200 + "b" * 200, 100) == "a" * 50 + "..." + "b" * 50


@pytest.mark.parametrize("name", list(deep_files()))
def test_more_than_8_bits_are_refused(tmp_path, name):
    """Pillow clips them to white."""
    path = tmp_path / name
    path.write_bytes(deep_files()[name])
    image = Image.open(path)
    for function in (decode_array, as_array, decode, lambda p: prepare(p, (8, 8), "bilinear")):
        with pytest.raises(PictureError, match=rf"{name} is a (16-bit|.*32-bit|floating-point) picture, and 8 bits"):
            function(path)
    for function in (as_array, as_tensor, lambda p: prepare(p, (8, 8), "bilinear")):
        with pytest.raises(PictureError, match=r"the picture is a .* scale it to 8 bits first"):
            function(image)


def test_pillow_images_that_cannot_be_converted_are_refused(tmp_path):
    with pytest.raises(PictureError, match="must have pixels, and this one has 0 x 4"):
        as_array(Image.new("RGB", (0, 4)))
    path = tmp_path / "a.bmp"
    path.write_bytes(files()["rgb.bmp"][:-200])
    with Image.open(path) as image, pytest.raises(PictureError, match="the picture is corrupt"):
        as_array(image)


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyError("a"), OverflowError("b"), struct.error("c"), zlib.error("d")]
)
def test_any_error_of_a_decoder_is_a_picture_error(monkeypatch, error):
    def convert(self, mode):
        raise error

    monkeypatch.setattr(Image.Image, "convert", convert)
    for name in ("palette.png", "cmyk.tif", "rgb.gif"):
        with pytest.raises(PictureError, match=r"the picture is corrupt: \S"):
            decode_array(files()[name])


def result_of(function, data):
    """What it returns, or the sentence of its error."""
    try:
        return function(data)
    except PictureError as error:
        return str(error)


def check_pixels_or_sentence(data):
    size, pixels = result_of(image_size, data), result_of(decode_array, data)
    for sentence in (size, pixels):
        assert not isinstance(sentence, str) or sentence.isprintable()  # so it is one line
    if not isinstance(pixels, str):
        assert pixels.dtype == np.uint8
        assert pixels.shape == (size[1], size[0], 3)


changes = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "zero"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=4,
)


def changed(data, steps):
    for kind, where, new in steps:
        position = int(where**2 * (len(data) - 1))  # more often in the header
        if kind == "flip":
            data = data[:position] + new + data[position + len(new) :]
        elif kind == "insert":
            data = data[:position] + new + data[position:]
        elif kind == "zero":
            data = data[:position] + bytes([255 * (new[0] % 2)]) * len(new) + data[position + len(new) :]
        else:
            data = data[: position + 1]
    return data


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), changes)
def test_changed_files_give_pixels_or_one_sentence(monkeypatch, name, steps):
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    check_pixels_or_sentence(changed(files()[name], steps))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([b"", *(data[:n] for data in files().values() for n in (4, 16))]), st.binary(max_size=200))
def test_random_bytes_give_pixels_or_one_sentence(monkeypatch, start, data):
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    check_pixels_or_sentence(start + data)
