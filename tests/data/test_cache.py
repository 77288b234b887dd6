"""The cache of decoded images: only what its owner wrote completely for these images is read."""

import os
import stat
from pathlib import Path

import pytest
import torch
from conftest import picture

from resight.data import cache
from resight.data.cache import cache_folder, clean, pack
from resight.data.image import decode, resize
from resight.errors import PictureError, StorageError

SIZE = (16, 8)
DIGEST_SIZE = 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIGHT_CACHE", str(tmp_path / "a" / "cache"))
    return tmp_path / "a" / "cache" / "pictures"


@pytest.fixture
def paths(tmp_path):
    return [picture(tmp_path / f"{n}.png", n) for n in range(3)]


def packed(paths):
    """The pixels, compared with what is decoded, and the number of images that were decoded."""
    counts = []
    pixels = pack(paths, SIZE, "bilinear", counts.append)
    assert torch.equal(pixels, torch.stack([resize(decode(path), SIZE, "bilinear") for path in paths]))
    return len(counts)


def the_file(folder):
    (file,) = folder.glob("*.u8")
    return file


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


def test_only_the_owner_can_read_the_cache(folder, paths):
    before = os.umask(0)
    try:
        assert packed(paths) == 3
    finally:
        os.umask(before)
    assert mode_of(folder) == 0o700
    assert {mode_of(file) for file in folder.iterdir()} == {0o600}
    assert the_file(folder).stat().st_size == 3 * 3 * 16 * 8 + DIGEST_SIZE
    assert packed(paths) == 0


def short(file):
    os.truncate(file, file.stat().st_size - 1)


def empty(file):
    os.truncate(file, 0)


def long(file):
    with file.open("ab") as opened:
        opened.write(b"\0")


def pixel(file):
    """Change one pixel, and keep the length and the times."""
    times = file.stat()
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def digest(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def link(file):
    """The same content, through a symbolic link."""
    other = file.parent.parent / "elsewhere"
    file.rename(other)
    file.symlink_to(other)


def writable(file):
    file.chmod(0o662)


def pipe(file):
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("change", [short, empty, long, pixel, digest, link, writable, pipe], ids=lambda f: f.__name__)
def test_a_file_that_is_not_as_it_was_written_is_written_again(folder, paths, change):
    assert packed(paths) == 3
    file = the_file(folder)
    change(file)
    assert packed(paths) == 3
    assert stat.S_ISREG(file.lstat().st_mode)
    assert mode_of(file) == 0o600
    assert packed(paths) == 0


def test_the_file_of_another_set_is_not_used(folder, paths):
    assert packed(paths) == 3
    content = the_file(folder).read_bytes()
    the_file(folder).unlink()
    assert packed(paths[::-1]) == 3  # as many images of the same size
    the_file(folder).write_bytes(content)
    assert packed(paths[::-1]) == 3


def test_a_file_of_another_user_is_not_used(folder, paths, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only the administrator can give a file away")
    assert packed(paths) == 3
    os.chown(the_file(folder), 12345, -1)
    assert packed(paths) == 3
    assert the_file(folder).stat().st_uid == 0


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused(folder, paths, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    for function in (lambda: packed(paths), clean):
        with pytest.raises(
            StorageError, match=rf"{folder} can be written by other users \(its mode is {mode:o}, not 700"
        ):
            function()
    assert not list(folder.iterdir())
    folder.chmod(0o755)
    assert packed(paths) == 3


def test_a_folder_of_another_user_is_refused(folder, paths, monkeypatch):
    folder.mkdir(parents=True, mode=0o700)
    real = os.geteuid()
    monkeypatch.setattr(cache.os, "geteuid", lambda: real + 1)
    for function in (lambda: packed(paths), clean):
        with pytest.raises(
            StorageError, match=rf"{folder} belongs to another user \(number {real}\).*set RESIGHT_CACHE"
        ):
            function()
    assert not list(folder.iterdir())


def test_a_folder_that_is_a_symbolic_link_is_refused(folder, paths, tmp_path):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "important.u8").write_bytes(b"x")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(other)
    for function in (lambda: packed(paths), clean):
        with pytest.raises(StorageError, match=f"{folder} is a symbolic link"):
            function()
    assert [file.name for file in other.iterdir()] == ["important.u8"]
    folder.unlink()
    folder.symlink_to(tmp_path / "none")
    with pytest.raises(StorageError, match=r"is a symbolic link|cannot be written"):
        packed(paths)
    folder.unlink()
    folder.write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        packed(paths)


@pytest.mark.parametrize("suffix", [".partial", ".lock"])
def test_no_file_is_written_through_a_symbolic_link(folder, paths, tmp_path, suffix):
    target = tmp_path / "important"
    target.write_bytes(b"content")
    folder.mkdir(parents=True, mode=0o700)
    name = cache._name(paths, SIZE, "bilinear")
    (folder / f"{name}{suffix}").symlink_to(target)
    if suffix == ".partial":
        assert packed(paths) == 3
    else:
        with pytest.raises(StorageError, match="cannot be written"):
            packed(paths)
    assert target.read_bytes() == b"content"


def test_cleaning_follows_no_symbolic_link(folder, paths, tmp_path):
    assert clean() == (0, 0)
    assert packed(paths) == 3
    size = the_file(folder).stat().st_size
    target = tmp_path / "important"
    target.write_bytes(bytes(10**6))
    (folder / "a.u8").symlink_to(target)
    (folder / "notes.txt").write_text("stays")
    count, removed = clean()
    assert count == 2
    assert size <= removed < 10**6
    assert target.stat().st_size == 10**6
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_an_interrupted_write_is_begun_again(folder, paths):
    folder.mkdir(parents=True, mode=0o700)
    (folder / f"{cache._name(paths, SIZE, 'bilinear')}.partial").write_bytes(b"half")
    assert packed(paths) == 3
    assert {file.suffix for file in folder.iterdir()} == {".u8", ".lock"}


def test_a_changed_image_is_decoded_again(folder, paths):
    assert packed(paths) == 3
    status = paths[0].stat()
    picture(paths[0], 9)
    assert packed(paths) == 3
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert packed(paths) == 3


def test_what_is_no_file_is_not_packed(folder, paths, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for bad, message in (
        (tmp_path / "none.jpg", r"none\.jpg cannot be read: No such file"),
        (tmp_path / "pipe.jpg", r"pipe\.jpg is a pipe, not a file"),
        (tmp_path / "a\0.jpg", r"a\\x00\.jpg cannot be read"),
    ):
        with pytest.raises(PictureError, match=message):
            pack([*paths, bad], SIZE, "bilinear")
    odd = tmp_path / os.fsdecode(b"\xff.png")
    picture(odd)
    assert packed([odd]) == 1


def test_the_cache_has_a_default_folder(monkeypatch):
    for value in (None, ""):
        monkeypatch.delenv("RESIGHT_CACHE") if value is None else monkeypatch.setenv("RESIGHT_CACHE", value)
        assert cache_folder() == Path.home() / ".cache" / "resight" / "pictures"
