"""The training benchmark at a tiny size: it prints its rows, and each process computes in the precision it names."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "training"
SMALL = ["--models", "tiny", "--batch-size", "8", "--steps", "1"]


@pytest.fixture
def benchmark(monkeypatch):
    """benchmarks/training/run.py as a module, with few images and one short product."""
    monkeypatch.syspath_prepend(FOLDER.parent)
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("training_benchmark", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "training_benchmark", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "IMAGE_COUNT", 48)
    monkeypatch.setattr(module, "DATA_SOURCES", ())
    monkeypatch.setattr(module, "PRODUCT_ROWS", 64)
    yield module
    for name in ("measure", "plain", "timing"):
        sys.modules.pop(name, None)


def rows_of(output: str) -> dict[str, list[str]]:
    """The cells of each row of the training table, by its label."""
    lines = [line for line in output.splitlines() if line.startswith("tiny")]
    return {line[28:48].strip(): line[48:].split() for line in lines}


def call(function, *arguments):
    return function(*arguments)


@pytest.mark.slow
def test_auto_is_resolved_once_and_reaches_the_process_that_measures(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("resight.device.bf16_layer_is_faster", lambda: False)  # does not reach a spawned process
    spawn = benchmark.in_new_process
    monkeypatch.setattr(
        benchmark,
        "in_new_process",
        lambda function, *arguments: (spawn if function.__name__ == "measure_ours" else call)(function, *arguments),
    )
    benchmark.main(SMALL)
    output = capsys.readouterr().out
    assert output.splitlines()[0].split(", ")[1] == "1 thread"
    assert "fp32 matrix products" in output
    assert "bf16 matrix products" not in output
    rows = rows_of(output)
    assert list(rows) == ["plain, fp32", "ours, auto (fp32)"]
    for cells in rows.values():
        assert float(cells[0]) > 0  # images/s
        assert cells[-1] == "1"  # steps


def test_each_precision_is_a_row_and_is_measured_once(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("resight.device.bf16_layer_is_faster", lambda: True)
    calls = []

    def record(function, *arguments):
        calls.append(function.__name__)
        return function(*arguments)

    monkeypatch.setattr(benchmark, "in_new_process", record)
    benchmark.main([*SMALL, "--precision", "auto", "fp32", "bf16"])
    rows = rows_of(capsys.readouterr().out)
    assert list(rows) == ["plain, fp32", "ours, auto (bf16)", "ours, fp32", "ours, bf16"]
    assert rows["ours, auto (bf16)"] == rows["ours, bf16"]
    assert calls == ["product_rate", "product_rate", "measure_plain", "measure_ours", "measure_ours"]


def test_a_batch_of_another_size_is_refused_in_one_sentence(benchmark):
    with pytest.raises(SystemExit, match="--batch-size must be a multiple of 4"):
        benchmark.main(["--batch-size", "10"])


def test_a_slow_step_is_measured_once(benchmark):
    measure = sys.modules["measure"]
    case = measure.Case("tiny", 16, True, 8)
    slow = measure._measure_steps(case, lambda n: (0.0, 100.0 - n), 5, "bf16")
    assert (slow.steps, slow.model_seconds) == (1, 100.0)
    fast = measure._measure_steps(case, lambda n: (1.0, 7.0 + n), 5, "bf16")
    assert (fast.steps, fast.data_seconds, fast.model_seconds) == (5, 1.0, 10.0)
    assert fast.images_per_second == pytest.approx(24 / 11)
