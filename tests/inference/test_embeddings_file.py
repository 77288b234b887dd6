"""The one file format of embeddings: what each writer writes, each reader reads."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inference_helpers import card_of, sensitive_model
from numpy.testing import assert_allclose, assert_array_equal

import resight
from resight.cli import main
from resight.data.catalog import read_dataset
from resight.data.sightings import SCHEMA, SightingTable
from resight.errors import DatasetError, EvaluationError, GalleryError
from resight.evaluation.evaluate import evaluate, evaluate_embeddings
from resight.gallery.ingest import sighting_id
from resight.inference import embeddings as module
from resight.inference.embeddings import (
    FORMAT,
    Embeddings,
    EmbeddingsInfo,
    embeddings_table,
    is_embeddings,
    read_batches,
    read_embeddings,
    read_info,
    write_embeddings,
    write_tables,
)  # fmt: skip
from resight.inference.extract.extract import ExtractOptions, extract

READ = f"this version of resight reads {FORMAT}: write it again"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    names = ("rgb", "nir", "tir")
    card = card_of(("1", "2"), names, sie=("camera", "modality"))
    return sensitive_model(tmp_path_factory.mktemp("model") / "m", card)


@pytest.fixture(scope="module")
def split(painted):
    """Query and gallery are two tables."""
    split = read_dataset("synthetic", painted)
    rows = range(len(split.query))
    return replace(split, query=split.query.take(rows[::2]), gallery=split.query.take(rows))


@pytest.fixture(scope="module")
def result(folder, split):
    return evaluate(resight.load(folder, "cpu", "fp32"), split)


def by_evaluate(path, folder, painted, half=False):
    arguments = [
        "evaluate",
        str(folder),
        "--dataset",
        "synthetic",
        "--root",
        str(painted),
        "--quiet",
        "--device",
        "cpu",
    ]
    arguments += ["--precision", "fp32", "--save-embeddings", str(path), *(["--half"] if half else [])]
    assert main(arguments) == 0


def by_half(path, folder, painted):
    by_evaluate(path, folder, painted, half=True)


def by_extract(path, folder, painted):
    extract(folder, read_dataset("synthetic", painted).query, path, options=ExtractOptions("cpu", "fp32", shard=5))


@pytest.mark.parametrize("write", [by_evaluate, by_half, by_extract])
def test_each_reader_reads_what_each_writer_writes(write, folder, painted, tmp_path, capsys):
    path, split = tmp_path / "e.parquet", read_dataset("synthetic", painted)
    write(path, folder, painted)
    embedder = resight.load(folder, "cpu", "fp32")
    expected, atol = embedder.embed(split.query), 1e-3 if write is by_half else 1e-5
    dtype = np.float16 if write is by_half else np.float32
    # its metadata
    assert is_embeddings(path)
    info = read_info(path)
    assert (info.format, info.embedding_id, info.fusion) == (FORMAT, embedder.embedding_id, "concat")
    assert info.modalities == ("rgb", "nir", "tir")
    # whole
    query, gallery = read_embeddings(path)
    assert gallery is query
    assert query.vectors.dtype == dtype
    assert_allclose(query.vectors, expected, atol=atol)
    assert query.sightings.arrow.equals(split.query.arrow)
    assert query.info == info
    # some rows at a time
    vectors, tables = zip(*read_batches(path, 3), strict=True)
    assert {len(x) for x in vectors[:-1]} == {3}
    assert_allclose(np.concatenate(vectors), expected, atol=atol)
    assert SightingTable(pa.concat_tables(tables).select(SCHEMA.names)).column("camera") == split.query.column("camera")
    # measured
    _, measured = evaluate_embeddings(path, device="cpu")
    assert measured.summary()["mAP"] == pytest.approx(evaluate(embedder, split).summary()["mAP"], abs=1e-3)
    capsys.readouterr()
    assert main(["evaluate", str(path), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mAP"] == pytest.approx(measured.summary()["mAP"])
    # in a gallery
    with resight.create_gallery(f"exact:{tmp_path / 'g'}", embedder) as gallery:
        report = gallery.ingest_embeddings(path)
        assert (report.added, report.already_present) == (len(split.query), 0)
        assert gallery.ingest_embeddings(path).already_present == len(split.query)
        stored = gallery.vectors([sighting_id(sighting) for sighting in split.query])
        assert_allclose(stored, expected, atol=atol)
        record = gallery.record(sighting_id(split.query[0]))
        assert record.images == {name: str(image) for name, image in split.query[0].images.items()}
        assert (record.identity, record.camera) == (split.query[0].identity, split.query[0].camera)
        assert gallery.ingest(split.query).already_present == len(split.query)  # the ids are the same
    assert main(["gallery", "create", f"exact:{tmp_path / 'h'}", "--model", str(folder)]) == 0
    assert main(["gallery", "add", f"exact:{tmp_path / 'h'}", "--embeddings", str(path)]) == 0
    with resight.open_gallery(f"exact:{tmp_path / 'h'}") as gallery:
        assert_allclose(gallery.vectors([sighting_id(sighting) for sighting in split.query]), expected, atol=atol)


def test_query_and_gallery_are_parts_of_one_file(result, tmp_path):
    write_embeddings(tmp_path / "e.parquet", result.query, result.gallery)
    query, gallery = read_embeddings(tmp_path / "e.parquet")
    for part, expected in ((query, result.query), (gallery, result.gallery)):
        assert_array_equal(part.vectors, expected.vectors)
        assert part.sightings.arrow.equals(expected.sightings.arrow)
        assert part.info == expected.info
    assert (query.info.dataset, query.info.protocol) == ("synthetic", result.protocol.name)
    name, again = evaluate_embeddings(tmp_path / "e.parquet", device="cpu")
    assert name == "synthetic"
    assert again.summary() == result.summary()


def test_parts_may_be_mixed(result, tmp_path):
    """A row of the part `both` is a query and in the gallery."""
    items = result.gallery
    parts = [("query", "gallery", "both")[n % 3] for n in range(len(items.vectors))]
    table = embeddings_table(items.vectors, items.sightings.arrow, {"part": pa.array(parts)})
    assert write_tables(tmp_path / "e.parquet", [table.slice(0, 3), table.slice(3)], items.info) == len(parts)
    sides = read_embeddings(tmp_path / "e.parquet")
    for side, name in zip(sides, ("query", "gallery"), strict=True):
        rows = [n for n, part in enumerate(parts) if part in (name, "both")]
        assert_array_equal(side.vectors, items.vectors[rows])
        assert side.sightings.arrow.equals(items.sightings.take(rows).arrow)


@pytest.mark.parametrize("half", [False, True])
def test_more_than_the_limit_is_memory_mapped(result, tmp_path, monkeypatch, half):
    path = tmp_path / "e.parquet"
    write_embeddings(path, result.query, result.gallery, half)
    rows, width = len(result.query.vectors) + len(result.gallery.vectors), result.query.vectors.shape[1]
    size = rows * width * (2 if half else 4)
    monkeypatch.setattr(module, "_ROWS", 3)
    monkeypatch.setattr(module, "_IN_MEMORY", size)
    in_memory = read_embeddings(path)
    assert not any(isinstance(side.vectors.base, np.memmap) for side in in_memory)
    monkeypatch.setattr(module, "_IN_MEMORY", size - 1)
    mapped = read_embeddings(path)
    for side, expected in zip(mapped, in_memory, strict=True):
        assert isinstance(side.vectors, np.memmap)
        assert_array_equal(side.vectors, expected.vectors)
        assert side.vectors.dtype == (np.float16 if half else np.float32)
    _, measured = evaluate_embeddings(path, device="cpu")
    assert measured.summary() == pytest.approx(result.summary(), abs=1e-2 if half else 1e-9)


@pytest.mark.parametrize("row", [0, 1, 4, 15])
@pytest.mark.parametrize("factor", [0.0, 0.98, 1.02, -2.0, np.nan, np.inf])
def test_a_vector_not_of_unit_length_in_any_row_is_refused(result, tmp_path, monkeypatch, row, factor):
    path, vectors = tmp_path / "e.parquet", result.gallery.vectors.copy()
    with np.errstate(invalid="ignore"):
        vectors[row] *= np.float32(factor)
    write_embeddings(path, replace(result.gallery, vectors=vectors))
    monkeypatch.setattr(module, "_ROWS", 3)
    with pytest.raises(EvaluationError, match=rf"row {row} has length .* must have length 1"):
        read_embeddings(path)
    with pytest.raises(EvaluationError, match=f"row {row} has length"):
        list(read_batches(path, 4))
    assert main(["evaluate", str(path)]) == 2


def test_a_gallery_takes_no_vector_that_is_not_of_unit_length(result, folder, tmp_path):
    vectors = result.gallery.vectors.copy()
    vectors[-1] *= 3
    write_embeddings(tmp_path / "e.parquet", replace(result.gallery, vectors=vectors))
    embedder = resight.load(folder, "cpu", "fp32")
    with resight.create_gallery(f"exact:{tmp_path / 'g'}", embedder) as gallery:
        with pytest.raises(EvaluationError, match="row 15 has length 3"):
            gallery.ingest_embeddings(tmp_path / "e.parquet")
        other = EmbeddingsInfo(embedding_id="0" * 16)
        write_embeddings(tmp_path / "other.parquet", replace(result.gallery, info=other))
        with pytest.raises(GalleryError, match="cannot be compared"):
            gallery.ingest_embeddings(tmp_path / "other.parquet")


def stated(table, **changes):
    """A Parquet file whose metadata is what a file states, with changes."""
    info = {**json.loads(EmbeddingsInfo().model_dump_json()), **changes}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({b"resight": json.dumps(info).encode()}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def table(result):
    return embeddings_table(result.gallery.vectors, result.gallery.sightings.arrow)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, f"has format 1, and {READ}"),
        ({"format": 3}, f"has format 3, and {READ}"),
        ({"format": 3, "newer": "field"}, f"has format 3, and {READ}"),
        ({"format": "two"}, "is no file of embeddings; write one with resight extract"),
        ({"fusion": 7}, "is no file of embeddings"),
        ({"other": 7}, "is no file of embeddings"),
    ],
)
def test_another_format_is_refused_in_one_sentence(table, tmp_path, changes, message):
    path = tmp_path / "e.parquet"
    path.write_bytes(stated(table, **changes))
    for read in (read_info, read_embeddings, lambda path: list(read_batches(path)), evaluate_embeddings):
        with pytest.raises(DatasetError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_files_that_are_something_else(table, tmp_path):
    (tmp_path / "text.parquet").write_text("no")
    pq.write_table(table, tmp_path / "plain.parquet")
    (tmp_path / "folder.parquet").mkdir()
    for name, message in (
        ("text", "cannot be read as embeddings"),
        ("absent", "cannot be read as embeddings"),
        ("folder", "folder"),
        ("plain", "is no file of embeddings"),
    ):
        path = tmp_path / f"{name}.parquet"
        assert not is_embeddings(path)
        with pytest.raises(DatasetError, match=message):
            read_embeddings(path)


@pytest.mark.parametrize("column", ["embedding", "rgb", "camera", "time"])
def test_a_missing_column_is_named(table, tmp_path, column):
    (tmp_path / "e.parquet").write_bytes(stated(table.drop_columns([column])))
    message = "is no file of embeddings" if column == "embedding" else f"has no column {column}"
    with pytest.raises(DatasetError, match=message):
        read_embeddings(tmp_path / "e.parquet")


def test_a_column_of_another_type(table, tmp_path):
    place = table.column_names.index("embedding")
    vectors = np.stack(table.column("embedding").to_pylist())
    columns = {
        "double": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel().astype(float)), vectors.shape[1]),
        "list<": pa.array([[1.0]] * len(vectors), pa.list_(pa.float32())),
        "string": pa.array(["1.0"] * len(vectors)),
    }
    for name, column in columns.items():
        (tmp_path / "e.parquet").write_bytes(stated(table.set_column(place, "embedding", column)))
        with pytest.raises(DatasetError, match=f"column embedding of .*{name}.*not a fixed-size list of float32"):
            read_embeddings(tmp_path / "e.parquet")
    kind = pa.list_(pa.float32(), 2)
    empty = pa.array([[1.0, 0.0]] * (len(vectors) - 1) + [None], kind)
    (tmp_path / "e.parquet").write_bytes(stated(table.set_column(place, "embedding", empty)))
    with pytest.raises(EvaluationError, match="a row without an embedding"):
        read_embeddings(tmp_path / "e.parquet")


def test_a_file_without_rows(tmp_path):
    none = Embeddings(np.zeros((0, 4), np.float32), SightingTable())
    write_embeddings(tmp_path / "e.parquet", none)
    with pytest.raises(DatasetError, match="holds no embeddings"):
        read_embeddings(tmp_path / "e.parquet")
    assert list(read_batches(tmp_path / "e.parquet")) == []


def test_a_file_is_written_whole_or_not_at_all(result, tmp_path, monkeypatch):
    path = tmp_path / "e.parquet"
    path.write_bytes(b"before")

    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(resight.StorageError, match="the disk is full"):
        write_embeddings(path, result.query)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["e.parquet"]


def test_only_the_owner_may_read_a_file(result, tmp_path):
    path = tmp_path / "e.parquet"
    write_embeddings(path, result.query, result.gallery)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    write_embeddings(path, result.query, result.gallery)
    assert path.stat().st_mode & 0o777 == 0o600


def test_tables_are_written_row_group_by_row_group(tmp_path):
    """64 tables of 4 MiB: never more than a few row groups are in memory, and all rows are in their order."""
    count, rows, width = 64, 2048, 512
    names = [f"{n}.png" for n in range(rows)]
    sightings = SightingTable(pa.table({n: names if n == "rgb" else pa.nulls(rows) for n in SCHEMA.names}).cast(SCHEMA))

    def tables():
        for n in range(count):
            vectors = np.zeros((rows, width), np.float32)
            vectors[:, n] = 1
            yield embeddings_table(vectors, sightings.arrow)

    before = pa.total_allocated_bytes()
    peaks = []

    def watched():
        for table in tables():
            peaks.append(pa.total_allocated_bytes() - before)
            yield table

    tracemalloc.start()
    assert write_tables(tmp_path / "e.parquet", watched(), EmbeddingsInfo()) == count * rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    limit = count * rows * width * 4 / 2
    assert max(peaks) + peak < limit
    file = pq.ParquetFile(tmp_path / "e.parquet")
    assert file.num_row_groups == 8
    numbers = np.concatenate([vectors.argmax(1) for vectors, _ in read_batches(tmp_path / "e.parquet", rows)])
    assert_array_equal(numbers, np.repeat(np.arange(count), rows))
