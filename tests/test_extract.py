"""Extraction: the embedder's numbers, in order, once each, however it was stopped."""

import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import picture
from numpy.testing import assert_allclose

import resight
from resight.cli import main
from resight.datasets.anything import read_anything
from resight.errors import ConfigError
from resight.extract import Way, extract
from resight.loading.batch import Vocabulary
from resight.model.folder import Card, fill_model_folder
from resight.sections import Model, Pictures
from resight.storage import write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    settings = Model(backbone="test_vit", side=("camera",))
    card = Card(model=settings, pictures=Pictures(size=(64, 32)), vocabulary=Vocabulary(("a", "b"), ("c1", "c2")))
    path = tmp_path_factory.mktemp("model") / "m"
    write_folder(path, lambda p: fill_model_folder(p, card.build().state_dict(), card))
    return path


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
        Way(folder, "cpu", "fp32"),
        read_anything([table]),
        tmp_path / "e.parquet",
        processes,
        lambda *n: told.append(n),
        7,
    )
    assert (found.rows, found.before) == (39, 0)
    assert len(found.damaged) == 1
    assert "13.png is no picture" in found.damaged[0]
    assert told[0] == (0, 40)
    assert told[-1] == (40, 40)
    check(tmp_path / "e.parquet", folder, table)


def test_what_was_begun_goes_on_and_of_other_pictures_does_not(folder, table, tmp_path, monkeypatch):
    out, way = tmp_path / "e.parquet", Way(folder, "cpu", "fp32")
    real, calls = extract.__globals__["embed_rows"], []

    def stops(embedder, rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(embedder, rows)

    monkeypatch.setitem(extract.__globals__, "embed_rows", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(way, read_anything([table]), out, shard=8)
    with pytest.raises(ConfigError, match="was begun of other pictures"):
        extract(way, read_anything([table]).take(range(9)), out, shard=8)
    with pytest.raises(ConfigError, match="was begun of other pictures"):
        extract(Way(folder, "cpu", "fp32", flip=True), read_anything([table]), out, shard=8)
    found = extract(way, read_anything([table]), out, shard=8)
    assert (found.rows, found.before) == (39, 15)  # of two shards, one of which had a damaged picture
    assert calls == [8, 8, 8, 8, 8, 8]
    check(out, folder, table)
    with pytest.raises(ConfigError, match="exists already"):
        extract(way, read_anything([table]), out)


SLOWLY = """
import sys, time
from pathlib import Path
import resight.extract as e
real = e.embed_rows
def slow(embedder, rows):
    time.sleep(0.02)
    return real(embedder, rows)
e.embed_rows = slow
e.extract(e.Way(Path(sys.argv[1]), "cpu", "fp32"), e.SightingTable.read(Path(sys.argv[2])), Path(sys.argv[3]), shard=1)
"""


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(folder, table, tmp_path):
    read_anything([table]).write(tmp_path / "table.parquet")
    out, parts, before = tmp_path / "e.parquet", tmp_path / "e.parquet.parts", 0
    for _ in range(20):
        working = subprocess.Popen([sys.executable, "-c", SLOWLY, folder, tmp_path / "table.parquet", out])
        while working.poll() is None:
            there = len(list(parts.glob("*.parquet"))) if parts.exists() else 0
            if there >= before + 8:
                working.kill()
            time.sleep(0.005)
        working.wait()
        if out.exists():
            break
        now = len(list(parts.glob("*.parquet")))
        assert now >= before
        before = now
    check(out, folder, table)


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
