"""Exported models: as near as they claim, refused where they are not, and run without torch."""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from bit_flips import FLIPS, flip_bit, truncate
from conftest import picture
from inference_helpers import card_of, sensitive_model, short_embedder
from numpy.testing import assert_allclose, assert_array_equal

import resight
from resight.cli import main
from resight.data.image import decode, resize
from resight.device import processor_kind
from resight.errors import CheckpointError, ConfigError, ExportError, PictureError
from resight.inference import export as exporting
from resight.inference import runtime
from resight.inference.embedder import Embedder
from resight.inference.export import export

pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

EMBED = """
import sys
sys.modules["torch"] = None
from resight.inference import runtime
model = runtime.load(sys.argv[1], 1)
print(model.embed(sys.argv[2:], camera="c2").tolist())
assert "timm" not in sys.modules
"""

# Every look-up of a name and every connection is refused and recorded in a file, since OpenVINO sends in a process that
# it forks in a thread.
NO_NETWORK = """
import socket, sys
from pathlib import Path
mode, out, calls, tests = sys.argv[1], *map(Path, sys.argv[2:])

def refuse(*arguments, **options):
    with calls.open("a") as file:
        file.write(f"{arguments}\\n")
    raise OSError("no network")

socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
socket.socket.connect = socket.socket.connect_ex = refuse
if mode == "imported":
    import openvino
    openvino.tools.ovc.telemetry.sender.executor.shutdown()  # waits
    openvino.tools.ovc.telemetry.sender.__init__()
    assert "www.google-analytics.com" in calls.read_text()  # else this test tests nothing
    calls.write_text("")
sys.path.insert(0, str(tests))
from inference_helpers import card_of, short_embedder
from resight.inference import runtime
from resight.inference.export import export
home = {path: path.stat().st_mtime_ns for path in Path.home().rglob("*")}
export(short_embedder(card_of()), out, "openvino")
runtime.load(out, 1)
assert home == {path: path.stat().st_mtime_ns for path in Path.home().rglob("*")}
assert ("openvino_telemetry" in sys.modules) == (mode == "imported")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sensitive_model(tmp_path_factory.mktemp("model") / "m", card_of(sie=("camera",)))


@pytest.fixture(scope="module")
def model():
    """A short network with side information of two kinds, JPM and overlapping patches."""
    settings = {"sie": ("camera", "modality"), "jpm": True, "stride": 12}
    return short_embedder(card_of(("c1", "c2", "c3"), ("rgb", "tir"), **settings))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    return [picture(root / f"{n}.png", n % 7, n, size=(32, 64)) for n in range(40)]


@pytest.fixture(scope="module")
def images(paths):
    return [resize(decode(path), (64, 32), "bilinear") for path in paths]


@pytest.fixture(scope="module")
def exported(model, paths, tmp_path_factory):
    """Export the model in float32 as a kind of file, once for all tests that change nothing in the folder."""
    return cache(lambda kind: export(model, tmp_path_factory.mktemp("float32") / "out", kind, paths[:5]))


@pytest.fixture(scope="module")
def quantized(model, images, tmp_path_factory):
    """The same in int8 for `avx2`, calibrated on the first 32 images."""

    def write(kind):
        return export(model, tmp_path_factory.mktemp("int8") / "out", kind, images[:32], int8=True, target="avx2")

    return cache(write)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch-export"])
def test_an_export_gives_what_the_model_gives(kind, exported, model, paths):
    modes = [module.training for module in model.model.modules()]
    result = exported(kind)
    out = result.folder
    assert result.cosine > 0.99999
    assert result.tried == 20 + (0 if kind == "torch-export" else 5)
    assert (out.is_dir(), result.target) == (True, None)
    assert [module.training for module in model.model.modules()] == modes
    assert metadata_of(out)["cosine"] == result.cosine
    labels = {"camera": ["c1", "c3", None, "c9", "c2"], "modality": ["rgb", "tir", None, "rgb", "tir"]}
    if kind == "torch-export":
        with pytest.raises(ConfigError, match=r"torch\.export\.load"):
            runtime.load(out)
        return
    small = runtime.load(out, threads=1)
    assert (small.width, small.embedding_id) == (model.width, model.embedding_id)
    assert_allclose(small.embed(paths[:5], **labels), model.embed(paths[:5], **labels), atol=1e-4)
    assert_allclose(small.embed(paths * 2), model.embed(paths * 2), atol=1e-4)  # more than a batch
    assert_allclose(small.embed(paths[0]), small.embed(paths[0].read_bytes()), atol=1e-6)
    assert small.embed([]).shape == (0, model.width)
    sighting = {"rgb": paths[0], "tir": paths[1]}
    assert_allclose(small.embed(sighting), model.embed(sighting), atol=1e-4)
    with pytest.raises(ConfigError, match="no modality 'nir', only rgb, tir"):
        small.embed(paths[0], modality="nir")


@pytest.mark.parametrize(("target", "low", "high"), [("avx2", 60, 64), ("vnni", 120, 128)])
def test_int8_in_onnx_has_weights_in_the_range_of_its_target(
    target, low, high, quantized, model, paths, images, tmp_path
):
    import onnx

    vnni = target == "vnni"
    if vnni and not exporting.has_vnni():
        pytest.skip("this CPU has no VNNI")
    result = export(model, tmp_path / "out", "onnx", images, int8=True, target=target) if vnni else quantized("onnx")
    check_int8(result, model, paths)
    assert metadata_of(result.folder)["target"] == result.target == target
    assert runtime.load(result.folder).embedding_id != model.embedding_id
    assert not (result.folder / "prepared.onnx").exists()
    graph = onnx.load(result.folder / "model.onnx").graph
    tensors = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    largest = [np.abs(onnx.numpy_helper.to_array(x).astype(int)).max() for x in tensors if len(x.dims) == 2]
    assert len(largest) >= 8  # qkv, projection and two layers of the MLP, in the last block and in JPM's
    assert low <= min(largest) <= max(largest) <= high


def test_int8_in_openvino_gives_the_same_without_vnni(quantized, model, paths):
    result = quantized("openvino")
    check_int8(result, model, paths)
    # OpenVINO computes as a CPU with AVX2 would, which saturates sums in 16 bits
    command = [sys.executable, "-c", EMBED, str(result.folder), *map(str, paths)]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert_allclose(json.loads(process.stdout), runtime.load(result.folder).embed(paths, camera="c2"), atol=1e-4)


def check_int8(result, model, paths):
    """The smallest cosine is in the range of int8: near the model, and not its float32."""
    assert 0.995 <= result.cosine < 0.999999
    embeddings = runtime.load(result.folder).embed(paths)
    assert (embeddings * model.embed(paths)).sum(1).min() > 0.99
    assert metadata_of(result.folder)["checked_on"] == result.checked_on == processor_kind()


def sealed(content):
    content = {name: value for name, value in content.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**content, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def metadata_of(folder):
    return json.loads((folder / "export.json").read_text())


class Targets(list):
    """The targets that a test exports for, and the embedder that the check compares with itself."""

    embedder: Embedder


@pytest.fixture
def targets(model, monkeypatch):
    """No graph is written."""
    targets = Targets()
    targets.embedder = model

    def write(network, inputs, folder, kind, quantize):
        targets.append(quantize and quantize.keywords["target"])
        (folder / exporting.FILES[kind]).write_bytes(b"x")
        return "0" * 64

    def run_network(inputs):
        network = exporting.ExportNetwork(targets.embedder).eval()
        with torch.inference_mode():
            return network(**{name: torch.from_numpy(x) for name, x in inputs.items()}).numpy()

    monkeypatch.setattr(exporting, "write_graph", write)
    monkeypatch.setattr(exporting, "_open", lambda file, kind: run_network)
    monkeypatch.setattr(exporting, "processor_kind", lambda: "AVX9")
    return targets


@pytest.mark.parametrize(("vnni", "resolved"), [(True, "vnni"), (False, "avx2")])
def test_the_target_this_follows_the_machine(vnni, resolved, targets, model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "has_vnni", lambda: vnni)
    for n, target in enumerate((None, "this", "avx2", "vnni")):
        result = export(model, tmp_path / str(n), "onnx", images, int8=True, target=target)
        assert metadata_of(tmp_path / str(n)).items() >= {"int8": True, "target": result.target}.items()
        assert result.target == targets[-1]
    assert targets == [resolved, resolved, "avx2", "vnni"]


def test_without_int8_there_is_no_target(targets, folder, model, images, tmp_path, capsys):
    export(model, tmp_path / "out", "onnx", images)
    expected = {"int8": False, "target": None, "checked_on": "AVX9"}
    assert expected.items() <= metadata_of(tmp_path / "out").items()
    with pytest.raises(ConfigError, match="the target this is for int8: add --int8, or leave --target out"):
        export(model, tmp_path / "two", "onnx", images, target="this")
    arguments = ["export", str(folder), "--to", "onnx", "--target", "avx2", "--out", str(tmp_path / "two")]
    assert main([*arguments, "--images", str(tmp_path / "no such folder")]) == 2
    assert "the target avx2 is for int8" in capsys.readouterr().err
    assert targets == [None]


@pytest.mark.parametrize(
    ("vnni", "target", "texts"),
    [
        (
            False,
            "vnni",
            ("0.995", "int8 for the target vnni", "try --target avx2 (this CPU has no VNNI", "more --images"),
        ),
        (True, "vnni", ("0.995", "int8 for the target vnni", "try more --images, or an export without --int8")),
        (False, "avx2", ("0.995", "int8 for the target avx2", "try more --images, or an export without --int8")),
        (True, "avx2", ("0.995", "int8 for the target avx2", "try --target vnni (if every CPU", "more --images")),
        (True, None, ("0.9999", "onnx in float32", "try another kind of file (--to)")),
    ],
)
def test_a_refusal_says_what_to_try(vnni, target, texts, targets, model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "has_vnni", lambda: vnni)
    monkeypatch.setattr(exporting, "_min_cosine", lambda network, exported, trials: 0.125)
    with pytest.raises(ExportError) as error:
        export(model, tmp_path / "out", "onnx", images, int8=target is not None, target=target)
    for text in ("0.12500", f"(AVX9), where {texts[0]} is required, so nothing is written", *texts[1:]):
        assert text in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_cosine_that_is_not_a_number_is_the_smallest(model):
    trials = [exporting.trial(model, size, (), seed=0) for size in (2, 3)]
    network = exporting.ExportNetwork(model).eval()
    width = model.model.width
    embeddings = iter([np.full((2, width), 1, np.float32), np.full((3, width), np.nan, np.float32)])
    assert np.isnan(exporting._min_cosine(network, lambda inputs: next(embeddings), trials))
    assert exporting._min_cosine(network, lambda inputs: np.zeros((1, 1), np.float32), trials) == -1


def test_int8_needs_pictures_and_a_file_for_it(model, images, tmp_path):
    with pytest.raises(ConfigError, match="give 16 or more, not 3"):
        export(model, tmp_path / "out", "onnx", images[:3], int8=True)
    with pytest.raises(ConfigError, match="torch-export keeps float32"):
        export(model, tmp_path / "out", "torch-export", images, int8=True)


def test_a_corrupt_graph_is_refused(model, tmp_path, monkeypatch):
    real = exporting.write_graph

    def corrupt(network, inputs, folder, kind, quantize):
        import onnx

        digest = real(network, inputs, folder, kind, quantize)
        graph = onnx.load(folder / "model.onnx")
        for weight in graph.graph.initializer:
            if len(weight.dims) == 2 and weight.raw_data:
                numbers = np.frombuffer(weight.raw_data, np.float32)
                noise = numbers.std() * np.sin(np.arange(len(numbers)))
                weight.raw_data = (numbers + noise).astype(np.float32).tobytes()
        onnx.save(graph, folder / "model.onnx")
        return digest

    monkeypatch.setattr(exporting, "write_graph", corrupt)
    with pytest.raises(ExportError, match="is required, so nothing is written"):
        export(model, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_is_of_float32(folder, tmp_path):
    with pytest.raises(ConfigError, match="load the model with fp32, not bf16"):
        export(resight.load(folder, "cpu", "bf16"), tmp_path / "out", "onnx")


def test_the_command_line_exports_and_torch_is_not_needed_afterwards(folder, paths, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["export", str(folder), "--to", "onnx", "--out", str(out)]
    assert main([*arguments, "--images", *map(str, paths[:6])]) == 0
    printed = capsys.readouterr().out
    cosine = float(re.search(r"cosine to the model in float32 at least ([0-9.]+), over 26 images", printed)[1])
    assert 0.99999 < cosine < 1.00001
    assert cosine == pytest.approx(metadata_of(out)["cosine"], abs=1e-6)
    assert printed.strip().endswith(f"checked on this machine's CPU ({processor_kind()})")
    command = [sys.executable, "-c", EMBED, str(out), *map(str, paths[:3])]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = resight.load(folder, "cpu", "fp32")
    assert_allclose(json.loads(process.stdout), expected.embed(paths[:3], camera="c2"), atol=1e-4)
    (out / "model.onnx").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is corrupt"):
        runtime.load(out)
    stated = metadata_of(out)
    for text, message in (
        (
            json.dumps({**stated, "format": 1, "older": 2}),
            "has format 1, and this version of resight reads format 2: exp",
        ),
        (json.dumps({**stated, "format": "2"}), 'has format "2", and this version'),
        (json.dumps({**stated, "size": "large"}), "is corrupt or was edited"),
        (sealed({**stated, "size": "large"}), "does not describe an exported model: size"),
        (sealed({**stated, "note": 1}), "does not describe an exported model: note: Extra inputs are not permitted"),
        (sealed({**stated, "files": {}}), r"states no SHA-256 of model\.onnx: export the model again"),
        (json.dumps({"format": 2}), "has no sha256"),
        ("{}", "has no format number"),
        ("[]", "does not describe an exported model"),
        ("{", "is no JSON"),
    ):
        (out / "export.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            runtime.load(out)


def test_ids_of_exports(model, images, targets, tmp_path):
    """Float exports have the embedder's; int8 has one for each kind of file and target."""
    ids = []
    for n, (kind, target) in enumerate(
        [("onnx", None), ("openvino", None), ("onnx", "avx2"), ("onnx", "vnni"), ("openvino", "avx2")]
    ):
        export(model, tmp_path / str(n), kind, images, target is not None, target)
        ids.append(metadata_of(tmp_path / str(n))["embedding_id"])
    assert ids[0] == ids[1] == model.embedding_id
    assert len(set(ids)) == 4
    flipped = Embedder(model.model, model.card, model.settings.model_copy(update={"flip": True}))
    with pytest.raises(ExportError, match="is required, so nothing is written"):
        export(flipped, tmp_path / "flip", "onnx")  # the network that the check runs is not the flipped one
    targets.embedder = flipped
    export(flipped, tmp_path / "flip", "onnx")
    assert metadata_of(tmp_path / "flip")["embedding_id"] == flipped.embedding_id != model.embedding_id


def test_the_id_of_int8_follows_the_images_of_its_calibration(quantized, model, images, tmp_path):
    others = export(model, tmp_path / "b", "onnx", images[8:], int8=True, target="avx2")
    a, b = (runtime.load(result.folder) for result in (quantized("onnx"), others))
    assert a.embedding_id != b.embedding_id
    pixels = images[0].permute(1, 2, 0).numpy()
    assert np.abs(a.embed(pixels) - b.embed(pixels)).max() > 1e-5
    again = export(model, tmp_path / "e", "openvino", images[:32], int8=True, target="avx2")
    d, e = (runtime.load(result.folder) for result in (quantized("openvino"), again))  # the numbers of nodes differ
    assert d.embedding_id == e.embedding_id != a.embedding_id
    assert_array_equal(d.embed(pixels), e.embed(pixels))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("onnx", ["model.onnx"]), ("openvino", ["model.bin", "model.xml"]), ("torch-export", ["model.pt2"])],
)
def test_every_file_of_an_export_is_checked(kind, names, exported, tmp_path):
    out = exported(kind).folder
    expected = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    assert metadata_of(out)["files"] == expected
    assert sorted(path.name for path in out.iterdir()) == sorted(["export.json", *names])
    if kind == "torch-export":
        return
    for name in names:
        copy = shutil.copytree(out, tmp_path / name)
        flip_bit(copy / name, 4 * (copy / name).stat().st_size)
        with pytest.raises(CheckpointError, match=rf"{name} is corrupt, its SHA-256 is not the one in export\.json"):
            runtime.load(copy)
        (copy / name).unlink()
        with pytest.raises(CheckpointError, match=rf"{name} cannot be read \(No such file or directory\)"):
            runtime.load(copy)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_flipped_bits_of_an_export_are_noticed_or_harmless(kind, exported, paths, tmp_path):
    rng = random.Random(0)
    out = exported(kind).folder
    expected = runtime.load(out, 1).embed(paths[0])
    files, noticed = sorted(out.iterdir()), 0
    for n in range(FLIPS):
        copy = shutil.copytree(out, tmp_path / "flipped", dirs_exist_ok=True)
        file = copy / files[n % len(files)].name
        flip_bit(file, rng.randrange(8 * file.stat().st_size))
        try:
            small = runtime.load(copy, 1)
        except CheckpointError:
            noticed += 1
        else:
            assert_array_equal(small.embed(paths[0]), expected)
    print(f"{kind}: {noticed} of {FLIPS} flipped bits are noticed, the others change nothing")
    assert noticed > 0.8 * FLIPS
    for n in range(10):
        copy = shutil.copytree(out, tmp_path / "flipped", dirs_exist_ok=True)
        truncate(copy / files[n % len(files)].name, rng)
        with pytest.raises(CheckpointError):
            runtime.load(copy)


@pytest.mark.parametrize("openvino", ["imported", "not imported"])
def test_openvino_sends_nothing(openvino, tmp_path):
    """Nor does it write to the home folder; also where the program has imported OpenVINO with what sends before."""
    home = tmp_path / "home"
    home.mkdir()
    ci = ("CI", "TF_BUILD", "JENKINS_URL")  # with these OpenVINO sends nothing
    environment = {name: value for name, value in os.environ.items() if name not in ci} | {"HOME": str(home)}
    calls = tmp_path / "calls"
    calls.touch()
    command = [sys.executable, "-c", NO_NETWORK, openvino, tmp_path / "out", calls, Path(__file__).parents[1]]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    assert calls.read_text() == ""


def test_a_model_without_rgb_is_checked_with_pictures_too(targets, images, tmp_path):
    embedder = short_embedder(card_of(modalities=("nir", "tir"), sie=("modality",)))
    targets.embedder = embedder
    result = export(embedder, tmp_path / "out", "onnx", images[:4])
    assert result.cosine > 0.99999
    assert result.tried == 24


def test_what_the_runtime_refuses(tmp_path):
    with pytest.raises(CheckpointError, match="is no exported model"):
        runtime.load(tmp_path)
    metadata = runtime.ExportMetadata(
        kind="onnx", file="model.onnx", embedding_id="0" * 16, row_width=2, size=(4, 2), interpolation="bilinear"
    )
    small = runtime.Runtime(metadata, lambda inputs: np.ones((len(inputs["images"]), 2), np.float32))
    file = tmp_path / "x.jpg"
    file.write_bytes(b"no")
    for bad, says in (
        (file, "is no picture"),
        (tmp_path / "y.jpg", "cannot be read"),
        (np.ones(3), "uint8"),
        (7, "not int"),
    ):
        with pytest.raises(PictureError, match=says):
            small.embed(bad)
    with pytest.raises(ConfigError, match="2 labels of view are given for 1 pictures"):
        small.embed(np.zeros((4, 4, 3), np.uint8), view=["a", "b"])
