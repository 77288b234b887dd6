"""The same vectors from every verb: what was measured describes what is used.

`evaluate`, `calibrate`, `extract`, `Gallery.ingest`, `TrackerFeatures` and training's own evaluation embed the same
sightings with the same settings, in float32 on one thread.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from inference_helpers import card_of, sensitive_model, short_embedder
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import resight
from resight.config.evaluation import Evaluation
from resight.config.run import Run
from resight.config.sections import Embedding
from resight.data.catalog import read_dataset
from resight.data.image import decode
from resight.data.sightings import Sighting, SightingTable, Split
from resight.evaluation.calibrate import calibrate
from resight.evaluation.evaluate import evaluate
from resight.gallery.ingest import sighting_id
from resight.inference.embeddings import read_embeddings
from resight.inference.export import export
from resight.inference.extract.extract import ExtractOptions, extract
from resight.inference.runtime import load as load_exported
from resight.models.checkpoint import ModelCard
from resight.progress import Progress
from resight.retrieval.calibration import calibrate as fit
from resight.retrieval.open_set import BINS, Pairs
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext
from resight.training.loop import score

BATCH_SIZE = 7  # neither the sightings nor their images are a multiple of it
CASES = {
    "one modality": Embedding(precision="fp32", batch_size=BATCH_SIZE, unknown="off"),
    "three modalities, concat": Embedding(precision="fp32", batch_size=BATCH_SIZE, flip=True, fusion="concat"),
    "three modalities, mean": Embedding(precision="fp32", batch_size=BATCH_SIZE, flip=True, fusion="mean"),
}


@dataclass(frozen=True)
class Case:
    folder: Path
    split: Split
    card: ModelCard
    embedder: resight.Embedder
    vectors: np.ndarray
    """Of the queries, from `Embedder.embed`."""

    def other(self, batch_size: int) -> resight.Embedder:
        """The same embedder with another batch size."""
        return resight.load(self.folder, "cpu", batch_size=batch_size)


@pytest.fixture(scope="module", params=CASES)
def case(request, painted, tmp_path_factory) -> Case:
    """Query and gallery are two tables; some sightings lack modalities, a camera is unknown, as data sets have it."""
    split = read_dataset("synthetic", painted)
    one = request.param == "one modality"
    names = ("rgb",) if one else ("rgb", "nir", "tir")
    rng = np.random.default_rng(0)

    def changed(table: SightingTable) -> SightingTable:
        sightings = [replace(s, images={name: s.images[name] for name in names}) for s in table]
        for n in range(0, len(sightings), 3):
            absent = rng.choice(names[1:]) if names[1:] else None
            images = {name: path for name, path in sightings[n].images.items() if name != absent}
            camera = "not in training" if n % 2 else sightings[n].camera
            sightings[n] = replace(sightings[n], images=images, camera=camera)
        return SightingTable.of(sightings)

    query = changed(split.query)
    split = replace(split, train=changed(split.train), query=query, gallery=changed(split.gallery))
    sie = ("camera",) if one else ("camera", "modality")
    cameras = read_dataset("synthetic", painted).train.values("camera")
    card = card_of(cameras, names, CASES[request.param], sie=sie, jpm=True)
    folder = sensitive_model(tmp_path_factory.mktemp("model") / "m", card)
    embedder = resight.load(folder, "cpu")
    return Case(folder, split, card, embedder, embedder.embed(split.query))


def relative_error(vectors: np.ndarray, expected: np.ndarray) -> float:
    """The largest, over the rows, of the length of the difference over the length of the row."""
    assert vectors.shape == expected.shape
    difference = np.linalg.norm(vectors.astype(float) - expected, axis=1)
    return float((difference / np.linalg.norm(expected, axis=1)).max())


def test_the_vectors_are_of_unit_length_and_differ(case):
    assert_allclose(np.linalg.norm(case.vectors, axis=1), 1, atol=1e-6)
    products = case.vectors @ case.vectors.T
    assert products[~np.eye(len(products), dtype=bool)].max() < 1 - 1e-5


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_nothing_but_rounding(case, batch_size):
    assert relative_error(case.other(batch_size).embed(case.split.query), case.vectors) < 1e-5
    one_by_one = np.concatenate([case.other(batch_size).embed(sighting) for sighting in case.split.query])
    assert relative_error(one_by_one, case.vectors) < 1e-5


def test_evaluate(case):
    for model in (case.embedder, case.folder):
        result = evaluate(model, case.split)
        assert result.query.info.embedding_id == case.embedder.embedding_id
    assert_array_equal(evaluate(case.embedder, case.split).query.vectors, case.vectors)
    assert_array_equal(evaluate(case.embedder, case.split).gallery.vectors, case.embedder.embed(case.split.gallery))
    assert relative_error(evaluate(case.other(5), case.split).query.vectors, case.vectors) < 1e-5


def test_training_s_own_evaluation(case):
    settings = case.card.embedding
    for batch_size in (BATCH_SIZE, 5):
        section = settings.model_copy(update={"batch_size": batch_size})
        run = Run(
            dataset="synthetic", device="cpu", precision="fp32", model=case.card.model,
            preprocessing=case.card.preprocessing, embedding=section,
        )  # fmt: skip
        alone = DistributedContext(0, 1, torch.device("cpu"))
        context = TrainContext.create(run, case.card.vocabulary, alone, Progress(quiet=True))
        model = resight.load(case.folder, "cpu").model.train()
        result = score(context, model, case.split)
        assert model.training
        assert result.query.info.embedding_id == case.embedder.embedding_id
        if batch_size == BATCH_SIZE:
            assert_array_equal(result.query.vectors, case.vectors)
        else:
            assert relative_error(result.query.vectors, case.vectors) < 1e-5


def test_calibrate(case):
    """Fitted here from pairs in a loop, from the vectors of `embed`; equal in every number."""
    split = case.split
    gallery = case.embedder.embed(split.gallery)
    pairs = Pairs(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    for a, vector in zip(split.query, case.vectors, strict=True):
        for b, other in zip(split.gallery, gallery, strict=True):
            if a.identity == b.identity and a.camera == b.camera:
                continue  # the protocol's junk
            similarity = float(torch.from_numpy(vector[None]) @ torch.from_numpy(other[:, None]))
            counts = pairs.same if a.identity == b.identity else pairs.different
            counts[min(int(np.floor((similarity + 1) * BINS / 2)), BINS - 1)] += 1
    expected = fit(pairs, 0.1, split.name)
    calibration = calibrate(case.embedder, split, 0.1, store=False).calibration
    assert calibration.embedding_id == case.embedder.embedding_id
    assert (calibration.same, calibration.different) == (pairs.same.sum(), pairs.different.sum())
    assert calibration.threshold == pytest.approx(expected.threshold, abs=1e-5)
    assert calibration.true_match_rate == pytest.approx(expected.true_match_rate)
    assert_allclose((calibration.slope, calibration.offset), (expected.slope, expected.offset), rtol=1e-2, atol=1e-2)


def test_calibrate_sees_the_vectors_of_evaluate(case, monkeypatch):
    from resight.evaluation import calibrate as module

    results = []
    monkeypatch.setattr(module, "evaluate", lambda *options: results.append(evaluate(*options)) or results[-1])
    calibrate(case.embedder, case.split, 0.1, Evaluation(), store=False)
    assert_array_equal(results[0].query.vectors, case.vectors)


@pytest.mark.parametrize("shard", [1024, 5])
def test_extract(case, tmp_path, shard):
    file = tmp_path / "e.parquet"
    extract(case.folder, case.split.query, file, options=ExtractOptions("cpu", shard=shard))
    embeddings, _ = read_embeddings(file)
    assert embeddings.info.embedding_id == case.embedder.embedding_id
    assert embeddings.sightings.arrow.equals(case.split.query.arrow)
    if shard == 1024:
        assert_array_equal(embeddings.vectors, case.vectors)
    else:
        assert relative_error(embeddings.vectors, case.vectors) < 1e-5


def test_gallery_ingest(case, tmp_path):
    for n, embedder in enumerate((case.embedder, case.other(5))):
        with resight.create_gallery(f"exact:{tmp_path / str(n)}", embedder) as gallery:
            gallery.ingest(case.split.query)
            assert gallery.info.embedding_id == case.embedder.embedding_id
            vectors = gallery.vectors([sighting_id(sighting) for sighting in case.split.query])
            answers = gallery.search(list(case.split.query), k=1)
        if n == 0:
            assert_array_equal(vectors, case.vectors)
        assert relative_error(vectors, case.vectors) < 1e-5
        assert [hits[0].record.id for hits in answers] == [sighting_id(sighting) for sighting in case.split.query]
        assert min(hits[0].similarity for hits in answers) > 1 - 1e-4


def test_tracker_features(case):
    """The pictures of one camera side by side in one frame."""
    rows = [n for n, sighting in enumerate(case.split.query) if sighting.camera == case.split.query[1].camera]
    paths = [case.split.query[row].images["rgb"] for row in rows]
    pictures = [decode(path).permute(1, 2, 0).numpy() for path in paths]
    frame = np.concatenate(pictures, axis=1)
    edges = np.cumsum([0, *(x.shape[1] for x in pictures)])
    boxes = np.array([[left, 0, right, frame.shape[0]] for left, right in pairwise(edges)])
    camera = case.split.query[1].camera
    features = resight.TrackerFeatures(case.embedder, camera, bgr=False)(frame, boxes)
    assert len(rows) > 3
    sightings = [Sighting({"rgb": path}, camera=camera) for path in paths]
    assert_array_equal(features, case.embedder.embed(sightings))
    assert relative_error(features, case.other(3).embed(SightingTable.of(sightings))) < 1e-5
    if case.card.vocabulary.modalities == ("rgb",):
        assert relative_error(features, case.vectors[rows]) < 1e-5
    bgr = resight.TrackerFeatures(case.embedder, camera)(frame[..., ::-1], boxes)
    assert_array_equal(bgr, features)


def test_changed_settings_change_the_vectors(case):
    """Each setting has an effect here, so that the equalities above say something."""
    settings = case.card.embedding
    other = {"flip": not settings.flip, "unknown": "mean" if settings.unknown == "off" else "off"}
    if len(case.card.vocabulary.modalities) > 1:
        other["fusion"] = "mean" if settings.fusion == "concat" else "concat"
    for name, value in other.items():
        vectors = resight.load(case.folder, "cpu", **{name: value}).embed(case.split.query)
        assert vectors.shape != case.vectors.shape or relative_error(vectors, case.vectors) > 1e-3, name


# Exported models decode and resize for themselves


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """JPEG and PNG files of other sizes than the model's."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    names = []
    for n, (width, height) in enumerate([(37, 90), (200, 400), (32, 64), (31, 17), (500, 120), (64, 128)]):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 5, 3), np.uint8)).resize((width, height))
        noise = rng.integers(-25, 26, (height, width, 3))
        image = Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))
        for suffix in ("jpg", "png"):
            names.append(root / f"{n}.{suffix}")
            image.save(names[-1], quality=90)
    image.convert("L").save(root / "grey.jpg")
    image.convert("CMYK").save(root / "cmyk.jpg")
    image.quantize(16).save(root / "palette.png")
    return [*names, root / "grey.jpg", root / "cmyk.jpg", root / "palette.png"]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_exported_model_gives_the_embeddings_of_picture_files(kind, files, tmp_path):
    pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    card = card_of(modalities=("rgb", "nir", "tir"), sie=("camera", "modality"), jpm=True)
    settings = Embedding(precision="fp32", flip=True, unknown="off")
    embedder = short_embedder(card, settings)
    export(embedder, tmp_path / "out", kind)
    runtime = load_exported(tmp_path / "out", threads=1)
    assert runtime.embedding_id == embedder.embedding_id
    labels = {"camera": [("c1", "c2", None, "other")[n % 4] for n in range(len(files))]}
    labels["modality"] = [("rgb", "nir", "tir", None)[n % 4] for n in range(len(files))]
    sightings = [
        Sighting({"rgb": files[n], "nir": files[n + 1], "tir": files[n + 2]}, camera="c2") for n in range(0, 12, 3)
    ]
    sightings += [Sighting({"tir": files[0], "rgb": files[1]}), Sighting({"nir": files[3]})]
    for fusion in ("concat", "mean"):
        exact = short_embedder(card, settings.model_copy(update={"fusion": fusion}))
        same = replace(runtime, metadata=runtime.metadata.model_copy(update={"fusion": fusion}))
        assert same.width == exact.width
        require_cosine(same.embed(files, **labels), exact.embed(files, **labels))
        require_cosine(same.embed(sightings), exact.embed(sightings))
        require_cosine(same.embed(SightingTable.of(sightings)), exact.embed(sightings))
        require_cosine(same.embed(files[0]), exact.embed(files[0]))
        require_cosine(same.embed({"nir": str(files[2])}), exact.embed({"nir": files[2]}))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_exported_model_of_one_modality(interpolation, files, tmp_path):
    pytest.importorskip("onnxruntime")
    embedder = short_embedder(card_of(interpolation=interpolation, sie=("camera",)))
    export(embedder, tmp_path / "out", "onnx", files)
    require_cosine(load_exported(tmp_path / "out", 1).embed(files), embedder.embed(files))


def test_embeddings_depend_on_how_a_picture_is_resized(files):
    """So that a cosine above 0.9999 says that an exported model resizes as this library does."""
    embedder = short_embedder(card_of(modalities=("rgb", "nir", "tir"), sie=("camera", "modality"), jpm=True))
    others = [path for path in files if not path.stem.startswith("2")]  # the size of that one is the model's
    nearest = [Image.open(path).convert("RGB").resize((32, 64), Image.Resampling.NEAREST) for path in others]
    assert (embedder.embed(others) * embedder.embed(nearest)).sum(1).max() < 0.999
    products = embedder.embed(files[1:12:2]) @ embedder.embed(files[1:12:2]).T
    assert products[~np.eye(6, dtype=bool)].max() < 0.99


def require_cosine(embeddings: np.ndarray, expected: np.ndarray) -> None:
    """Every row is the same but for rounding, and a pixel that is off by one."""
    assert embeddings.shape == expected.shape
    assert embeddings.dtype == np.float32
    assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert (embeddings * expected).sum(1).min() > 0.9999
