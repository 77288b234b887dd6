"""Files and folders are complete or absent, whenever the writer is killed, and stay so after a power failure."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resight import files
from resight.errors import StorageError
from resight.files import make_folder, move, point, replacing, write_file, write_folder, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from resight import files
path = Path(sys.argv[2])

def killed(source, target):
    os.kill(os.getpid(), signal.SIGKILL)

os.replace = killed
fill = lambda folder: (folder / "a").write_text("new")
{"file": lambda: files.write_file(path, "new"), "folder": lambda: files.write_folder(path, fill)}[sys.argv[1]]()
"""
HOLDING = """
import sys
from pathlib import Path
from resight.files import write_folder

def fill(folder):
    print(folder, flush=True)
    sys.stdin.readline()
    (folder / "a").write_text("first")

write_folder(Path(sys.argv[1]), fill)
"""


def killed_while_writing(kind, path):
    command = [sys.executable, "-c", KILLED, kind, str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    return partials(path.parent)


def partials(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".partial")]


@pytest.fixture
def calls(monkeypatch):
    """The calls of fsync and rename, in their order."""
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def replace(source, target):
        calls.append(("rename", str(source), str(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "rename", None)  # nothing else renames
    return calls


def test_a_killed_writer_of_a_file_leaves_the_old_content(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    (leftover,) = killed_while_writing("file", path)
    assert path.read_text() == "old"
    assert re.fullmatch(r"\.x\.[0-9a-f]{8}\.partial", leftover.name)
    write_file(tmp_path / "other", "x")
    assert partials(tmp_path) == [leftover]  # of another target
    write_file(path, "newer")
    assert path.read_text() == "newer"
    assert not partials(tmp_path)


def test_a_killed_writer_of_a_folder_leaves_nothing_under_its_name(tmp_path):
    path = tmp_path / "x"
    killed_while_writing("folder", path)
    assert not path.exists()
    write_folder(path, lambda folder: (folder / "a").write_text("newer"))
    assert (path / "a").read_text() == "newer"
    assert not partials(tmp_path)


def test_temporary_names_have_a_random_part(tmp_path, monkeypatch):
    """A container that is restarted has the same process number."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    (tmp_path / ".x.1.partial").mkdir()
    write_folder(tmp_path / "x", lambda folder: (folder / "a").write_text("a"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_another_process_is_writing_is_left(tmp_path):
    path = tmp_path / "x"
    command = [sys.executable, "-c", HOLDING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        partial = Path(process.stdout.readline().strip())
        assert partial.is_dir()
        write_file(path, "second")
        assert partial.is_dir()
        path.unlink()
        process.stdin.write("\n")
    assert process.returncode == 0
    assert (path / "a").read_text() == "first"


def test_without_locks_leftovers_are_removed_after_an_hour(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    young, old, link = (tmp_path / f".x.{n}.partial" for n in "123")
    young.write_text("")
    old.mkdir()
    link.symlink_to("nowhere")
    for path, age in ((young, 3000), (old, 4000), (link, 4000)):
        moment = time.time() - age
        os.utime(path, (moment, moment), follow_symlinks=False)
    write_file(tmp_path / "x", "new")
    assert sorted(tmp_path.iterdir()) == [young, tmp_path / "x"]


def test_only_leftovers_of_the_same_name_are_removed(tmp_path):
    others = [".x.y.1.partial", ".x.1", "x.1.partial", ".x.ghi.partial", ".xy.1.partial"]
    for name in others:
        (tmp_path / name).write_text("")
    write_file(tmp_path / "x", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["x", *others])


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, calls):
    write_json(tmp_path / "x", [1])
    (partial,) = {source for source, target in (call[1:] for call in calls if call[0] == "rename")}
    assert calls == [("sync", partial), ("rename", partial, str(tmp_path / "x")), ("sync", str(tmp_path))]


def test_a_folder_is_synced_before_it_is_renamed_and_its_parents_after(tmp_path, calls):
    def fill(folder):
        (folder / "in").mkdir()
        (folder / "in" / "a").write_text("a")
        (folder / "b").write_text("b")

    write_folder(tmp_path / "new" / "newer" / "x", fill)
    (at,) = [n for n, call in enumerate(calls) if call[0] == "rename"]
    _, partial, target = calls[at]
    assert target == str(tmp_path / "new" / "newer" / "x")
    before, after = [path for _, path in calls[:at]], calls[at + 1 :]
    assert {str(tmp_path), str(tmp_path / "new")} < set(before)  # the names of the parents, which are new
    written = [path for path in before if path.startswith(partial)]
    assert set(written) == {partial, f"{partial}/in", f"{partial}/in/a", f"{partial}/b"}
    assert (
        written.index(f"{partial}/in/a") < written.index(f"{partial}/in") < written.index(partial) == len(written) - 1
    )
    assert after == [("sync", str(tmp_path / "new" / "newer"))]


def test_a_link_is_renamed_and_its_folder_synced(tmp_path, calls):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    point(tmp_path / "link", tmp_path / "a")
    point(tmp_path / "link", tmp_path / "b")
    assert (tmp_path / "link").resolve() == tmp_path / "b"
    assert os.readlink(tmp_path / "link") == "b"
    assert [call[0] for call in calls] == ["rename", "sync", "rename", "sync"]
    assert calls[-1] == ("sync", str(tmp_path))
    assert not partials(tmp_path)


def test_a_folder_is_synced_before_it_is_moved_and_both_parents_after(tmp_path, calls):
    source, target = tmp_path / "one" / "x", tmp_path / "two" / "y"
    target.parent.mkdir()
    source.mkdir(parents=True)
    (source / "a").write_text("a")
    move(source, target)
    assert calls == [
        ("sync", f"{source}/a"), ("sync", str(source)), ("rename", str(source), str(target)),
        ("sync", str(target.parent)), ("sync", str(source.parent)),
    ]  # fmt: skip


def test_a_file_system_that_cannot_sync_folders_is_written_to(tmp_path, monkeypatch):
    real = os.fsync

    def sync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    write_file(tmp_path / "x", "x")
    write_folder(tmp_path / "y", lambda folder: None)

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"x cannot be written: Input/output error"):
        write_file(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "x"
    assert not partials(tmp_path)


def test_a_failure_leaves_nothing(tmp_path):
    def full(folder):
        (folder / "a").write_text("a")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="x cannot be written: the disk is full"):
        write_folder(tmp_path / "x", full)
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "x") as file:
        file.write(bytes([1 // 0]))
    assert not list(tmp_path.iterdir())


def test_a_private_file_is_its_owners(tmp_path):
    with replacing(tmp_path / "x", private=True) as file:
        file.write(b"x")
        (partial,) = partials(tmp_path)
        assert partial.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    write_file(tmp_path / "y", "y")
    before = os.umask(0)
    os.umask(before)
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o666 & ~before


def test_a_folder_that_is_made_has_no_file_in_it(tmp_path, calls):
    make_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
    assert {("sync", str(tmp_path)), ("sync", str(tmp_path / "a"))} == set(calls)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        make_folder(tmp_path / "file" / "c")


def test_json_is_indented_and_ends_with_a_line_break(tmp_path):
    write_json(tmp_path / "x", {"a": [1]})
    assert (tmp_path / "x").read_bytes() == b'{\n  "a": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no words"), "no words"), (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up"), (OSError(errno.EROFS, "x"), "the file system is "
        "read-only"), (OSError(errno.EACCES, "x"), "writing there is not permitted"),
        (OSError(errno.EPERM, "x"), "writing there is not permitted"),
    ],
)  # fmt: skip
def test_why_a_file_cannot_be_written(tmp_path, error, reason):
    with pytest.raises(StorageError) as refused, files.storing(tmp_path):
        raise error
    assert str(refused.value) == f"{tmp_path} cannot be written: {reason}"


@pytest.mark.parametrize(("age", "is_left"), [(3600.0, True), (3600.5, False)])
def test_a_link_is_abandoned_after_an_hour_and_not_before(tmp_path, monkeypatch, age, is_left):
    link = tmp_path / ".x.1.partial"
    link.symlink_to("nowhere")
    os.utime(link, (1e9, 1e9), follow_symlinks=False)
    monkeypatch.setattr(files.time, "time", lambda: 1e9 + age)
    write_file(tmp_path / "x", "new")
    assert link.is_symlink() == is_left
    assert (tmp_path / "x").read_text() == "new"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_only_folders_may_refuse_to_be_synced(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, "refused")

    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(os, "fsync", fail)
    files._sync(tmp_path)
    with pytest.raises(OSError, match="refused"):
        files._sync(tmp_path / "file")
    number = errno.EIO
    with pytest.raises(OSError, match="refused"):
        files._sync(tmp_path)
