"""Extraction: the embedder's numbers, in order, once each, however it was stopped."""

import json
import multiprocessing
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from conftest import picture, small_model
from inference_helpers import extract_slowly
from numpy.testing import assert_allclose, assert_array_equal

import resight
from resight.cli import main
from resight.data.readers.anything import read_images
from resight.errors import ConfigError
from resight.inference.embeddings import read_embeddings
from resight.inference.extract import extract as module
from resight.inference.extract.executors import local, ray
from resight.inference.extract.extract import ExtractOptions, extract
from resight.inference.extract.sources import SightingSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "m")


def source_of(table):
    return SightingSource(read_images([table]))


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


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_embeddings_in_the_order_of_the_pictures(folder, table, tmp_path, processes):
    calls = []
    result = extract(
        ExtractOptions(folder, "cpu", "fp32"),
        source_of(table),
        tmp_path / "e.parquet",
        local(processes),
        lambda *counts: calls.append(counts),
        7,
    )
    assert (result.rows, result.before) == (39, 0)
    assert len(result.corrupt) == 1
    assert "13.png is no picture" in result.corrupt[0]
    assert (calls[0], calls[-1]) == ((0, 40), (40, 40))
    assert len(calls) == 1 + 6
    check(tmp_path / "e.parquet", folder, table)


def test_an_interrupted_run_resumes_and_one_of_other_pictures_does_not(folder, table, tmp_path, monkeypatch):
    out, options = tmp_path / "e.parquet", ExtractOptions(folder, "cpu", "fp32")
    embed_part, sizes = module.embed_part, []

    def interrupted(embedder, part):
        sizes.append(len(part))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return embed_part(embedder, part)

    monkeypatch.setattr(module, "embed_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(options, source_of(table), out, local(), shard=8)
    assert not out.exists()
    refused = "was started with other images, another model or other settings"
    with pytest.raises(ConfigError, match=refused):
        extract(options, source_of(table).part(slice(9)), out, local(), shard=8)
    for name, value in {"flip": True, "fusion": "mean", "unknown": "off", "precision": "auto"}.items():
        changed = ExtractOptions(folder, "cpu", **{"precision": "fp32", name: value})
        with pytest.raises(ConfigError, match=refused):
            extract(changed, source_of(table), out, local(), shard=8)
    with pytest.raises(ConfigError, match=refused):
        extract(options, source_of(table), out, local(), shard=4)
    with pytest.raises(ConfigError, match=refused):
        extract(ExtractOptions(small_model(tmp_path / "m", mean=(0.4,) * 3)), source_of(table), out, local(), shard=8)
    calls = []
    resumed = ExtractOptions(folder, "cpu", "fp32", batch_size=3)  # vectors are the same at every batch size
    result = extract(resumed, source_of(table), out, local(), lambda *counts: calls.append(counts), shard=8)
    assert (result.rows, result.before) == (39, 15)  # of two shards, one of which had a corrupt picture
    assert calls[0] == (16, 40)
    assert sizes == [8, 8, 8, 8, 8, 8]
    check(out, folder, table)
    with pytest.raises(ConfigError, match="exists already"):
        extract(options, source_of(table), out, local())


def test_settings_of_the_card_and_of_the_options(folder, table, tmp_path):
    options = ExtractOptions(folder, "cpu", "fp32", flip=True, unknown="off", batch_size=5)
    extract(options, source_of(table), tmp_path / "e.parquet", local())
    check(tmp_path / "e.parquet", folder, table, flip=True, unknown="off")
    embedder = resight.load(folder, "cpu", "fp32", flip=True, unknown="off")
    assert module.describe(options) == resight.load(folder, "cpu", "fp32", batch_size=5).description
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
    result = extract(
        ExtractOptions(folder, "cpu", "fp32", fusion=fusion), source, tmp_path / "e.parquet", local(), shard=2
    )
    assert (result.rows, len(result.corrupt)) == (4, 1)
    embeddings, _ = read_embeddings(tmp_path / "e.parquet")
    embedder = resight.load(folder, "cpu", "fp32", fusion=fusion)
    assert embeddings.sightings.arrow.equals(source.sightings.take(range(4)).arrow)
    assert_allclose(embeddings.vectors, embedder.embed(source.sightings.take(range(4))), atol=1e-5)
    assert (embeddings.info.fusion, embeddings.info.modalities) == (fusion, ("rgb", "nir", "tir"))


def test_a_source_without_a_picture_that_can_be_decoded(folder, table, tmp_path):
    source = source_of(table).part(slice(13, 14))
    result = extract(ExtractOptions(folder, "cpu", "fp32"), source, tmp_path / "e.parquet", local())
    assert (result.rows, len(result.corrupt)) == (0, 1)


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_doubled(folder, table, tmp_path):
    """RESIGHT_KILLS times; 4 where that is not set."""
    kills = int(os.environ.get("RESIGHT_KILLS", "4"))
    context = multiprocessing.get_context("forkserver")
    modules = ["resight.inference.extract.executors", "resight.data.readers.anything"]
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
                assert count_shards(parts) >= count
            time.sleep(0.002)
        process.join()
        assert out.exists() == (process.exitcode == 0)
        assert process.exitcode in (0, -signal.SIGKILL)
    assert killed == kills
    check(out, folder, table)


def count_shards(parts):
    return len(list(parts.glob("*.parquet")))


@pytest.mark.slow
def test_a_cluster_of_two_machines_resumes_when_a_worker_is_killed(folder, table, tmp_path, monkeypatch):
    """Ray's own nodes, as processes of this machine; what they embed is handed back and written here."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=100_000_000, include_dashboard=False)
        counts, killed = [], []

        def progress(count, total):
            counts.append(count)
            if not killed and count:
                killed.extend(workers())
                os.kill(killed[0], signal.SIGKILL)

        result = extract(
            ExtractOptions(folder, "cpu", "fp32"),
            source_of(table),
            tmp_path / "e.parquet",
            ray(cluster.address),
            progress,
            4,
        )
    finally:
        cluster.shutdown()
    assert (result.rows, result.before, len(result.corrupt)) == (39, 0, 1)
    assert killed
    assert counts[-1] == 40
    check(tmp_path / "e.parquet", folder, table)


def workers():
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
    assert "is not written over" in capsys.readouterr().err
    assert out.read_bytes() == before
    flipped = [*arguments[:4], str(tmp_path / "f.parquet"), *arguments[5:], "--flip", "on", "--json", "--quiet"]
    assert main(flipped) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 39
    check(tmp_path / "f.parquet", folder, table, flip=True)
    extract(ExtractOptions(folder, "cpu", "fp32"), source_of(table), tmp_path / "g.parquet", local())
    assert_array_equal(read_embeddings(tmp_path / "g.parquet")[0].vectors, read_embeddings(out)[0].vectors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers must be 1 or more, not 0"),
        (["--workers", "2", "--ray", "local"], "exclude each other"),
        (["--min-confidence", "0.5"], "--min-confidence is for a video with --boxes"),
    ],
)
def test_options_are_checked_before_a_picture_is_read(table, tmp_path, capsys, options, message):
    assert main(["extract", "no-model", str(table), "--out", str(tmp_path / "e.parquet"), *options]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
