"""A checkpoint that is measured again gives the figures of its run to the last digit."""

import json
import shutil

import pytest
from training_helpers import small

import resight
from resight import device
from resight.cli import main
from resight.data.catalog import read_dataset
from resight.evaluation.result import figures


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def run_folder(request, painted, tmp_path_factory):
    """A run of a given precision; its model card says `auto`."""
    out = tmp_path_factory.mktemp("again") / "run"
    options = {"flip": True, "batch_size": 5}
    resight.train(small(root=painted, out=out, precision=request.param, embedding=options, schedule={"epochs": 2}))
    return out


@pytest.fixture
def stored(run_folder, monkeypatch):
    """The figures of `result.json`; what is measured now is that the other precision is faster."""
    values = json.loads((run_folder / "result.json").read_text())
    assert values.pop("checkpoint") == "epoch-0002"
    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: values["compute"]["precision"] == "fp32")
    return values


def test_the_function_gives_the_figures_of_the_run(run_folder, stored, painted):
    result = resight.evaluate(run_folder / "best", read_dataset("synthetic", painted))
    assert figures(result, "synthetic") == stored
    assert result.compute.batch_size == 5


def test_the_function_gives_the_figures_of_the_run_for_text_too(run_folder, stored, painted):
    result = resight.evaluate(str(run_folder / "last"), read_dataset("synthetic", painted))
    assert figures(result, "synthetic") == stored


def test_the_command_gives_the_figures_of_the_run(run_folder, stored, painted, tmp_path, capsys):
    where = ["--dataset", "synthetic", "--root", str(painted), "--device", "cpu"]
    assert main(["evaluate", str(run_folder / "best"), *where, "--figures", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == stored
    assert "figures can differ" not in capsys.readouterr().err


def test_another_processor_is_logged(run_folder, stored, painted, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy, symlinks=True)
    compute = json.loads((copy / "compute.json").read_text())
    (copy / "compute.json").write_text(json.dumps({**compute, "processor": "Z80"}))
    where = ["--dataset", "synthetic", "--root", str(painted), "--device", "cpu"]
    assert main(["evaluate", str(copy / "best"), *where, "--figures", str(tmp_path / "figures.json")]) == 0
    said = capsys.readouterr().err
    assert "the model was trained on a processor with Z80; on this one" in said
    assert "figures can differ in the last digits" in said
    assert json.loads((tmp_path / "figures.json").read_text()) == stored  # it is this processor all the same
    assert figures(resight.evaluate(copy / "best", read_dataset("synthetic", painted)), "synthetic") == stored


def test_what_a_user_gives_overrides_the_run(run_folder, stored, painted, tmp_path):
    other = "bf16" if stored["compute"]["precision"] == "fp32" else "fp32"
    where = ["--dataset", "synthetic", "--root", str(painted), "--device", "cpu", "--precision", other]
    assert main(["evaluate", str(run_folder / "best"), *where, "--figures", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["compute"]["precision"] == other
    embedder = resight.load(run_folder / "best", "cpu", flip=False)
    result = resight.evaluate(embedder, read_dataset("synthetic", painted))
    assert result.query.info.embedding_id != stored["embedding_id"]


def test_a_model_folder_outside_a_run_is_measured_by_its_card(run_folder, stored, painted, tmp_path):
    alone = tmp_path / "model"
    shutil.copytree(run_folder / "best", alone)
    result = resight.evaluate(alone, read_dataset("synthetic", painted))
    assert result.query.info.embedding_id == stored["embedding_id"]
    assert result.compute.precision != stored["compute"]["precision"]  # `auto`, on this machine
    assert result.compute.batch_size == 5
