"""ONNX files of other programs, and exported models, as models like any other."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import SHARED, picture
from inference_helpers import card_of, short_embedder
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import resight
from resight.cli import main
from resight.data.sightings import Split
from resight.errors import CheckpointError, ConfigError
from resight.inference import runtime
from resight.inference.embeddings import read_embeddings, read_info
from resight.inference.export import export
from resight.inference.extract.options import ExtractOptions
from resight.inference.extract.plan import resolve_model
from resight.inference.extract.tasks import _load
from resight.inference.import_onnx import import_onnx

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
OSNET, CUHK03 = SHARED / "weights" / "osnet_x0_25.onnx", SHARED / "data" / "cuhk03-np" / "detected"


def weights(width=5):
    return np.random.default_rng(1).normal(size=(3 * 4 * 2, width)).astype(np.float32)


def write(path: Path, shape=("b", 3, 16, 8), output=("b", 5), kind=TensorProto.FLOAT, nodes=None, extra=()):
    """A network that averages 4 x 4 pixels and maps them to 5 numbers, as another program would write it."""
    matrix = numpy_helper.from_array(weights(), "matrix")
    default = [
        helper.make_node("AveragePool", ["input"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["rows"]),
    ]
    inputs = [helper.make_tensor_value_info("input", kind, shape), *extra]
    outputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, output)]
    graph = helper.make_graph(nodes or default, "net", inputs, outputs, [matrix])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def expected(paths):
    """The embeddings by hand."""
    rows = []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((8, 16), Image.Resampling.BILINEAR)) / 255
        pixels = ((pixels - MEAN) / STD).transpose(2, 0, 1)
        means = pixels.reshape(3, 4, 4, 2, 4).mean((2, 4))
        row = means.reshape(-1) @ weights()
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return [picture(folder / f"{n}.png", n, size=(20, 40)) for n in range(5)]


@pytest.fixture
def imported(tmp_path):
    import_onnx(write(tmp_path / "net.onnx"), tmp_path / "model", MEAN, STD)
    return tmp_path / "model"


def test_embeddings_are_those_of_the_stated_preprocessing(imported, pictures):
    model = runtime.load(imported)
    assert (model.width, model.metadata.size) == (5, (16, 8))
    assert_allclose(model.embed(pictures), expected(pictures), atol=1e-5)
    embedder = resight.load(imported)
    assert_allclose(embedder.embed(pictures), expected(pictures), atol=0.02)  # torch resizes within 1 grey level
    assert (embedder.width, embedder.embedding_id) == (5, model.embedding_id)
    assert embedder.description == "onnx on the CPU, fp32; images of 16x8, batches of 32"
    images = torch.randn(2, 3, 16, 8)
    rows = images.reshape(2, 3, 4, 4, 2, 4).mean((3, 5)).flatten(1) @ torch.from_numpy(weights())
    assert_allclose(embedder.embed_tensor(images), torch.nn.functional.normalize(rows), atol=1e-5)
    with pytest.raises(ConfigError, match="unit length alone"):
        embedder.embed_tensor(images, normalize=False)


def test_a_graph_that_takes_one_image_at_a_time(tmp_path, pictures):
    import_onnx(write(tmp_path / "one.onnx", (1, 3, 16, 8), (1, 5)), tmp_path / "one", MEAN, STD)
    assert_allclose(runtime.load(tmp_path / "one").embed(pictures), expected(pictures), atol=1e-5)


def test_the_id_is_of_the_file_and_of_the_preprocessing(tmp_path):
    file = write(tmp_path / "net.onnx")
    other = write(tmp_path / "other.onnx", ("n", 3, 16, 8), ("n", 5))
    any_size = write(tmp_path / "any.onnx", ("n", 3, "h", "w"), ("n", 5))
    models = [
        import_onnx(file, tmp_path / "0", MEAN, STD),
        import_onnx(file, tmp_path / "1", (0.4, 0.5, 0.5), STD),
        import_onnx(file, tmp_path / "2", MEAN, (0.2, 0.3, 0.3)),
        import_onnx(file, tmp_path / "3", MEAN, STD, interpolation="bicubic"),
        import_onnx(other, tmp_path / "4", MEAN, STD),
        import_onnx(any_size, tmp_path / "5", MEAN, STD, size=(16, 8)),
    ]
    assert len({model.embedding_id for model in models}) == len(models)
    assert import_onnx(file, tmp_path / "again", MEAN, STD, (16, 8)).embedding_id == models[0].embedding_id


def test_the_commands_take_it(imported, market, tmp_path, capsys):
    root = ["--dataset", "market1501", "--root", str(market)]
    assert main(["evaluate", str(imported), *root, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert 0 < figures["mAP"] <= 1
    split = resight.read_dataset("market1501", market)
    assert resight.evaluate(imported, split).summary()["mAP"] == pytest.approx(figures["mAP"])
    out = tmp_path / "rows.parquet"
    assert main(["extract", str(imported), str(market / "query"), "--out", str(out)]) == 0
    several = resolve_model(imported, ExtractOptions(), True, tmp_path / "parts").model
    assert _load(several).embedding_id == resight.load(imported).embedding_id  # of a worker
    assert read_info(out).embedding_id == resight.load(imported).embedding_id
    vectors, _ = read_embeddings(out)
    assert vectors.vectors.shape == (8, 5)
    with resight.create_gallery(tmp_path / "gallery", imported) as gallery:
        gallery.ingest(split.query)
    with resight.open_gallery(tmp_path / "gallery") as gallery:
        answer = gallery.search(split.query[0].images["rgb"], k=1)[0]
    assert answer[0].similarity == pytest.approx(1, abs=1e-5)
    frame = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    assert resight.TrackerFeatures(resight.load(imported))(frame, [[0, 0, 20, 20]]).shape == (1, 5)


def test_the_command(tmp_path, capsys):
    file = write(tmp_path / "net.onnx")
    command = ["import-onnx", str(file), "--out", str(tmp_path / "m"), "--mean", "0.4", "0.5", "0.6"]
    command += ["--std", "0.2", "0.3", "0.25"]
    assert main(command) == 0
    identifier = runtime.load(tmp_path / "m").embedding_id
    assert capsys.readouterr().out.split(": ")[1] == f"images of 16x8, embeddings of 5 numbers, id {identifier}\n"
    assert main(command) == 2
    assert "exists already and is not written over" in capsys.readouterr().err


def refuse(tmp_path, file, message, error=CheckpointError, **options):
    with pytest.raises(error, match=message) as caught:
        import_onnx(file, tmp_path / "out", **({"mean": MEAN, "std": STD} | options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_graphs_of_another_form(tmp_path):
    second = helper.make_tensor_value_info("labels", TensorProto.INT64, ("b",))
    flat = [helper.make_node("Flatten", ["input"], ["rows"])]
    cases = {
        "grey": ({"shape": ("b", 1, 16, 8)}, r"must have one input, images float32 \[B, 3, H, W\].*\[b, 1, 16, 8\]"),
        "last": ({"shape": ("b", 16, 8, 3)}, r"its inputs are: input float \[b, 16, 8, 3\]"),
        "eight": ({"shape": (8, 3, 16, 8), "output": (8, 5)}, r"its inputs are: input float \[8, 3, 16, 8\]"),
        "double": ({"kind": TensorProto.DOUBLE}, r"its inputs are: input double"),
        "rank": ({"shape": ("b", 3, 16)}, r"its inputs are: input float \[b, 3, 16\]"),
        "two": ({"extra": [second]}, r"its inputs are: input .*, labels int64 \[b\]"),
    }
    for name, (options, message) in cases.items():
        matrixless = {"nodes": flat} if name in ("grey", "last", "rank") else {}
        output = {} if "output" in options or not matrixless else {"output": ("b", "d")}
        if name == "double":
            output["nodes"] = [
                helper.make_node("Cast", ["input"], ["x"], to=TensorProto.FLOAT),
                helper.make_node("Flatten", ["x"], ["rows"]),
            ]
            output["output"] = ("b", "d")
        refuse(tmp_path, write(tmp_path / f"{name}.onnx", **options, **matrixless, **output), message)
    maps = write(
        tmp_path / "maps.onnx",
        output=("b", 3, 4, 2),
        nodes=[helper.make_node("AveragePool", ["input"], ["rows"], kernel_shape=[4, 4], strides=[4, 4])],
    )
    refuse(tmp_path, maps, r"must have one output, embeddings float32 \[B, D\].*rows float \[b, 3, 4, 2\]")


def test_files_that_cannot_be_used(tmp_path):
    file = write(tmp_path / "net.onnx")
    refuse(tmp_path, tmp_path / "none.onnx", "there is no file")
    (tmp_path / "text.onnx").write_text("hello")
    refuse(tmp_path, tmp_path / "text.onnx", "is no ONNX file that onnxruntime can open")
    (tmp_path / "half.onnx").write_bytes(file.read_bytes()[:-60])
    refuse(tmp_path, tmp_path / "half.onnx", "is no ONNX file that onnxruntime can open")
    refuse(tmp_path, file, "takes images of 16x8 pixels, not 32x16: leave size out", ConfigError, size=(32, 16))
    any_size = write(tmp_path / "any.onnx", ("n", 3, "h", "w"), ("n", 5))
    refuse(tmp_path, any_size, "takes images of any size: state the height and width", ConfigError)
    refuse(tmp_path, any_size, "fails on two images of 64x32 pixels", size=(64, 32))
    refuse(tmp_path, file, r"std\.1: Input should be greater than 0", ConfigError, std=(1, 0, 1))
    zeros = write(tmp_path / "zeros.onnx", nodes=[
        helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("Sub", ["flat", "flat"], ["rows"]),
    ], output=("b", "d"))  # fmt: skip
    refuse(tmp_path, zeros, "gives embeddings of noise that are zero, infinite or NaN")
    model = onnx.load(file)
    external = tmp_path / "external"
    external.mkdir()
    onnx.save(model, external / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data")
    refuse(tmp_path, external / "net.onnx", "is no ONNX file that onnxruntime can open")  # without net.data beside it


def test_a_changed_file_is_refused(imported):
    file = imported / "model.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        resight.load(imported)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    embedder = short_embedder(card_of())
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(embedder, folder, "onnx")
    return embedder, folder


def test_an_exported_model_is_loaded_like_its_folder(exported, market):
    """So the figures of an export can be measured by `resight evaluate`."""
    embedder, folder = exported
    loaded = resight.load(folder)
    split = resight.read_dataset("market1501", market)
    assert_allclose(loaded.embed(split.query), embedder.embed(split.query), atol=2e-3)
    assert_allclose(
        loaded.embed([split.query[0].images["rgb"]], camera="c2"),
        embedder.embed([split.query[0].images["rgb"]], camera="c2"), atol=2e-3,
    )  # fmt: skip
    assert loaded.embedding_id == embedder.embedding_id
    assert resight.evaluate(folder, split).summary() == pytest.approx(resight.evaluate(embedder, split).summary())


def test_an_exported_model_has_its_settings(exported, tmp_path):
    _, folder = exported
    assert resight.load(folder, flip=False, fusion="auto", precision="fp32").settings.flip is False
    for options in ({"flip": True}, {"precision": "bf16"}, {"unknown": "off"}, {"fusion": "mean"}, {"compile": True},
                    {"scaling": {"rgb": ("limits", 0.0, 9.0)}}):  # fmt: skip
        with pytest.raises(ConfigError, match=f"is an exported model with {next(iter(options))}"):
            resight.load(folder, **options)
    with pytest.raises(ConfigError, match="runs on the CPU here, not on cuda"):
        resight.load(folder, "cuda")
    with pytest.raises(ConfigError, match="whose network is one file: give the model folder"):
        export(resight.load(folder), tmp_path / "again", "onnx")
    with pytest.raises(ConfigError, match="takes 8-bit images, and normalizes them itself"):
        resight.load(folder).embed_tensor(torch.zeros(1, 3, 64, 32))
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.onnx").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        resight.load(tmp_path / "broken")


@pytest.mark.skipif(not (OSNET.is_file() and CUHK03.is_dir()), reason="no ../shared with OSNet and CUHK03-NP")
def test_osnet_of_msmt17_on_a_part_of_cuhk03(tmp_path):
    """Zero-shot, on 12 identities, against onnxruntime, Pillow and loops. All of CUHK03-NP gives mAP 8.58 and R1 7.86
    (benchmarks/distillation/README.md)."""
    import onnxruntime

    model = import_onnx(OSNET, tmp_path / "osnet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None, "bicubic")
    whole = resight.read_dataset("cuhk03", CUHK03)
    known = whole.query.values("identity")[:12]
    split = Split(whole.name, whole.train, whole.query.of_identities(known), whole.gallery.of_identities(known))
    summary = resight.evaluate(tmp_path / "osnet", split).summary()

    session = onnxruntime.InferenceSession(str(OSNET))

    def rows(table):
        images = [np.asarray(Image.open(s.images["rgb"]).resize((128, 256), Image.Resampling.BICUBIC)) for s in table]
        pixels = (np.stack(images) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        vectors = session.run(None, {session.get_inputs()[0].name: pixels.transpose(0, 3, 1, 2).astype(np.float32)})[0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    query, gallery = rows(split.query), rows(split.gallery)
    assert_allclose(model.embed([s.images["rgb"] for s in split.query]), query, atol=1e-5)
    precisions = []
    for vector, q in zip(query, split.query, strict=True):
        ranked = sorted(zip(-gallery @ vector, split.gallery, strict=True), key=lambda pair: pair[0])
        matches = [g.identity == q.identity for _, g in ranked if (g.identity, g.camera) != (q.identity, q.camera)]
        ranks = [rank for rank, match in enumerate(matches, 1) if match]
        precisions.append(np.mean([n / rank for n, rank in enumerate(ranks, 1)]))
    assert summary["mAP"] == pytest.approx(np.mean(precisions), abs=0.02)  # torch resizes within 1 grey level
    assert 0.2 < summary["mAP"] < 0.9
