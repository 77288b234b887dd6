"""Batches, files and memory at their limits: sizes one below, at and one above, against plain lists."""

import threading
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import picture, small_model
from inference_helpers import card_of, sensitive_network
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as F

import resight
from resight.config.sections import Embedding
from resight.data.image import decode
from resight.data.sightings import Sighting, SightingTable
from resight.errors import ConfigError, DatasetError, EvaluationError
from resight.inference import compiled, decoding, embeddings, export, runtime
from resight.inference.decoding import ByteLimit, decode_prepared
from resight.inference.embedder import Embedder
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, read_batches, read_embeddings, write_embeddings
from resight.inference.inputs import Inputs, as_inputs, fuse
from resight.inference.similarity import similarity
from resight.inference.tracker_features import TrackerFeatures
from resight.retrieval.calibration import Calibration, Curve, SubsetCurve


def vectors_of(count, width=3, seed=0):
    x = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def table_of(count, first=0):
    return SightingTable.of(Sighting({"rgb": Path(f"{n + first}.png")}, identity=str(n)) for n in range(count))


def items_of(count, first=0, seed=0):
    return Embeddings(vectors_of(count, seed=seed), table_of(count, first), EmbeddingsInfo(dataset="x"))


@pytest.mark.parametrize("count", [1, 4, 5, 6, 11])
def test_files_are_written_in_steps_of_any_size(count, tmp_path, monkeypatch):
    """A step is as many rows as fit into a row group: 5 of 12 bytes."""
    monkeypatch.setattr(embeddings, "_ROW_GROUP", 60)
    query, gallery = items_of(count), items_of(7, 100, seed=1)
    for half in (False, True):
        write_embeddings(tmp_path / "e.parquet", query, gallery, half)
        found = read_embeddings(tmp_path / "e.parquet")
        for part, expected in zip(found, (query, gallery), strict=True):
            assert part.vectors.dtype == (np.float16 if half else np.float32)
            assert_allclose(part.vectors, expected.vectors, atol=1e-3 if half else 0)
            assert part.sightings.arrow.equals(expected.sightings.arrow)
            assert part.info.dataset == "x"
        assert found[0] is not found[1]
    for both in (None, query):
        write_embeddings(tmp_path / "e.parquet", query, both)
        a, b = read_embeddings(tmp_path / "e.parquet")
        assert a is b
        assert_array_equal(a.vectors, query.vectors)


def test_row_groups_are_closed_when_they_are_full(monkeypatch):
    tables = [pa.table({"x": pa.array(range(n), pa.int64())}) for n in (1, 2, 1, 4, 1)]  # 8 bytes a row
    sizes = {8: [1, 2, 1, 4, 1], 9: [3, 5, 1], 24: [3, 5, 1], 25: [4, 4, 1], 32: [4, 4, 1], 33: [8, 1], 999: [9]}
    for limit, expected in sizes.items():
        monkeypatch.setattr(embeddings, "_ROW_GROUP", limit)
        assert [group.num_rows for group in embeddings._row_groups(iter(tables))] == expected
    assert list(embeddings._row_groups(iter([]))) == []


@pytest.mark.parametrize("rows", [1, 6, 7, 8])
def test_files_are_read_some_rows_at_a_time(rows, tmp_path):
    items = items_of(7)
    write_embeddings(tmp_path / "e.parquet", items)
    parts = list(read_batches(tmp_path / "e.parquet", rows))
    assert [len(x) for x, _ in parts] == [min(rows, 7 - first) for first in range(0, 7, rows)]
    assert_array_equal(np.concatenate([x for x, _ in parts]), items.vectors)
    assert [name for _, table in parts for name in table["rgb"].to_pylist()] == [f"{n}.png" for n in range(7)]
    assert "embedding" not in parts[0][1].column_names


@pytest.mark.parametrize(
    ("length", "fits"), [(0.9905, True), (0.989, False), (1.0095, True), (1.011, False), (0, False)]
)
def test_lengths_within_a_hundredth(length, fits, tmp_path):
    items = items_of(7)
    items.vectors[4] *= length
    write_embeddings(tmp_path / "e.parquet", items)
    if fits:
        read_embeddings(tmp_path / "e.parquet")
        return
    with pytest.raises(EvaluationError, match=rf"row 4 has length {length:.3g}; embeddings"):
        list(read_batches(tmp_path / "e.parquet", 3))


def test_a_row_without_an_embedding_is_between_rows(tmp_path):
    items = items_of(4)
    table = embeddings.embeddings_table(items.vectors, items.sightings.arrow)
    rows = table["embedding"].to_pylist()
    column = pa.array([rows[0], rows[1], None, rows[3]], pa.list_(pa.float32(), 3))
    table = table.set_column(table.column_names.index("embedding"), "embedding", column)
    embeddings.write_tables(tmp_path / "e.parquet", [table], EmbeddingsInfo())
    with pytest.raises(EvaluationError, match="a row without an embedding between rows 2 and 4"):
        list(read_batches(tmp_path / "e.parquet", 2))


@pytest.mark.parametrize("limit", [0, 7 * 12 - 1, 7 * 12, 7 * 12 + 1])
def test_vectors_beyond_the_limit_are_mapped(limit, tmp_path, monkeypatch):
    items = items_of(7)
    write_embeddings(tmp_path / "e.parquet", items)
    monkeypatch.setattr(embeddings, "_IN_MEMORY", limit)
    found = read_embeddings(tmp_path / "e.parquet")[0].vectors
    assert isinstance(found, np.memmap) == (limit < 7 * 12)
    assert_array_equal(found, items.vectors)


def test_rows_that_follow_one_another_are_a_view():
    x = vectors_of(6)
    for rows, view in (([2, 3, 4], True), ([0], True), ([2, 4], False), ([], False), ([5, 0], False)):
        found = embeddings._take(x, rows)
        assert_array_equal(found, x[rows] if rows else x[:0])
        assert np.shares_memory(found, x) == view


def test_parts_of_a_file_in_any_order(tmp_path):
    items = items_of(6)
    parts = ["gallery", "both", "query", "query", "gallery", "both"]
    table = embeddings.embeddings_table(items.vectors, items.sightings.arrow, {"part": pa.array(parts)})
    embeddings.write_tables(tmp_path / "e.parquet", [table], EmbeddingsInfo())
    query, gallery = read_embeddings(tmp_path / "e.parquet")
    assert_array_equal(query.vectors, items.vectors[[1, 2, 3, 5]])
    assert_array_equal(gallery.vectors, items.vectors[[0, 1, 4, 5]])
    assert query.sightings.values("identity") == ["1", "2", "3", "5"]
    assert embeddings.is_embeddings(tmp_path / "e.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    assert not embeddings.is_embeddings(tmp_path / "other.parquet")
    assert not embeddings.is_embeddings(tmp_path / "no.parquet")
    with pytest.raises(DatasetError, match="is no file of embeddings"):
        read_embeddings(tmp_path / "other.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "m", modalities=("rgb", "tir"), jpm=True)


@pytest.fixture(scope="module")
def embedder():
    card = card_of(modalities=("rgb", "tir"), sie=("camera", "modality"))
    return Embedder(sensitive_network(card), card)


@pytest.fixture
def paths(tmp_path):
    return [picture(tmp_path / f"{n}.png", n, size=(30 + n, 70)) for n in range(5)]


@pytest.mark.parametrize(("batch_size", "images", "expected"), [
    (8, 1, 32), (8, 2, 16), (8, 3, 8), (8, 9, 4), (1, 1, 4), (8, 0, 32), (9, 3, 12),
])  # fmt: skip
def test_a_chunk_is_four_batches(embedder, monkeypatch, batch_size, images, expected):
    monkeypatch.setattr(embedder, "batch_size", batch_size)
    assert embedder.chunk_size(images) == expected


def test_the_width_counts_modalities_that_are_concatenated(folder):
    assert resight.load(folder, "cpu", "fp32").width == 2 * 5 * 64
    assert resight.load(folder, "cpu", "fp32", fusion="mean").width == 5 * 64


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_batches_of_any_size_give_the_same(embedder, paths, monkeypatch, size):
    """Sightings of one and two images, in batches, in order, with the progress after each."""
    sightings = [
        {"rgb": paths[0]}, {"rgb": paths[1], "tir": paths[2]}, {"tir": paths[3]}, {"rgb": paths[4], "tir": paths[0]},
        {"rgb": paths[2]},
    ]  # fmt: skip
    expected = np.concatenate([embedder.embed(sighting, camera="c2") for sighting in sightings])
    monkeypatch.setattr(embedder, "batch_size", size)
    counts = []
    found = embedder.embed(sightings, camera="c2", progress=counts.append)
    assert_allclose(found, expected, atol=1e-5)
    assert counts == {1: [1, 2, 3, 4, 5], 2: [1, 2, 3, 4, 5], 3: [2, 4, 5], 5: [3, 5], 8: [5]}[size]
    assert found.shape == (5, 128)
    assert not found[0, 64:].any()
    assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("flip", [True, False])
def test_preprocessed_images_by_hand(flip, unit):
    card = card_of(modalities=("rgb", "tir"), sie=("modality",), embedding=Embedding(precision="fp32", flip=flip))
    tried = Embedder(sensitive_network(card), card)
    images = torch.randn(3, 3, 64, 32)
    labels = {
        "camera": torch.full((3,), -1),
        "view": torch.full((3,), -1),
        "modality": torch.zeros(3, dtype=torch.int64),
    }
    with torch.no_grad():
        one, two = (tried.model.embed(x, labels) for x in (images, images.flip(-1)))
    one, two = (F.normalize(x) if unit else x for x in (one, two))
    expected = one if not flip else F.normalize(one + two) if unit else (one + two) / 2
    torch.testing.assert_close(tried.embed_tensor(images, normalize=unit), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tried.embed_tensor(images, labels, normalize=unit), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("limit", "left"), [(1, [1] * 7), (2, [1, 2, 2, 2]), (3, [3, 2, 2]), (6, [3, 4]), (7, [7])])
def test_batches_are_halved_until_they_fit(embedder, monkeypatch, limit, left):
    sizes, network = [], embedder.model.embed

    def limited(images, side_info):
        if len(images) > limit:
            raise torch.OutOfMemoryError("no more")
        sizes.append(len(images))
        return network(images, side_info)

    pixels = torch.randint(0, 256, (7, 3, 64, 32), dtype=torch.uint8)
    labels = {"camera": torch.arange(7) % 2, "view": torch.full((7,), -1), "modality": torch.arange(7) % 2}
    expected = embedder._forward(pixels, labels)
    monkeypatch.setattr(embedder, "batch_size", 7)
    monkeypatch.setattr(embedder, "_network", limited)
    assert_allclose(embedder._forward(pixels, labels), expected, atol=1e-5)
    assert sizes == left
    assert embedder.batch_size == {1: 1, 2: 1, 3: 2, 6: 3, 7: 7}[limit]


def test_unknown_cameras_count_where_two_are_known():
    sightings = SightingTable.of(Sighting({"rgb": Path("a")}, camera=name, view="v") for name in ("c2", "c9", "c1"))
    for cameras, sie, expected in (
        (("c1", "c2"), ("camera",), {"camera": ["c9"]}), (("c1",), ("camera",), {}), (("c1", "c2"), (), {}),
    ):  # fmt: skip
        card = card_of(cameras=cameras, sie=sie)
        assert Embedder(sensitive_network(card), card).unknown_labels(sightings) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
def test_compiled_batches_are_filled_up_to_powers_of_two(count, monkeypatch):
    sizes = []

    def network(images, side_info):
        sizes.append(len(images))
        assert torch.equal(images[count:], images[:1].expand(len(images) - count, -1, -1, -1))
        assert (side_info["camera"][count:] == side_info["camera"][0]).all()
        return images.flatten(1).sum(1, keepdim=True) + side_info["camera"][:, None]

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    monkeypatch.setattr(compiled, "import_module", lambda name: import_module("torch._inductor.config"))
    images, camera = torch.randn(count, 3, 2, 2), torch.arange(count) + 5
    found = compiled.compile_network(network)(images, {"camera": camera})
    torch.testing.assert_close(found, images.flatten(1).sum(1, keepdim=True) + camera[:, None])
    assert sizes == [{1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 8: 8, 9: 16}[count]]


def test_bytes_are_reserved_up_to_the_limit():
    limit, order = ByteLimit(10), []

    def use(count, release):
        with limit.reserve(count):
            order.append(count)
            release.wait(5)

    def begin(count):
        release = threading.Event()
        thread = threading.Thread(target=use, args=(count, release))
        thread.start()
        thread.join(0.05)
        return thread, release

    def end(thread, release):
        release.set()
        thread.join(5)

    four, six, one = begin(4), begin(6), begin(1)
    assert (order, limit.used) == ([4, 6], 10)  # exactly the limit
    end(*four)
    one[0].join(0.05)
    assert (order, limit.used) == ([4, 6, 1], 7)
    large = begin(11)
    assert limit.used == 7
    end(*six)
    large[0].join(0.05)
    assert limit.used == 1
    end(*one)
    large[0].join(0.05)
    assert (order, limit.used) == ([4, 6, 1, 11], 11)  # alone
    end(*large)
    assert limit.used == 0
    assert decoding.DECODED.limit == 256 * 2**20


def test_a_decoded_image_reserves_its_file_and_its_pixels(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png", size=(30, 72))
    limit = ByteLimit(1)
    monkeypatch.setattr(decoding, "DECODED", limit)
    size = path.stat().st_size + 3 * 30 * 72
    for source in (path, str(path), path.read_bytes()):
        used = []
        found = decode_prepared(source, lambda image, used=used: used.append(limit.used) or image)
        assert torch.equal(found, decode(path))
        assert used == [size]
    assert limit.used == 0


def test_labels_of_rows_by_hand():
    two = Sighting({"rgb": Path("a"), "tir": Path("b")}, camera="c1", view="left")
    inputs = as_inputs([two, "p", {"tir": "q"}], ["c2", None, "c3"], None, [None, "tir", None], ("rgb", "tir"))
    assert inputs.images == [Path("a"), Path("b"), "p", "q"]
    assert inputs.sighting.tolist() == [0, 0, 1, 2]
    assert inputs.modality == ["rgb", "tir", "tir", "tir"]
    assert inputs.camera == ["c2", "c2", None, "c3"]
    assert inputs.view == ["left", "left", None, None]
    assert inputs.count == 3
    numbers = inputs.numbers(("c3", "c2"), ("left",), ("rgb", "tir"))
    assert {kind: x.tolist() for kind, x in numbers.items()} == {
        "camera": [1, 1, -1, 0], "view": [0, 0, -1, -1], "modality": [0, 1, 1, 1],
    }  # fmt: skip
    assert as_inputs("p", None, None, None, ("tir",)).modality == ["tir"]
    assert as_inputs("p", None, None, None, ("nir", "tir")).modality == [None]
    assert as_inputs("p", None, None, None, ("nir", "rgb")).modality == ["rgb"]


def test_a_sighting_larger_than_a_batch_is_alone():
    blank = [None] * 9
    inputs = Inputs(list(range(9)), np.array([0, 1, 1, 1, 2, 3, 3, 4, 4]), blank, blank, blank, 5)
    for size, expected in ((1, [1, 3, 1, 2, 2]), (2, [1, 3, 1, 2, 2]), (3, [1, 3, 3, 2]), (4, [4, 3, 2]), (5, [5, 4])):
        assert [part.stop - part.start for part in inputs.batches(size)] == expected


def test_fusion_by_hand():
    rows = np.float32([[1, 0], [0, 1], [0.6, 0.8]])
    sighting, modality = np.array([0, 0, 1]), np.array([2, 0, 1])
    half = np.sqrt(0.5)
    fused = fuse(rows, sighting, modality, 2, 3, "concat")
    assert_allclose(fused, [[0, half, 0, 0, half, 0], [0, 0, 0.6, 0.8, 0, 0]], atol=1e-6)
    assert_allclose(fuse(rows, sighting, modality, 3, 3, "mean"), [[half, half], [0.6, 0.8], [0, 0]], atol=1e-6)
    assert_allclose(fuse(rows, np.arange(3), np.full(3, -1), 3, 1, "concat"), rows)
    with pytest.raises(ConfigError, match="name each picture's modality"):
        fuse(rows, sighting, np.array([0, 1, -1]), 2, 2, "concat")


class Fake:
    """An embedder of the mean colour; the two vectors of a comparison are given."""

    width = 3

    def __init__(self, calibration=None, vectors=None):
        self.calibration, self.vectors, self.crops = calibration, vectors, []

    def calibration_for_use(self):
        return self.calibration

    def modalities_of(self, images, modality=None):
        return [modality] * len(images)

    def embed(self, images, camera=None, modality=None):
        self.crops += [np.array(image) for image in images]
        means = [np.asarray(image).reshape(-1, 3).mean(0) for image in images] if self.vectors is None else self.vectors
        return np.array(means, np.float32).reshape(-1, 3)


def test_a_similarity_at_its_threshold_is_known():
    curve = Calibration(
        slope=1.0, offset=0.0, similarity=(0.0, 1.0), probability=(0.1, 0.9), threshold=0.5, false_match_rate=0.1,
        true_match_rate=0.5, dataset="x", same=1, different=1,
    )  # fmt: skip
    for second, known in (([0.5, 0, 0], True), ([0.499, 0, 0], False), ([0.501, 0, 0], True)):
        fake = Fake(curve, [[1, 0, 0], second])
        found = similarity(fake, "a", "b", prior=0.2)
        assert found.known is known
        assert found.similarity == pytest.approx(second[0])
        odds = (0.1 + 0.8 * second[0]) / (0.9 - 0.8 * second[0]) * 0.25
        assert found.probability == pytest.approx(odds / (1 + odds), rel=1e-5)
    pair = SubsetCurve(query="rgb", gallery="rgb", **{name: getattr(curve, name) for name in Curve.model_fields})
    pair = pair.changed(threshold=0.4, probability=(0.2, 1.0))
    fake = Fake(curve.changed(subsets=(pair,)), [[1, 0, 0], [0.45, 0, 0]])
    assert similarity(fake, "a", "b", modalities="rgb").known, "the modalities of both have a curve of their own"
    assert similarity(fake, "a", "b", modalities="rgb").probability == pytest.approx(0.2 + 0.8 * 0.45, rel=1e-5)
    assert not similarity(fake, "a", "b").known
    for prior in (0, 1, -0.1, 1.1, True, "0.5"):
        with pytest.raises(ConfigError, match="must lie between 0 and 1"):
            similarity(Fake(curve), "a", "b", prior=prior)


def test_boxes_are_cut_by_a_loop():
    frame = np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8)
    boxes = np.array(
        [[0, 0, 14, 10], [1.5, 2.5, 3.1, 4.9], [-3, 8, 1, 30], [13, 9, 14, 10], [14, 0, 20, 5], [5, 5, 5, 8]]
    )
    for bgr in (True, False):
        fake = Fake()
        features = TrackerFeatures(fake, bgr=bgr)(frame, boxes)
        shown = frame[..., ::-1] if bgr else frame
        expected = [shown, shown[2:5, 1:4], shown[8:10, 0:1], shown[9:10, 13:14], shown[0:5, 13:14], shown[5:8, 5:6]]
        assert len(fake.crops) == 6
        for crop, region in zip(fake.crops, expected, strict=True):
            assert_array_equal(crop, region)
        assert_allclose(features, [region.reshape(-1, 3).mean(0) for region in expected], rtol=1e-6)


@pytest.mark.parametrize("images", [True, False])
def test_trials_of_an_export(images, embedder):
    resized = [torch.full((3, 64, 32), n, dtype=torch.uint8) for n in range(4)] if images else []
    labels = []
    for seed, size in ((0, 1), (1, 2), (3, 40)):
        batch = export.trial(embedder, size, resized, seed)
        assert list(batch) == ["images", "camera", "view", "modality"]
        assert (batch["images"].shape, batch["images"].dtype) == ((size, 3, 64, 32), torch.uint8)
        if images:
            assert batch["images"][:, 0, 0, 0].tolist() == [(seed + n) % 4 for n in range(size)]
        labels.append(batch)
    assert images or int(labels[2]["images"].max()) == 255
    assert set(labels[2]["camera"].tolist()) == {-1, 0, 1}
    assert set(labels[2]["view"].tolist()) == {-1, 0}
    assert set(labels[2]["modality"].tolist()) == {-1, 0, 1}


def test_the_smallest_cosine_of_all_trials():
    def network(images):
        return F.normalize(images)

    trials = [{"images": torch.randn(n, 4)} for n in (1, 3)]
    right = [network(**trial).numpy() for trial in trials]
    right[1][2] *= 0.25
    given = iter(right)
    assert export._min_cosine(network, lambda inputs: next(given), trials) == pytest.approx(0.25)
    assert export._min_cosine(network, lambda inputs: np.ones((1, 1)), trials) == -1
    given = iter([right[0], np.full((3, 4), np.nan)])
    assert np.isnan(export._min_cosine(network, lambda inputs: next(given), trials))
    assert (export.MIN_COSINE, export.MIN_COSINE_INT8, export._BATCHES) == (0.9999, 0.995, (1, 2, 17))


def test_int8_takes_16_images(embedder, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(export, "_write_checked", lambda *arguments: written.append(arguments))
    images = [np.zeros((4, 4, 3), np.uint8)] * 16
    with pytest.raises(ConfigError, match="give 16 or more, not 15"):
        resight.export(embedder, tmp_path / "x", "onnx", images[:15], int8=True)
    resight.export(embedder, tmp_path / "x", "onnx", images, int8=True, target="avx2")
    resight.export(embedder, tmp_path / "x", "onnx", images[:1])
    assert [arguments[-1] for arguments in written] == ["avx2", None]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 65])
def test_a_runtime_embeds_in_batches_of_32(count):
    metadata = runtime.ExportMetadata(
        kind="onnx", file="x", embedding_id="i", row_width=2, size=(4, 3), interpolation="bilinear",
        cameras=("c1", "c2"), modalities=("rgb", "tir"),
    )  # fmt: skip
    sizes = []

    def network(inputs):
        sizes.append(len(inputs["images"]))
        assert inputs["images"].shape[1:] == (3, 4, 3)
        return np.stack([inputs["images"][:, 0, 0, 0] + 1.0, inputs["camera"] + 1.0], 1).astype(np.float32)

    exported = runtime.Runtime(metadata, network)
    images = [np.full((5, 6, 3), n, np.uint8) for n in range(count)]
    found = exported.embed(images, camera=["c2" if n % 2 else "c1" for n in range(count)], modality="tir")
    assert sizes == [min(32, count - first) for first in range(0, count, 32)]
    assert (exported.width, exported.embedding_id, found.shape) == (4, "i", (count, 4))
    for n in range(count):
        row = np.array([n + 1, 1 + n % 2])
        assert_allclose(found[n], [0, 0, *(row / np.linalg.norm(row))], rtol=1e-5)
    mean = runtime.Runtime(metadata.model_copy(update={"fusion": "mean"}), network)
    assert mean.width == 2
