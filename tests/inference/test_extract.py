"""Extraction: the embedder's numbers, in order, once each, however it was stopped."""

import inspect
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import picture, small_model
from numpy.testing import assert_allclose, assert_array_equal

import resight
from resight.cli import main
from resight.data.boxes import Box
from resight.data.readers.anything import read_images
from resight.data.sightings import MODALITIES, SCHEMA, Sighting, SightingTable
from resight.errors import CheckpointError, ConfigError, DatasetError, PictureError, ResightError, StorageError
from resight.inference import decoding
from resight.inference.decoding import ByteLimit, decode_prepared
from resight.inference.embeddings import read_embeddings
from resight.inference.extract import extract as module
from resight.inference.extract import tasks
from resight.inference.extract.extract import ExtractOptions, extract
from resight.inference.extract.sources import SightingSource, VideoSource
from resight.inference.extract.tasks import ModelFolder
from resight.inference.extract.workers import MAX_ATTEMPTS, Worker
from resight.progress import Progress

PLAIN = ExtractOptions("cpu", "fp32", shard=8)
REFUSED = "was started with other images, another model or other settings"


class Counts(Progress):
    """The counts of completed rows, and the log."""

    def __init__(self, call=lambda: None):
        super().__init__(quiet=True)
        self.counts, self.lines, self.call = [], [], call

    def update(self, completed, now=""):
        self.counts.append(completed)
        self.call()

    def log(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """40 pictures with labels, one of them corrupt."""
    root = tmp_path_factory.mktemp("pictures")
    rows = ["path,identity,camera,time"]
    for n in range(40):
        picture(root / f"{n}.png", n, n, size=(30, 60))
        rows.append(f"{n}.png,id{n % 5},c{1 + n % 2},{n}")
    (root / "13.png").write_bytes(b"no")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root / "table.csv"


def check(file, folder, table, **options):
    """The file has a row for each picture but the corrupt one, with its labels and the embedder's numbers."""
    embeddings, gallery = read_embeddings(file)
    assert gallery is embeddings
    rows = [n for n in range(40) if n != 13]
    sightings, paths = embeddings.sightings, [table.parent / f"{n}.png" for n in rows]
    cameras = [f"c{1 + n % 2}" for n in rows]
    assert sightings.column("rgb") == [str(path) for path in paths]
    assert sightings.column("nir") == [None] * 39
    assert sightings.column("time") == rows
    assert sightings.column("identity") == [f"id{n % 5}" for n in rows]
    assert sightings.column("camera") == cameras
    embedder = resight.load(folder, "cpu", "fp32", **options)
    assert embeddings.info.embedding_id == embedder.embedding_id
    assert (embeddings.info.fusion, embeddings.info.modalities) == ("concat", ("rgb",))
    assert embeddings.vectors.dtype == np.float32
    assert_allclose(embeddings.vectors, embedder.embed(paths, camera=cameras), atol=1e-5)
    assert not file.with_name(f"{file.name}.parts").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_embeddings_in_the_order_of_the_pictures(folder, table, tmp_path, workers):
    progress, out = Counts(), tmp_path / "e.parquet"
    result = extract(folder, table, out, workers=workers, options=replace(PLAIN, shard=7), progress=progress)
    assert (result.rows, result.before, result.retried) == (39, 0, [])
    assert len(result.corrupt) == 1
    assert "13.png is no picture" in result.corrupt[0]
    assert progress.lines == [resight.load(folder, "cpu", "fp32").description, f"skipped: {result.corrupt[0]}"]
    assert (progress.counts[0], progress.counts[-1], len(progress.counts)) == (0, 40, 1 + 6)
    check(out, folder, table)


def test_a_call_needs_no_other_import(folder, table, tmp_path):
    """Paths as text, one file or several, a folder, a table in memory, and a loaded model give the same rows."""
    names = list(inspect.signature(resight.extract).parameters)
    assert names == ["model", "source", "out", "workers", "options", "progress"]
    embedder = resight.load(folder, "cpu", "fp32")
    sightings = read_images([table])
    sources = (str(table), table, [table], [str(table)], sightings, SightingSource(sightings))
    for n, source in enumerate(sources):
        out = tmp_path / f"{n}.parquet"
        result = resight.extract(embedder, source, str(out))
        assert (result.rows, len(result.corrupt)) == (39, 1)
        check(out, folder, table)
    result = resight.extract(str(folder), table.parent, tmp_path / "folder.parquet")
    assert (result.rows, len(result.corrupt)) == (39, 1)


def test_workers_load_an_embedder_from_its_folder(folder, table, tmp_path):
    embedder = resight.load(folder, "cpu", "fp32", flip=True)
    extract(embedder, table, tmp_path / "e.parquet", workers=2)
    check(tmp_path / "e.parquet", folder, table, flip=True)
    live = resight.Embedder(embedder.model, embedder.card, embedder.settings)
    with pytest.raises(ConfigError, match="this embedder has none"):
        extract(live, table, tmp_path / "f.parquet", workers=2)
    with pytest.raises(ConfigError, match="is loaded already: pass precision to"):
        extract(embedder, table, tmp_path / "f.parquet", options=ExtractOptions(precision="fp32"))


def stop_after(count, monkeypatch):
    """Interrupt the extraction in the shard after `count` of them; returns the sizes of the shards."""
    embed_part, sizes = tasks.embed_part, []

    def interrupted(embedder, part):
        sizes.append(len(part))
        if len(sizes) == count + 1:
            raise KeyboardInterrupt
        return embed_part(embedder, part)

    monkeypatch.setattr(tasks, "embed_part", interrupted)
    return sizes


def test_an_interrupted_run_resumes(folder, table, tmp_path, monkeypatch):
    out, sizes = tmp_path / "e.parquet", stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, table, out, options=PLAIN)
    assert not out.exists()
    progress = Counts()
    # without effect on rows, and on vectors only by rounding
    result = extract(folder, table, out, options=replace(PLAIN, batch_size=3), progress=progress)
    assert (result.rows, result.before) == (39, 15)  # of two shards, one of which had a corrupt picture
    assert progress.counts[0] == 16
    assert sizes == [8, 8, 8, 8, 8, 8]
    check(out, folder, table)
    with pytest.raises(ConfigError, match="exists already"):
        extract(folder, table, out)


CHANGES = {
    "precision": "auto",
    "flip": True,
    "fusion": "mean",
    "unknown": "off",
    "compile": True,
    "scaling": {"default": ("limits", 0.0, 1.0)},
    "identity_from_folder": True,
    "camera": "c1",
    "filename_pattern": r"(?P<view>\d)",
    "shard": 4,
}
ALLOWED = {"device", "batch_size", "on_corrupt", "ray"}  # of the same kind of device; see the class Plan
OF_VIDEO = {"boxes", "min_confidence", "modality", "start"}
OF_FOLDERS = {"modalities", "allow_missing_modalities"}  # of modalities: what is read with them is in the digest


def test_a_run_of_other_options_does_not_resume(folder, table, tmp_path, monkeypatch):
    assert {field.name for field in fields(ExtractOptions)} == {*CHANGES, *ALLOWED, *OF_VIDEO, *OF_FOLDERS}
    out, root = tmp_path / "e.parquet", table.parent
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, root, out, options=PLAIN)
    for name, value in CHANGES.items():
        with pytest.raises(ConfigError, match=REFUSED) as error:
            extract(folder, root, out, options=replace(PLAIN, **{name: value}))
        assert "\n" not in str(error.value), name
    with pytest.raises(ConfigError, match=REFUSED):
        extract(small_model(tmp_path / "m", mean=(0.4,) * 3), root, out, options=PLAIN)
    monkeypatch.setattr("resight.inference.extract.plan.pick_device", lambda name: torch.device("meta"))
    with pytest.raises(ConfigError, match=REFUSED):
        extract(folder, root, out, options=PLAIN)


@pytest.mark.parametrize("column", SCHEMA.names)
def test_a_run_of_another_column_does_not_resume(table, tmp_path, monkeypatch, column):
    folder = small_model(tmp_path / "m", modalities=MODALITIES, sie=("camera", "modality"))
    embedder, out = resight.load(folder, "cpu", "fp32"), tmp_path / "e.parquet"
    sightings = [Sighting({"rgb": table.parent / f"{n}.png"}) for n in range(4)]
    stop_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(embedder, SightingTable.of(sightings), out, options=ExtractOptions(shard=2))
    if column in MODALITIES:
        last = replace(sightings[3], images={column: table.parent / "4.png"})
    else:
        last = replace(sightings[3], **{column: 7.0 if column == "time" else "other"})
    with pytest.raises(ConfigError, match=REFUSED):
        extract(embedder, SightingTable.of([*sightings[:3], last]), out, options=ExtractOptions(shard=2))
    with pytest.raises(ConfigError, match=REFUSED):
        extract(embedder, SightingTable.of(sightings[:3]), out, options=ExtractOptions(shard=2))
    assert extract(embedder, SightingTable.of(sightings), out, options=ExtractOptions(shard=2)).rows == 4


def test_every_label_of_a_video_is_in_its_digest(tmp_path):
    video = tmp_path / "v.mkv"
    video.write_bytes(b"video")
    box = Box(0, 0, 0, 9, 9, "t", 0.5, "id")
    source = VideoSource(video, [box], "c", "rgb", 0.0)
    changes = [{"camera": "d"}, {"modality": "nir"}, {"start": 1.0}, {"boxes": [box, box]}]
    for name, value in {"frame": 1, "left": 1, "top": 1, "right": 8, "bottom": 8, "tracklet": "u"}.items():
        changes.append({"boxes": [replace(box, **{name: value})]})
    changes += [{"boxes": [replace(box, confidence=0.6)]}, {"boxes": [replace(box, identity=None)]}]
    digests = [replace(source, **change).digest() for change in changes]
    os.utime(video, (0, 0))
    digests.append(source.digest())
    video.write_bytes(b"other")
    assert len({source.digest(), *digests}) == len(digests) + 1


@pytest.mark.parametrize("content", ["{", "{}", '{"format": 1}', "[]"])
def test_a_plan_of_another_format(folder, table, tmp_path, content):
    (tmp_path / "e.parquet.parts").mkdir()
    (tmp_path / "e.parquet.parts" / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match=REFUSED):
        extract(folder, table, tmp_path / "e.parquet", options=PLAIN)


def test_a_corrupt_shard_is_named(folder, table, tmp_path, monkeypatch):
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, table, tmp_path / "e.parquet", options=PLAIN)
    shard = tmp_path / "e.parquet.parts" / "0000001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    with pytest.raises(StorageError, match=r"the shard .*0000001.parquet cannot be read: delete it"):
        extract(folder, table, tmp_path / "e.parquet", options=PLAIN)
    shard.unlink()
    extract(folder, table, tmp_path / "e.parquet", options=PLAIN)
    check(tmp_path / "e.parquet", folder, table)


def test_a_model_that_changes_meanwhile_is_refused(folder, table, tmp_path):
    model = ModelFolder(folder, "cpu", "fp32", False, "concat", "mean", None)
    part = SightingSource(read_images([table])).part(slice(2))
    with pytest.raises(CheckpointError, match="was changed during the extraction"):
        tasks.make_shard(tasks.Task(0, part, tmp_path / "s", model, "0" * 16))


def test_settings_of_the_card_and_of_the_options(folder, table, tmp_path):
    options, progress = ExtractOptions("cpu", "fp32", flip=True, unknown="off", batch_size=5), Counts()
    extract(folder, table, tmp_path / "e.parquet", options=options, progress=progress)
    check(tmp_path / "e.parquet", folder, table, flip=True, unknown="off")
    embedder = resight.load(folder, "cpu", "fp32", flip=True, unknown="off")
    assert progress.lines[0] == resight.load(folder, "cpu", "fp32", batch_size=5).description
    assert embedder.embedding_id != resight.load(folder, "cpu", "fp32").embedding_id


@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_a_sighting_of_several_modalities_is_one_row(table, tmp_path, fusion):
    folder = small_model(tmp_path / "m", modalities=("rgb", "nir", "tir"), sie=("camera", "modality"))
    rows = ["rgb,nir,tir,camera"]
    for n in range(0, 12, 3):
        rows.append(f"{n}.png,{n + 1}.png,{n + 2}.png,c1" if n else f"{n}.png,,{n + 2}.png,")
    rows += ["20.png,13.png,21.png,c2"]  # one of its pictures is corrupt
    (table.parent / "three.csv").write_text("\n".join(rows) + "\n")
    source = SightingSource(read_images([table.parent / "three.csv"]))
    assert (len(source), source.images_per_row) == (5, 3)
    options = ExtractOptions("cpu", "fp32", fusion=fusion, shard=2)
    result = extract(folder, source, tmp_path / "e.parquet", options=options)
    assert (result.rows, len(result.corrupt)) == (4, 1)
    embeddings, _ = read_embeddings(tmp_path / "e.parquet")
    embedder = resight.load(folder, "cpu", "fp32", fusion=fusion)
    assert embeddings.sightings.arrow.equals(source.sightings.take(range(4)).arrow)
    assert_allclose(embeddings.vectors, embedder.embed(source.sightings.take(range(4))), atol=1e-5)
    assert (embeddings.info.fusion, embeddings.info.modalities) == (fusion, ("rgb", "nir", "tir"))


def test_a_source_without_a_picture_that_can_be_decoded(folder, table, tmp_path):
    result = extract(folder, table.parent / "13.png", tmp_path / "e.parquet", options=PLAIN)
    assert (result.rows, len(result.corrupt)) == (0, 1)
    with pytest.raises(DatasetError, match="there is nothing to embed"):
        extract(folder, SightingTable(), tmp_path / "f.parquet", options=PLAIN)
    with pytest.raises(ConfigError, match="knows no modality 'nir', only rgb"):
        extract(folder, SightingTable.of([Sighting({"nir": Path("x")})]), tmp_path / "f.parquet", options=PLAIN)
    assert not (tmp_path / "f.parquet.parts").exists()


@pytest.fixture
def faulty(tmp_path):
    """A table of good pictures and of every other kind of file."""
    root = tmp_path / "faulty"
    names = ["good0.png", "good1.png", "cut.jpg", "pipe.jpg", "empty.jpg", "folder.jpg", "text.png", "absent.png"]
    names += ["long" * 100 + ".png", "device.png"]
    for n, name in enumerate(names[:3]):
        picture(root / name, n)
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:300])
    os.mkfifo(root / "pipe.jpg")
    (root / "empty.jpg").touch()
    picture(root / "folder.jpg" / "good2.png", 2)
    (root / "text.png").write_text("no")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "table.csv").write_text("\n".join(["path", *names]) + "\n")
    return root


def test_faults_of_pictures_are_named_counted_and_skipped(folder, faulty, tmp_path):
    result = extract(folder, faulty / "table.csv", tmp_path / "e.parquet", options=replace(PLAIN, shard=3))
    assert result.rows == 2
    reasons = {Path(reason.split(".jpg")[0].split(".png")[0]).name: reason for reason in result.corrupt}
    assert len(result.corrupt) == len(reasons) == 8
    said = {"cut": "cut short", "pipe": "a pipe", "empty": "0 bytes", "folder": "a folder", "text": "no picture"}
    for name, text in {**said, "absent": "No such file", "device": "a device"}.items():
        assert text in reasons[name]
    assert "File name too long" in next(reason for name, reason in reasons.items() if name.startswith("longlong"))
    with pytest.raises(PictureError, match=r"cut\.jpg is cut short .*leave such images out with --on-corrupt skip"):
        extract(folder, faulty / "table.csv", tmp_path / "f.parquet", options=replace(PLAIN, on_corrupt="error"))


def test_a_folder_with_faulty_files(folder, faulty, tmp_path):
    """Pipes and folders are no pictures; a folder named as a picture is searched as any other."""
    result = extract(folder, faulty, tmp_path / "e.parquet", options=PLAIN)
    rows = read_embeddings(tmp_path / "e.parquet")[0].sightings.column("rgb")
    assert [Path(row).name for row in rows] == ["good2.png", "good0.png", "good1.png"]
    assert len(result.corrupt) == 3
    with pytest.raises(DatasetError, match=r"there is no picture, folder or table at .*pipe\.jpg"):
        extract(folder, faulty / "pipe.jpg", tmp_path / "f.parquet", options=PLAIN)


def test_names_that_are_not_utf_8(folder, faulty, tmp_path):
    (faulty / os.fsdecode(b"latin-\xe9.png")).write_bytes((faulty / "good0.png").read_bytes())
    result = extract(folder, faulty, tmp_path / "e.parquet", options=PLAIN)
    assert result.rows == 3
    assert [reason for reason in result.corrupt if "latin-" in reason]


def test_what_an_earlier_run_skipped_is_an_error_if_the_options_say_so(folder, table, tmp_path, monkeypatch):
    stop_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, table, tmp_path / "e.parquet", options=PLAIN)
    with pytest.raises(PictureError, match=r"13\.png is no picture"):
        extract(folder, table, tmp_path / "e.parquet", options=replace(PLAIN, on_corrupt="error"))
    assert extract(folder, table, tmp_path / "e.parquet", options=PLAIN).rows == 39


def test_only_the_owner_may_read_the_file_and_the_shards(folder, table, tmp_path, monkeypatch):
    out, parts = tmp_path / "new" / "e.parquet", tmp_path / "new" / "e.parquet.parts"
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        extract(folder, table, out, options=PLAIN)
    assert parts.stat().st_mode & 0o777 == 0o700
    names = ["0000000.parquet", "0000001.parquet", "plan.json"]
    assert sorted(path.name for path in parts.iterdir()) == names
    assert {path.stat().st_mode & 0o777 for path in parts.iterdir()} == {0o600}
    extract(folder, table, out, options=PLAIN)
    assert out.stat().st_mode & 0o777 == 0o600


def test_the_shards_are_joined_one_after_another(folder, table, tmp_path, monkeypatch):
    """No shard is read before the previous one is in a row group."""
    events = []
    read_table, write_table = pq.read_table, pq.ParquetWriter.write_table
    monkeypatch.setattr("resight.inference.embeddings._ROW_GROUP", 1)
    monkeypatch.setattr(pq, "read_table", lambda *names: events.append("read") or read_table(*names))

    def written(self, rows):
        events.append(rows.num_rows)
        write_table(self, rows)

    extract_shards = module.write_tables

    def joined(*arguments):
        monkeypatch.setattr(pq.ParquetWriter, "write_table", written)
        return extract_shards(*arguments)

    monkeypatch.setattr(module, "write_tables", joined)
    extract(folder, table, tmp_path / "e.parquet", options=PLAIN)
    assert events == ["read", 8, "read", 7, "read", 8, "read", 8, "read", 8]
    check(tmp_path / "e.parquet", folder, table)


def test_bytes_in_use_are_limited():
    limit = ByteLimit(100)
    used, start = [], threading.Barrier(8)

    def use(count):
        start.wait()
        for _ in range(20):
            with limit.reserve(count):
                used.append(limit.used)
                time.sleep(0.0005)

    threads = [threading.Thread(target=use, args=(count,)) for count in (10, 40, 40, 60, 60, 90, 100, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(used) == 8 * 20
    assert max(count for count in used if count < 250) <= 100
    assert 250 in used  # alone
    assert limit.used == 0
    with pytest.raises(ZeroDivisionError), limit.reserve(100):
        _ = 1 / 0
    assert limit.used == 0


def test_decoded_pictures_in_flight_are_limited_in_bytes(tmp_path, monkeypatch):
    """32 pictures of 0.75 MB with room for two of them: not more than two are decoded and not yet prepared."""
    size = 500 * 500 * 3
    paths = [picture(tmp_path / f"{n}.png", n, size=(500, 500)) for n in range(32)]
    stored = max(path.stat().st_size for path in paths)
    monkeypatch.setattr(decoding, "DECODED", ByteLimit(2 * (size + stored)))
    monkeypatch.setattr("resight.inference.extract.sources.available_cores", lambda: 8)
    lock, alive, most = threading.Lock(), 0, 0
    decode = decoding.decode

    def counted(*arguments):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return decode(*arguments)

    def prepare(image):
        nonlocal alive
        time.sleep(0.002)
        small = image[:, :4, :4].clone()
        with lock:
            alive -= 1
        return small

    monkeypatch.setattr(decoding, "decode", counted)
    rows = list(SightingSource(SightingTable.of(Sighting({"rgb": path}) for path in paths)).read(prepare))
    assert [row["rgb"] for row, _ in rows] == [str(path) for path in paths]
    assert {images["rgb"].shape for _, images in rows} == {(3, 4, 4)}
    assert most == 2
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PictureError, match="a pipe"):
        decode_prepared(tmp_path / "pipe", prepare)


def test_a_worker_that_is_killed_changes_nothing(folder, table, tmp_path):
    undisturbed, disturbed = tmp_path / "a.parquet", tmp_path / "b.parquet"
    extract(folder, table, undisturbed, workers=2, options=PLAIN)
    killed = []

    def kill():
        if progress.counts[-1] and not killed:
            killed.extend(process.pid for process in multiprocessing.active_children())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    progress = Counts(kill)
    result = extract(folder, table, disturbed, workers=2, options=PLAIN, progress=progress)
    assert len(killed) == 2
    assert result.retried
    for sentence in result.retried:
        assert sentence.startswith("a process died in shard ")
        assert ".png), which is tried again: attempt 2 of 3" in sentence
        assert sentence in progress.lines
    a, b = read_embeddings(undisturbed)[0], read_embeddings(disturbed)[0]
    assert_array_equal(a.vectors, b.vectors)
    assert a.sightings.arrow.equals(b.sightings.arrow)
    assert undisturbed.read_bytes() == disturbed.read_bytes()
    assert multiprocessing.active_children() == []


@dataclass(frozen=True)
class DeadlySource(SightingSource):
    """Kills the process that reads the row of one picture."""

    def part(self, rows):
        return DeadlySource(super().part(rows).sightings)

    def read(self, *arguments):
        if any(path.endswith("20.png") for path in self.sightings.column("rgb")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(*arguments)


def test_a_shard_that_kills_every_worker_is_named(folder, table, tmp_path):
    progress, out = Counts(), tmp_path / "e.parquet"
    with pytest.raises(
        ResightError, match=r"3 processes in succession died in shard 2 \(first image .*/16\.png\)"
    ) as error:
        extract(folder, DeadlySource(read_images([table])), out, workers=2, options=PLAIN, progress=progress)
    assert "\n" not in str(error.value)
    assert [line.split()[-3:] for line in progress.lines[1:]] == [["2", "of", "3"], ["3", "of", "3"]]
    assert multiprocessing.active_children() == []
    assert extract(folder, table, out, options=PLAIN).before >= 8  # the other shards are complete
    check(out, folder, table)


@pytest.mark.slow
def test_workers_that_always_die_end_with_status_2(folder, table, tmp_path):
    """Every process that the server of multiprocessing forks kills itself."""
    kill = "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), 9))"
    kill = f"import os, sys\nif any('forkserver' in word for word in sys.orig_argv): {kill}\n"
    (tmp_path / "sitecustomize.py").write_text(kill)
    command = [sys.executable, "-m", "resight.cli", "extract", str(folder), str(table), "--workers", "2"]
    command += ["--out", str(tmp_path / "e.parquet"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("resight: ")]
    assert len(lines) == 1
    assert f"{MAX_ATTEMPTS} processes in succession died in shard 0 (first image {table.parent}/0.png)" in lines[0]
    assert "Traceback" not in done.stderr


def descendants_of(process):
    path = Path(f"/proc/{process}/task/{process}/children")
    children = [int(word) for word in path.read_text().split()]
    return children + [descendant for child in children for descendant in descendants_of(child)]


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] not in ("Z", "X")
    except OSError:
        return False


SLOW = """
import sys, test_extract
from resight.inference.extract.extract import extract
if __name__ == "__main__":
    source = test_extract.SlowSource(test_extract.read_images([test_extract.Path(sys.argv[2])]))
    extract(sys.argv[1], source, sys.argv[3], workers=2, options=test_extract.PLAIN)
"""


@dataclass(frozen=True)
class SlowSource(SightingSource):
    """Says that a shard has begun, and then takes ten minutes for it."""

    def part(self, rows):
        return SlowSource(super().part(rows).sightings)

    def read(self, *arguments):
        print("begun", flush=True)
        time.sleep(600)
        return super().read(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("busy", [True, False])
def test_workers_end_with_their_parent(folder, table, tmp_path, busy):
    """The parent is killed while its workers embed, or while the server that forks them is still importing."""
    (tmp_path / "slow.py").write_text(SLOW)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    command = [sys.executable, str(tmp_path / "slow.py"), str(folder), str(table), str(tmp_path / "e.parquet")]
    environment = {**os.environ, "PYTHONPATH": path}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        if busy:
            assert [parent.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        while len(processes := descendants_of(parent.pid)) < (4 if busy else 2):  # multiprocessing has two of its own
            assert parent.poll() is None
            time.sleep(0.01)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 30
        while any(map(is_running, processes)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(is_running, processes))
    finally:
        parent.kill()
        parent.stdout.close()


def test_a_worker_that_died_without_a_task_is_replaced(folder, table, tmp_path, monkeypatch):
    worker = Worker(1)
    try:
        source = SightingSource(read_images([table]))
        task = tasks.Task(0, source.part(slice(2)), tmp_path / "s", ModelFolder(
            folder, "cpu", "fp32", False, "concat", "mean", None
        ), resight.load(folder, "cpu", "fp32").embedding_id)  # fmt: skip
        assert worker.submit(task).result(100) == 0
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        time.sleep(0.2)
        (tmp_path / "s").unlink()
        assert worker.submit(task).result(100) == 0
        assert tasks.shard_summary(tmp_path / "s") == (2, [], {})
    finally:
        worker.close()
    assert multiprocessing.active_children() == []


def extract_slowly(folder, table, out):
    """Extract in shards of one row, each after a pause; run in a process that is killed."""
    torch.set_num_threads(1)
    embed_part = tasks.embed_part

    def slow(embedder, part):
        time.sleep(0.02)
        return embed_part(embedder, part)

    tasks.embed_part = slow
    extract(folder, table, out, options=replace(PLAIN, shard=1))


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(folder, table, tmp_path):
    """RESIGHT_KILLS times; 4 where that is not set."""
    kills = int(os.environ.get("RESIGHT_KILLS", "4"))
    context = multiprocessing.get_context("forkserver")
    modules = ["resight.inference.extract.extract", "resight.data.readers.anything"]
    context.set_forkserver_preload(modules)  # imports torch once, not in each process
    out, parts, killed, rng = tmp_path / "e.parquet", tmp_path / "e.parquet.parts", 0, np.random.default_rng(0)
    while not out.exists():
        process = context.Process(target=extract_slowly, args=(folder, table, out))
        process.start()
        enough = count_shards(parts) + 40 // (kills + 1)
        while process.is_alive():
            count = count_shards(parts)
            if killed < kills and count >= enough:
                time.sleep(rng.uniform(0, 0.02))
                process.kill()
                process.join()
                killed += 1
                assert count_shards(parts) >= count or out.exists()
            time.sleep(0.002)
        process.join()
        assert out.exists() == (process.exitcode == 0)
        assert process.exitcode in (0, -signal.SIGKILL)
    assert killed == kills
    check(out, folder, table)


def count_shards(parts):
    try:
        return sum(name.endswith(".parquet") for name in os.listdir(parts))
    except FileNotFoundError:  # not made yet, or removed because all is done
        return 0


@pytest.mark.slow
def test_a_cluster_of_two_machines_resumes_when_a_worker_is_killed(folder, table, tmp_path, monkeypatch):
    """Ray's own nodes, as processes of this machine; what they embed is handed back and written here."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
        killed = []

        def kill():
            if not killed and progress.counts[-1]:
                killed.extend(ray_workers())
                os.kill(killed[0], signal.SIGKILL)

        progress, options = Counts(kill), replace(PLAIN, ray=cluster.address, shard=4)
        result = extract(folder, table, tmp_path / "e.parquet", options=options, progress=progress)
    finally:
        cluster.shutdown()
    assert (result.rows, result.before, len(result.corrupt)) == (39, 0, 1)
    assert killed
    assert progress.counts[-1] == 40
    check(tmp_path / "e.parquet", folder, table)


def ray_workers():
    """The processes that embed."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::" in line and "_Worker" in line]


def test_the_command_line(folder, table, tmp_path, capsys):
    out = tmp_path / "e.parquet"
    arguments = ["extract", str(folder), str(table), "--out", str(out), "--precision", "fp32", "--device", "cpu"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "39 embeddings (0 from an earlier run, 39 new" in printed.out
    assert "1 corrupt and skipped" in printed.out
    assert "skipped: " in printed.err
    check(out, folder, table)
    before = out.read_bytes()
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == before
    flipped = [*arguments[:4], str(tmp_path / "f.parquet"), *arguments[5:], "--flip", "on", "--json", "--quiet"]
    assert main(flipped) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 39
    check(tmp_path / "f.parquet", folder, table, flip=True)
    extract(folder, table, tmp_path / "g.parquet", options=PLAIN)
    assert_array_equal(read_embeddings(tmp_path / "g.parquet")[0].vectors, read_embeddings(out)[0].vectors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on-corrupt", "error", "--workers", "-1"], "--workers must be 1 or more, not -1"),
        (["--workers", "0"], "--workers must be 1 or more, not 0"),
        (["--workers", "2", "--ray", "local"], "exclude each other"),
        (["--min-confidence", "0.5"], "--min-confidence is for a video with --boxes"),
    ],
)
def test_options_are_checked_before_a_picture_is_read(table, tmp_path, capsys, options, message):
    assert main(["extract", "no-model", str(table), "--out", str(tmp_path / "e.parquet"), *options]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
