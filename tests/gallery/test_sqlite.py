"""What the engine of folders promises: flipped bits, several processes, read-only media, copies, repair, erasure."""

import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gallery_engines import FOLDERS, INFO, assert_same, naive_search, records, resight

from resight.errors import GalleryError, ResightError, StorageError
from resight.gallery.engines.sqlite import erasure
from resight.gallery.engines.sqlite.connection import require_local
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.gallery import Gallery
from resight.gallery.maintenance import verify
from resight.gallery.open import copy_gallery, gallery_from_parquet, repair_gallery
from resight.gallery.record import Filter, Record

pytest_plugins = ("gallery_fixtures",)
FLIPS = int(os.environ.get("RESIGHT_FLIPS", "40"))


def filled(path, kind="exact", count=60):
    SQLiteEngine.create(path, INFO)
    engine = FOLDERS[kind](path)
    stored = records(count)
    engine.add(stored)
    engine.assign(["r1", "r2"], "zed")
    engine.remove(["r7"])
    engine.close()
    return [replace(r, identity="zed") if r.id in ("r1", "r2") else r for r in stored if r.id != "r7"]


def flip(file, rng):
    """Flip one bit, mostly where there is data: files of an index are nearly all zeros."""
    data = bytearray(file.read_bytes())
    filled = np.flatnonzero(np.frombuffer(data, np.uint8))
    place = int(rng.choice(filled)) if len(filled) and rng.random() < 0.8 else rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def answer_of(path, kind, expected):
    """What a user sees of a gallery: the sentence of its faults, or its records and a search as they should be."""
    try:
        engine = FOLDERS[kind](path)
    except ResightError as error:
        return f"noticed when opened: {error}"
    try:
        if faults := verify(engine):
            return f"noticed by verify: {faults[0]}"
        assert_same(list(engine.scan()), expected)
        for record in expected[::13]:
            wanted = [i for i, _ in naive_search(expected, record.vector, 5, Filter())]
            assert [hit.id for hit in engine.search(record.vector[None], 5)[0]] == wanted
        assert [a.identity for a in engine.assignments()] == ["zed"]
        return "harmless"
    except ResightError as error:
        return f"noticed when read: {error}"
    finally:
        engine.close()


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path, kind):
    """In any file of a closed gallery. RESIGHT_FLIPS=300 for as many in all (a third of them with an index)."""
    expected = filled(tmp_path / "g", kind)
    files = sorted(path for path in (tmp_path / "g").rglob("*") if path.is_file() and path.stat().st_size)
    rng = random.Random(0)
    outcomes = {}
    for number in range(FLIPS if kind == "exact" else max(6, FLIPS // 3)):
        shutil.copytree(tmp_path / "g", tmp_path / "flipped")
        file = tmp_path / "flipped" / rng.choice(files).relative_to(tmp_path / "g")
        if number % 2 == 0:
            file = tmp_path / "flipped" / rng.choice(["gallery.sqlite", "vectors.f32"])
        flip(file, rng)
        outcome = answer_of(tmp_path / "flipped", kind, expected)  # fails where data is silently another
        outcomes[outcome.partition(":")[0]] = outcomes.get(outcome.partition(":")[0], 0) + 1
        shutil.rmtree(tmp_path / "flipped")
    print(kind, outcomes)
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("noticed")) > 2


def test_a_flipped_bit_of_the_matrix_is_noticed_while_the_gallery_is_open(tmp_path):
    filled(tmp_path / "g")
    engine = SQLiteEngine(tmp_path / "g", indexed=False)
    engine.search(np.eye(1, INFO.width, dtype=np.float32), 3)
    assert engine.faults() == []
    with (tmp_path / "g" / "vectors.f32").open("r+b") as file:
        file.seek(4096 + 70)
        file.write(b"\x5a")
    assert "vectors.f32 is corrupt at row 1" in engine.faults()[0]
    engine.close()


def test_a_flipped_bit_of_the_index_is_noticed_while_the_gallery_is_open(tmp_path):
    stored = filled(tmp_path / "g", "index")
    engine = FOLDERS["index"](tmp_path / "g")
    engine.search(np.eye(1, INFO.width, dtype=np.float32), 3)
    assert engine.faults() == []
    vector = stored[9].vector.tobytes()
    (file,) = [p for p in (tmp_path / "g" / "index").rglob("*") if p.is_file() and vector in p.read_bytes()]
    with file.open("r+b") as opened:
        opened.seek(file.read_bytes().index(vector) + 5)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 4]))
    assert f"index file {file.relative_to(tmp_path / 'g' / 'index')} is corrupt" in engine.faults()[0]
    engine.close()


def test_an_index_with_another_vector_or_without_one_is_noticed(tmp_path, monkeypatch):
    filled(tmp_path / "g", "index")
    engine = FOLDERS["index"](tmp_path / "g")
    engine.search(np.eye(1, INFO.width, dtype=np.float32), 3)
    index = engine.derived.index
    points = index.vectors()
    number = min(points)
    monkeypatch.setattr(index, "vectors", lambda: points | {number: points[number] + np.float32(0.01)})
    (fault,) = engine.faults()
    assert f"lacks record number {number}, or has another vector" in fault
    monkeypatch.setattr(index, "vectors", lambda: {at: point for at, point in points.items() if at != number})
    (fault,) = engine.faults()
    assert f"lacks record number {number}, or has another vector" in fault
    monkeypatch.setattr(index, "vectors", lambda: points | {10**6: points[number]})
    (fault,) = engine.faults()
    assert "has 1 records that the gallery does not have" in fault
    engine.close()


@pytest.mark.parametrize("name", ["gallery.sqlite", "vectors.f32"])
def test_a_truncated_file_is_noticed_or_built_again(tmp_path, name):
    expected = filled(tmp_path / "g")
    size = (tmp_path / "g" / name).stat().st_size
    for length in [0, 1, 50, 100, 4095, 4096, size // 2, size - 1, *range(512, size, max(1, size // 12))]:
        shutil.copytree(tmp_path / "g", tmp_path / "cut")
        os.truncate(tmp_path / "cut" / name, length)
        outcome = answer_of(tmp_path / "cut", "exact", expected)
        assert "Traceback" not in outcome
        assert outcome.startswith("noticed") or (name == "vectors.f32" and outcome == "harmless")
        shutil.rmtree(tmp_path / "cut")


def test_a_matrix_or_an_index_that_is_newer_than_the_database_is_refused(tmp_path):
    filled(tmp_path / "g", "index")
    shutil.copyfile(tmp_path / "g" / "gallery.sqlite", tmp_path / "old.sqlite")
    engine = FOLDERS["index"](tmp_path / "g")
    engine.add(records(3, first=500))
    engine.close()
    shutil.copyfile(tmp_path / "old.sqlite", tmp_path / "g" / "gallery.sqlite")
    with pytest.raises(GalleryError, match=r"vectors.f32 is newer than gallery.sqlite"):
        FOLDERS["index"](tmp_path / "g")
    (tmp_path / "g" / "vectors.f32").unlink()
    with pytest.raises(GalleryError, match=r"index is newer than gallery.sqlite"):
        FOLDERS["index"](tmp_path / "g")
    shutil.rmtree(tmp_path / "g" / "index")
    engine = FOLDERS["index"](tmp_path / "g")
    assert engine.count() == 59
    assert engine.faults() == []
    engine.close()


def test_a_closed_gallery_refuses_work(tmp_path):
    filled(tmp_path / "g")
    engine = SQLiteEngine(tmp_path / "g")
    engine.close()
    engine.close()
    for work in (
        lambda: engine.add(records(1)),
        lambda: engine.count(),
        lambda: engine.get(["r1"]),
        lambda: list(engine.scan()),
        lambda: engine.search(np.eye(1, INFO.width), 1),
        lambda: engine.assign(["r1"], "x"),
        lambda: engine.remove(["r1"]),
        lambda: engine.undo(),
        lambda: engine.fields(),
        lambda: engine.assignments(),
    ):
        with pytest.raises(GalleryError, match="is closed"):
            work()


WRITER = """
import sys, time
from pathlib import Path
from gallery_engines import records
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
engine = SQLiteEngine(Path(sys.argv[1]), indexed=False)
end, n = time.monotonic() + float(sys.argv[2]), 1000
while time.monotonic() < end:
    engine.add(records(5, seed=n, first=n))
    engine.assign([f"r{n}"], "zoe")
    if n % 20 == 0:
        engine.remove([f"r{n + 1}"])
    n += 5
    print(n, flush=True)
"""
READER = """
import sys, time
from pathlib import Path
from gallery_engines import records
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
engine = SQLiteEngine(Path(sys.argv[1]), indexed=False)
end, counts = time.monotonic() + float(sys.argv[2]), [0]
query = records(1)[0].vector[None]
while time.monotonic() < end:
    (nearest,) = engine.search(query, 3)
    assert nearest[0].id == "r0" and nearest[0].similarity > 0.999, nearest
    assert len(engine.get([hit.id for hit in nearest])) >= 1
    counts.append(engine.count())
print(len(counts), counts[1], counts[-1])
"""


def started(script, *arguments):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_readers_beside_a_writer_and_a_copy_meanwhile(tmp_path):
    """For RESIGHT_SECONDS seconds, two without it."""
    filled(tmp_path / "g")
    seconds = os.environ.get("RESIGHT_SECONDS", "2")
    writer = started(WRITER, tmp_path / "g", seconds)
    writer.stdout.readline()
    readers = [started(READER, tmp_path / "g", seconds) for _ in range(2)]
    time.sleep(float(seconds) / 2)
    copied = copy_gallery(tmp_path / "g", tmp_path / "copy")
    for reader in readers:
        out, error = reader.communicate(timeout=120)
        assert reader.returncode == 0, error
        rounds, first, last = map(int, out.split())
        assert rounds > 2
        assert 59 <= first <= last  # the count of records, while more are added than removed
    out, error = writer.communicate(timeout=120)
    assert writer.returncode == 0, error
    for path, least in ((tmp_path / "g", copied), (tmp_path / "copy", 59)):
        engine = SQLiteEngine(path, indexed=False)
        assert verify(engine) == []
        assert engine.count() >= least
        engine.close()


def test_threads_share_an_engine(tmp_path):
    filled(tmp_path / "g")
    engine = SQLiteEngine(tmp_path / "g", indexed=False)
    faults = []

    def work(seed):
        try:
            for n in range(10):
                engine.add(records(2, seed=seed, first=1000 * seed + 2 * n))
                assert engine.search(records(1)[0].vector[None], 1)[0][0].id == "r0"
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert engine.count() == 59 + 4 * 20
    assert engine.faults() == []
    engine.close()


READ_ONLY = """
import os, sys
from pathlib import Path
from gallery_engines import records
from resight.errors import GalleryError
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
os.setgid(65534), os.setuid(65534)  # after the imports: this user may not be able to read them
engine = SQLiteEngine(Path(sys.argv[1]))
print(engine.count(), engine.search(records(3)[2].vector[None], 1)[0][0].id, len(engine.faults()))
for work in (lambda: engine.add(records(1)), lambda: engine.assign(["r1"], "x"), lambda: engine.remove(["r1"])):
    try:
        work()
    except GalleryError as error:
        print(error)
engine.close()
"""


@pytest.mark.parametrize("state", ["closed", "with a log", "without derived files"])
def test_a_gallery_that_cannot_be_written_is_read(tmp_path, state):
    if os.getuid():
        pytest.skip("needs root, to become another user")
    folder = tmp_path / "g"
    filled(folder)
    if state == "with a log":  # as a process that was killed leaves it
        engine = SQLiteEngine(folder, indexed=False)
        engine.add(records(2, first=900))
        shutil.copytree(folder, tmp_path / "killed")
        engine.close()
        folder = tmp_path / "killed"
        assert (folder / "gallery.sqlite-wal").stat().st_size
    if state == "without derived files":
        (folder / "vectors.f32").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o555)
    for parent in folder.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    out, error = started(READ_ONLY, folder).communicate(timeout=60)
    lines = out.splitlines()
    assert lines[0] == ("61 r2 0" if state == "with a log" else "59 r2 0"), error
    assert len(lines) == 4
    assert all("open for reading only" in line for line in lines[1:])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_network_file_system_is_refused(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path}/far\\040away nfs4 rw 0 0\n")
    require_local(tmp_path, mounts)
    with pytest.raises(GalleryError, match=r"network file system \(nfs4\)"):
        require_local(tmp_path / "far away" / "gallery", mounts)
    require_local(tmp_path, tmp_path / "not there")


def test_an_erasure_waits_for_readers_and_is_finished_later(tmp_path, monkeypatch):
    filled(tmp_path / "g")
    monkeypatch.setattr(erasure, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(erasure.finish, "__defaults__", (0.3,))
    reader = sqlite3.connect(tmp_path / "g" / "gallery.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchall()
    engine = SQLiteEngine(tmp_path / "g", indexed=False)
    engine._database.raw.execute("PRAGMA busy_timeout = 100")
    gone = engine.get(["r2"])[0]
    with pytest.raises(GalleryError, match="their erasure from disk is pending"):
        engine.remove(["r2"])
    assert engine.get(["r2"]) == []  # hidden at once
    assert engine.search(gone.vector[None], 1)[0][0].id != "r2"
    engine.close()
    waiting = SQLiteEngine(tmp_path / "g", indexed=False)  # it can be used meanwhile
    assert waiting.count() == 58
    assert "erasure of removed records is pending" in waiting.faults()[0]
    waiting.close()
    reader.close()
    engine = SQLiteEngine(tmp_path / "g")  # finishes it
    assert engine.faults() == []
    engine.close()
    for path in (tmp_path / "g").iterdir():
        assert gone.vector.tobytes() not in path.read_bytes(), path


def vectors_in(data, vectors):
    """The first two numbers of the vectors whose bytes are somewhere in some data."""
    starts = np.array([np.frombuffer(v.tobytes()[:8], np.uint64)[0] for v in vectors])
    found = set()
    for shift in range(8):
        part = np.frombuffer(data[shift : shift + (len(data) - shift) // 8 * 8], np.uint64)
        part = part[part != 0]
        found |= set(part[np.isin(part, starts)].tolist())
    return found


def test_a_thousand_of_three_thousand_leave_no_trace(tmp_path):
    """Names, ids, thumbnails and vectors, also as the index's 8-bit numbers and after identities were changed."""
    SQLiteEngine.create(tmp_path / "g", INFO)
    engine = FOLDERS["index"](tmp_path / "g")
    stored = [
        replace(r, id=f"person-{n:05d}", identity=f"name-{n:05d}", thumbnail=f"jpeg-{n:05d}".encode() * 40)
        for n, r in enumerate(records(3000))
    ]
    for start in range(0, 3000, 500):
        engine.add(stored[start : start + 500])
    engine.assign([r.id for r in stored[::3]], "name-many")
    engine.undo()
    removed = stored[::3]
    assert engine.remove([r.id for r in removed]) == 1000
    assert verify(engine) == []
    engine.close()
    for path in (tmp_path / "g").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            numbers = {int(match[2]) for match in re.finditer(rb"(person|name|jpeg)-(\d{5})", data)}
            assert not [n for n in numbers if n % 3 == 0], path
            assert not vectors_in(data, [r.vector for r in removed]), path
            if path.name == "vectors.f32":
                assert len(vectors_in(data, [r.vector for r in stored])) == 2000
    assert any(b"name-00001" in path.read_bytes() for path in (tmp_path / "g").iterdir() if path.is_file())


def found_as_8_bits(folder, vectors):
    """The rows of the vectors that are in an index as 8-bit numbers, which are scaled and shifted ones."""
    centred = vectors - vectors.mean(1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    rows = set()
    for file in folder.rglob("quantized.data"):
        data = np.fromfile(file, np.uint8)
        for shift in range(4):
            windows = np.lib.stride_tricks.sliding_window_view(data[shift:], vectors.shape[1])[::4]
            for start in range(0, len(windows), 100_000):
                part = windows[start : start + 100_000].astype(np.float32)
                part -= part.mean(1, keepdims=True)
                length = np.linalg.norm(part, axis=1)
                part = part[length > 1] / length[length > 1, None]
                if len(part):
                    rows |= set(np.flatnonzero((part @ centred.T).max(0) > 0.995).tolist())
    return rows


def test_removed_vectors_leave_the_8_bit_numbers_of_the_index(tmp_path, monkeypatch):
    """As large as it must be for Qdrant Edge to make 8-bit numbers: a minute, with RESIGHT_CRASH_STEP set."""
    if "RESIGHT_CRASH_STEP" not in os.environ:
        pytest.skip("RESIGHT_CRASH_STEP is not set")
    monkeypatch.setattr("resight.gallery.engines.sqlite.index._INDEX_SEGMENTS", 1)
    SQLiteEngine.create(tmp_path / "g", INFO.model_copy(update={"width": 256}))
    engine = SQLiteEngine(tmp_path / "g", exact_under=100)
    vectors = np.random.default_rng(0).standard_normal((30_000, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    engine.add([Record(id=f"r{n}", vector=vector) for n, vector in enumerate(vectors)])
    tried = vectors[[7, 500, 6001, 8, 501, 6002]]
    assert found_as_8_bits(tmp_path / "g", tried) == {0, 1, 2, 3, 4, 5}
    engine.remove(["r7", "r500", "r6001"])
    assert found_as_8_bits(tmp_path / "g", tried) == {3, 4, 5}
    engine.close()
    assert found_as_8_bits(tmp_path / "g", tried) == {3, 4, 5}


def test_records_are_removed_on_a_full_disk(tmp_path, monkeypatch):
    """The database cannot grow until the derived files are deleted."""
    filled(tmp_path / "g")
    engine = SQLiteEngine(tmp_path / "g", indexed=False)
    real = engine._remove

    def full(*arguments, **options):
        if (tmp_path / "g" / "vectors.f32").exists():
            raise StorageError("the disk is full")
        return real(*arguments, **options)

    monkeypatch.setattr(engine, "_remove", full)
    assert engine.remove(["r3", "r4"]) == 2
    assert engine.faults() == []
    assert engine.search(records(9)[8].vector[None], 1)[0][0].id == "r8"
    engine.close()


def test_a_torn_page_is_repaired_without_the_records_on_it(tmp_path, capsys):
    stored = filled(tmp_path / "g", count=400)
    file = tmp_path / "g" / "gallery.sqlite"
    data = bytearray(file.read_bytes())
    at = data.index(stored[200].vector.tobytes())
    page = at // 16_384 * 16_384
    data[page : page + 2048] = os.urandom(2048)  # the first half was written, and the second not
    file.write_bytes(data)
    assert "corrupt" in resight(capsys, "gallery", "verify", tmp_path / "g", status=2)
    before = file.read_bytes()
    report = repair_gallery(tmp_path / "g", tmp_path / "repaired")
    assert file.read_bytes() == before
    assert 100 < report.copied < 399
    assert report.lost
    engine = SQLiteEngine(tmp_path / "repaired", indexed=False)
    assert verify(engine) == []
    whole = {r.id: r for r in stored}
    assert_same(list(engine.scan()), [whole[r.id] for r in engine.scan()])
    engine.close()
    assert "items lost: " in resight(capsys, "gallery", "repair", tmp_path / "g", tmp_path / "again", status=2)
    assert "is no gallery" in resight(capsys, "gallery", "repair", tmp_path, tmp_path / "other", status=2)


def test_a_whole_gallery_is_repaired_to_itself(tmp_path, capsys):
    stored = filled(tmp_path / "g")
    assert "59 records copied" in resight(capsys, "gallery", "repair", tmp_path / "g", tmp_path / "new")
    engine = SQLiteEngine(tmp_path / "new")
    assert_same(list(engine.scan()), stored)
    assert [entry.identity for entry in engine.assignments()] == ["zed"]
    engine.close()


def test_records_move_through_parquet_unchanged(tmp_path, capsys):
    stored = filled(tmp_path / "g")
    file = tmp_path / "records.parquet"
    assert "59 records written" in resight(capsys, "gallery", "to-parquet", tmp_path / "g", file)
    assert file.stat().st_mode & 0o077 == 0
    assert gallery_from_parquet(file, tmp_path / "back") == 59
    assert "59 records added" in resight(capsys, "gallery", "from-parquet", file, tmp_path / "back")  # replaces them
    with Gallery(SQLiteEngine(tmp_path / "back")) as back:
        assert_same(list(back.engine.scan()), stored)
        assert back.verify() == []
    SQLiteEngine.create(tmp_path / "other", INFO.model_copy(update={"embedding_id": "0" * 16}))
    assert "cannot be compared" in resight(capsys, "gallery", "from-parquet", file, tmp_path / "other", status=2)
    (tmp_path / "broken.parquet").write_bytes(file.read_bytes()[:-200])
    for bad in ("broken.parquet", "absent.parquet"):
        assert "no gallery in Parquet" in resight(capsys, "gallery", "from-parquet", tmp_path / bad, "x", status=2)


def test_a_database_that_is_none_of_ours_is_named(tmp_path):
    for content, sentence in (
        (b"", "no gallery of resight"),
        (b"not a database" * 999, "is corrupt"),
        (None, "no gallery"),
    ):
        (tmp_path / "g").mkdir(exist_ok=True)
        (tmp_path / "g" / "gallery.sqlite").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "g" / "gallery.sqlite").write_bytes(content)
        with pytest.raises(GalleryError, match=sentence):
            SQLiteEngine(tmp_path / "g")


def test_changed_rows_are_named_by_verify(tmp_path):
    """Each table, changed with another tool."""
    for number, (statement, sentence) in enumerate(
        [
            ("UPDATE records SET identity = 'eve' WHERE id = 'r9'", "record 'r9' is corrupt"),
            ("UPDATE vectors SET vector = zeroblob(64) WHERE number = 5", "record 'r4' is corrupt"),
            ("UPDATE thumbnails SET jpeg = x'00'", "is corrupt"),
            ("DELETE FROM vectors WHERE number = 12", "record 'r11' is corrupt"),
            ("UPDATE fields SET value = '3' WHERE value = '2'", "the table fields differs"),
            ("UPDATE log SET count = 3", "the log is corrupt at place 1"),
            ("DELETE FROM log WHERE action = 'add'", "by its log"),
            ("UPDATE assignments SET entry = replace(entry, 'zed', 'zeb')", "log of assignments is corrupt"),
            ("DELETE FROM removed", "numbers were given"),
            ("UPDATE info SET info = replace(info, 'width', 'widtH')", "checksum of its description"),
        ]
    ):
        path = tmp_path / f"g{number}"
        filled(path)
        with sqlite3.connect(path / "gallery.sqlite") as connection:
            connection.execute(statement)
        connection.close()
        try:
            engine = SQLiteEngine(path, indexed=False)
        except GalleryError as error:
            faults = [str(error)]
        else:
            faults = engine.faults()
            engine.close()
        assert any(sentence in fault for fault in faults), (statement, faults)


def test_what_a_gallery_costs_on_disk_is_as_documented(tmp_path):
    """The matrix has 4 D bytes for each number that was given; json is small."""
    filled(tmp_path / "g")
    assert (tmp_path / "g" / "vectors.f32").stat().st_size == 4096 + 60 * 4 * INFO.width
    assert not json.loads(json.dumps([p.name for p in (tmp_path / "g").iterdir() if "wal" in p.name]))
