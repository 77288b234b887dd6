"""Exported models: as near as they claim, refused where they are not, and run without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import picture, small_model
from numpy.testing import assert_allclose

import resight
from resight import export as exporting
from resight import runtime
from resight.cli import main
from resight.errors import CheckpointError, ConfigError, ExportError, PictureError
from resight.export import export
from resight.loading.pictures import decode, resize

pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with side information of two kinds and JPM."""
    settings = {"side": ("camera", "modality"), "jpm": True, "stride": 12}
    at = tmp_path_factory.mktemp("model") / "m"
    return small_model(at, ("c1", "c2", "c3"), ("rgb", "tir"), (0.4, 0.5, 0.6), **settings)


@pytest.fixture(scope="module")
def model(folder):
    return resight.load(folder, "cpu", "fp32")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    return [picture(root / f"{n}.png", n % 7, n, size=(32, 64)) for n in range(40)]


@pytest.fixture(scope="module")
def pictures(paths):
    return [resize(decode(path), (64, 32), "bilinear") for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch-export"])
def test_an_export_gives_what_the_model_gives(kind, model, paths, tmp_path):
    done = export(model, tmp_path / "out", kind)
    assert done.cosine > 0.99999
    labels = {"camera": ["c1", "c3", None, "c9", "c2"], "modality": ["rgb", "tir", None, "rgb", "tir"]}
    expected = model.embed(paths[:5], **labels)
    if kind == "torch-export":
        with pytest.raises(ConfigError, match=r"torch\.export\.load"):
            runtime.load(tmp_path / "out")
        return
    small = runtime.load(tmp_path / "out", threads=1)
    assert (small.width, small.fingerprint) == (model.width, model.fingerprint)
    assert_allclose(small.embed(paths[:5], **labels), expected, atol=1e-4)
    assert_allclose(small.embed(paths * 2), model.embed(paths * 2), atol=1e-4)  # more than a batch
    assert_allclose(small.embed(paths[0]), small.embed(paths[0].read_bytes()), atol=1e-6)
    assert small.embed([]).shape == (0, model.width)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_comes_near(kind, model, paths, pictures, tmp_path):
    done = export(model, tmp_path / "out", kind, pictures, int8=True)
    assert 0.995 <= done.cosine < 0.999999
    found = runtime.load(tmp_path / "out").embed(paths)
    assert (found * model.embed(paths)).sum(1).min() > 0.99
    assert json.loads((tmp_path / "out" / "export.json").read_text())["int8"] is True
    assert not (tmp_path / "out" / "prepared.onnx").exists()


def test_int8_needs_pictures_and_a_file_for_it(model, pictures, tmp_path):
    with pytest.raises(ConfigError, match="give 16 or more, not 3"):
        export(model, tmp_path / "out", "onnx", pictures[:3], int8=True)
    with pytest.raises(ConfigError, match="torch-export keeps float32"):
        export(model, tmp_path / "out", "torch-export", pictures, int8=True)


@pytest.mark.slow
def test_a_damaged_graph_is_not_kept(model, tmp_path, monkeypatch):
    real = exporting._write

    def damaged(network, inputs, folder, kind, calibration):
        import onnx

        real(network, inputs, folder, kind, calibration)
        graph = onnx.load(folder / "model.onnx")
        for weight in graph.graph.initializer:
            if len(weight.dims) == 2 and weight.raw_data:
                numbers = np.frombuffer(weight.raw_data, np.float32)
                weight.raw_data = (
                    (numbers + numbers.std() * np.sin(np.arange(len(numbers)))).astype(np.float32).tobytes()
                )
        onnx.save(graph, folder / "model.onnx")

    monkeypatch.setattr(exporting, "_write", damaged)
    with pytest.raises(ExportError, match="is not kept"):
        export(model, tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


WITHOUT = """
import sys
sys.modules["torch"] = None
from resight import runtime
model = runtime.load(sys.argv[1], 1)
print(model.embed(sys.argv[2:], camera="c2").tolist())
assert "timm" not in sys.modules
"""


@pytest.mark.slow
def test_an_export_is_of_float32(folder, tmp_path):
    with pytest.raises(ConfigError, match="load the model with fp32, not bf16"):
        export(resight.load(folder, "cpu", "bf16"), tmp_path / "out", "onnx")


def test_the_command_line_exports_and_torch_is_not_needed_afterwards(folder, model, paths, tmp_path, capsys):
    assert (
        main(
            ["export", str(folder), "--to", "onnx", "--out", str(tmp_path / "out"), "--pictures", *map(str, paths[:6])]
        )
        == 0
    )
    assert "cosine to the model in float32 1.0" in capsys.readouterr().out.replace("0.99999", "1.0")
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "out"), *map(str, paths[:3])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert_allclose(json.loads(done.stdout), model.embed(paths[:3], camera="c2"), atol=1e-4)
    (tmp_path / "out" / "model.onnx").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is damaged"):
        runtime.load(tmp_path / "out")


def test_what_the_runtime_refuses(tmp_path):
    with pytest.raises(CheckpointError, match="is no exported model"):
        runtime.load(tmp_path)
    sheet = {"modalities": ["rgb"], "cameras": [], "views": [], "width": 2, "size": [4, 2], "interpolation": "bilinear"}
    small = runtime.Runtime(sheet, lambda inputs: np.ones((len(inputs["pictures"]), 2), np.float32))
    (tmp_path / "x.jpg").write_bytes(b"no")
    for bad, says in (
        (tmp_path / "x.jpg", "is no picture"),
        (tmp_path / "y.jpg", "cannot be read"),
        (np.ones(3), "uint8"),
    ):
        with pytest.raises(PictureError, match=says):
            small.embed(bad)
    with pytest.raises(ConfigError, match="2 labels of view are given for 1 pictures"):
        small.embed(np.zeros((4, 4, 3), np.uint8), view=["a", "b"])
