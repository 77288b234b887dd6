"""Extraction: the embedder's numbers, in order, once each, however it was stopped."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import picture, small_model
from numpy.testing import assert_allclose

import resight
from resight.cli import main
from resight.data.readers.anything import read_images
from resight.errors import ConfigError
from resight.inference.extract import extract as shards
from resight.inference.extract.executors import local, ray
from resight.inference.extract.extract import ExtractOptions, extract
from resight.inference.extract.sources import PictureSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "m")


def pictures_of(table):
    return PictureSource.of(read_images([table]))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """40 pictures with labels, one of them damaged."""
    root = tmp_path_factory.mktemp("pictures")
    rows = ["path,identity,camera,time"]
    for n in range(40):
        picture(root / f"{n}.png", n, n, size=(30, 60))
        rows.append(f"{n}.png,id{n % 5},c{1 + n % 2},{n}")
    (root / "13.png").write_bytes(b"no")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root / "table.csv"


def check(file, folder, table):
    found = pq.read_table(file)
    kept = [n for n in range(40) if n != 13]
    assert found.column("picture").to_pylist() == [str(table.parent / f"{n}.png") for n in kept]
    assert found.column("time").to_pylist() == kept
    model = resight.load(folder, "cpu", "fp32")
    assert found.schema.metadata[b"model"].decode() == model.fingerprint
    cameras = [f"c{1 + n % 2}" for n in kept]
    expected = model.embed([table.parent / f"{n}.png" for n in kept], camera=cameras)
    vectors = np.stack(found.column("embedding").to_pylist()).astype(np.float32)
    assert_allclose(vectors, expected, atol=1e-5)
    assert not file.with_name(f"{file.name}.parts").exists()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_embeddings_in_the_order_of_the_pictures(folder, table, tmp_path, processes):
    told = []
    found = extract(
        ExtractOptions(folder, "cpu", "fp32"),
        pictures_of(table),
        tmp_path / "e.parquet",
        local(processes),
        lambda *n: told.append(n),
        7,
    )
    assert (found.rows, found.before) == (39, 0)
    assert len(found.corrupt) == 1
    assert "13.png is no picture" in found.corrupt[0]
    assert told[0] == (0, 40)
    assert told[-1] == (40, 40)
    check(tmp_path / "e.parquet", folder, table)


def test_what_was_begun_goes_on_and_of_other_pictures_does_not(folder, table, tmp_path, monkeypatch):
    out, options = tmp_path / "e.parquet", ExtractOptions(folder, "cpu", "fp32")
    real, calls = shards.embed_part, []

    def stops(embedder, part):
        calls.append(len(part))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(embedder, part)

    monkeypatch.setattr(shards, "embed_part", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(options, pictures_of(table), out, local(), shard=8)
    with pytest.raises(ConfigError, match="was begun of other pictures"):
        extract(options, pictures_of(table).part(slice(9)), out, local(), shard=8)
    with pytest.raises(ConfigError, match="was begun of other pictures"):
        extract(ExtractOptions(folder, "cpu", "fp32", flip=True), pictures_of(table), out, local(), shard=8)
    found = extract(options, pictures_of(table), out, local(), shard=8)
    assert (found.rows, found.before) == (39, 15)  # of two shards, one of which had a damaged picture
    assert calls == [8, 8, 8, 8, 8, 8]
    check(out, folder, table)
    with pytest.raises(ConfigError, match="exists already"):
        extract(options, pictures_of(table), out, local())


SLOWLY = """
import sys, time
from pathlib import Path
from resight.inference.extract import executors as crews
from resight.inference.extract import extract as shards
from resight.inference.extract.sources import PictureSource
from resight.data.readers.anything import read_images
real = shards.embed_part
def slow(embedder, part):
    time.sleep(0.02)
    return real(embedder, part)
shards.embed_part = slow
source = PictureSource.of(read_images([Path(sys.argv[2])]))
shards.extract(shards.Way(Path(sys.argv[1]), "cpu", "fp32"), source, Path(sys.argv[3]), crews.local(), shard=1)
"""


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(folder, table, tmp_path):
    """RESIGHT_KILLS times, 4 by itself."""
    kills = int(os.environ.get("RESIGHT_KILLS", "4"))
    out, parts, killed, rng = tmp_path / "e.parquet", tmp_path / "e.parquet.parts", 0, np.random.default_rng(0)
    while not out.exists():
        working = subprocess.Popen([sys.executable, "-c", SLOWLY, folder, table, out])
        before = len(list(parts.glob("*.parquet"))) if parts.exists() else 0
        wanted = before + 40 // (kills + 1)
        while working.poll() is None:
            there = len(list(parts.glob("*.parquet"))) if parts.exists() else 0
            if killed < kills and there >= wanted:
                time.sleep(rng.uniform(0, 0.02))
                working.kill()
                working.wait()
                killed += 1
                assert len(list(parts.glob("*.parquet"))) >= there
            time.sleep(0.002)
        assert out.exists() == (working.returncode == 0)
    assert killed == kills
    check(out, folder, table)


@pytest.mark.slow
def test_a_cluster_of_two_machines_goes_on_when_a_worker_is_killed(folder, table, tmp_path, monkeypatch):
    """Ray's own nodes, as processes of this machine; what they embed is handed back and written here."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
        told, killed = [], []

        def progress(done, total):
            told.append(done)
            if not killed and done:
                killed.extend(workers())
                os.kill(killed[0], signal.SIGKILL)

        found = extract(
            ExtractOptions(folder, "cpu", "fp32"),
            pictures_of(table),
            tmp_path / "e.parquet",
            ray(cluster.address),
            progress,
            4,
        )
    finally:
        cluster.shutdown()
    assert (found.rows, found.before, len(found.corrupt)) == (39, 0, 1)
    assert killed
    assert told[-1] == 40
    check(tmp_path / "e.parquet", folder, table)


def workers():
    """The processes that embed."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "ray::" in line and "_Worker" in line]


def test_the_command_line(folder, table, tmp_path, capsys):
    words = [
        "extract",
        str(folder),
        str(table),
        "--out",
        str(tmp_path / "e.parquet"),
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "39 embeddings (0 from an earlier run, 39 now" in said.out
    assert "left out: " in said.err
    check(tmp_path / "e.parquet", folder, table)
    assert main(words) == 2
    assert "is not written over" in capsys.readouterr().err
