"""Devices and precision: `auto` follows a measurement, other choices a stated rule, and what was chosen is stored."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from conftest import picture, small_model
from training_helpers import ALONE, context_of, small

import resight
from resight import device
from resight.cli import main
from resight.config.sections import Embedding
from resight.data.catalog import read_dataset
from resight.device import (
    best_precision,
    configure_process,
    cpu_quota,
    default_batch_size,
    forms_attention,
    pick_device,
    processor_kind,
    resolve_compute,
)
from resight.errors import CheckpointError, ConfigError
from resight.evaluation.evaluate import evaluate
from resight.evaluation.result import figures
from resight.inference import export as exporting
from resight.inference.embedder import Embedder
from resight.inference.extract import executors
from resight.inference.extract.extract import ExtractOptions, extract
from resight.models.checkpoint import load_model
from resight.progress import Progress
from resight.training.context import compute_of_resumed
from resight.training.loop import train
from resight.training.run_folder import RunFolder

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture(params=[True, False], ids=["bf16 is fast", "bf16 is slow"])
def forced(request, monkeypatch) -> str:
    """Forces the outcome of the measurement; the precision that it must lead to."""
    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: request.param)
    return "bf16" if request.param else "fp32"


def timed(monkeypatch, factors):
    """Makes the measurement see times: bf16's time over float32's, of the first short trial and of the second."""
    trials = []

    def seconds(tasks, runs):
        trials.append(runs)
        return [factors[len(trials) - 1], 1.0]

    monkeypatch.setattr(device, "_shortest_seconds", seconds)
    return trials


@pytest.mark.parametrize(("factors", "faster", "trials"), [
    ([50.0], False, 1), ([1.2, 1.1], False, 2), ([1.2, 0.95], False, 2), ([1.2, 0.5], True, 2), ([0.3, 0.3], True, 2),
])  # fmt: skip
@pytest.mark.parametrize("measure", [device.bf16_layer_is_faster, device.bf16_product_is_faster])
def test_bf16_is_used_only_where_it_was_faster(monkeypatch, measure, factors, faster, trials):
    measured = timed(monkeypatch, factors)
    assert measure.__wrapped__() is faster
    assert len(measured) == trials  # a processor without fast bf16 is not tried at length


def test_the_measurement_is_made_once_and_leaves_torch_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with torch.inference_mode():
        device.bf16_layer_is_faster()
    assert torch.equal(torch.get_rng_state(), before)
    began = time.perf_counter()
    assert device.bf16_layer_is_faster() is device.bf16_layer_is_faster()
    assert time.perf_counter() - began < 0.01


def test_auto_on_other_devices(monkeypatch):
    for has, inference, training in ((True, "bf16", "bf16"), (False, "fp16", "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has)
        assert (best_precision(CUDA), best_precision(CUDA, training=True)) == (inference, training)
    assert best_precision(MPS) == "fp32"


def test_a_precision_that_is_given_is_not_measured(monkeypatch):
    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: pytest.fail("measured"))
    for precision in ("fp32", "bf16", "fp16"):
        assert resolve_compute(CPU, precision).precision == precision


def test_attention_and_batch_size_follow_their_rules():
    assert forms_attention(CPU, torch.bfloat16, 256)
    assert not forms_attention(CPU, torch.bfloat16, 257)
    assert not forms_attention(CPU, torch.float32, 10)
    assert not forms_attention(CUDA, torch.bfloat16, 10)
    assert (default_batch_size(CPU), default_batch_size(CUDA)) == (32, 512)
    assert (resolve_compute(CPU, "bf16").attention, resolve_compute(CPU, "fp32").attention) == ("formed", "fused")
    assert (resolve_compute(CPU, "fp32").batch_size, resolve_compute(CPU, "fp32", 64).batch_size) == (32, 64)


@pytest.mark.parametrize(("files", "quota"), [
    ({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, None), ({"cpu.max": "broken"}, None),
    ({}, None),
    ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
])  # fmt: skip
def test_the_quota_of_a_container(tmp_path, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == quota


def test_no_more_threads_than_cores_unless_the_environment_says_so(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda pid: set(range(8)))
    try:
        for quota, set_before, environment, expected in (
            (1.5, 4, None, 2),
            (0.5, 4, None, 1),
            (None, 4, None, 4),
            (None, 12, None, 8),
            (6.0, 3, None, 3),
            (1.0, 4, "4", 4),
        ):
            monkeypatch.setattr(device, "cpu_quota", lambda quota=quota: quota)
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if environment:
                monkeypatch.setenv("OMP_NUM_THREADS", environment)
            torch.set_num_threads(set_before)
            configure_process()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("limit", "capability", "has", "kind"), [
    ("ALL", "AVX512", {"amx_bf16", "avx512_bf16"}, "AMX"),
    ("AVX512_CORE_BF16", "AVX512", {"amx_bf16", "avx512_bf16"}, "AVX-512 with bf16"),
    ("AVX512_CORE", "AVX512", {"avx512_bf16"}, "AVX-512"),
    ("ALL", "AVX512", set(), "AVX-512"),
    ("AVX2", "AVX2", {"amx_bf16", "avx512_bf16", "avx2"}, "AVX2"),
    ("ALL", "AVX2", {"avx2"}, "AVX2"),
    ("avx2", "AVX512", {"avx2"}, "AVX2"),
    ("ALL", "DEFAULT", set(), "riscv64"),
])  # fmt: skip
def test_the_kind_of_processor(monkeypatch, limit, capability, has, kind):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    monkeypatch.setattr(device.platform, "machine", lambda: "riscv64")
    assert processor_kind.__wrapped__() == kind


def test_vnni(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    for machine, has, expected in (
        ("x86_64", {"avx512_vnni"}, True),
        ("AMD64", {"avx_vnni"}, True),
        ("x86_64", {"avx2"}, False),
        ("aarch64", set(), True),
    ):
        monkeypatch.setattr(exporting.platform, "machine", lambda machine=machine: machine)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: dict.fromkeys(has, True))
        assert exporting.has_vnni() is expected
    monkeypatch.setattr(exporting.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    for limit, expected in (("AVX2", False), ("avx512_core", False), ("AVX512_CORE_VNNI", True), ("ALL", True)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        assert exporting.has_vnni() is expected


def test_a_device_that_does_not_exist():
    assert pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        pick_device("tpu")


def test_every_verb_computes_in_what_was_measured(forced, painted, tmp_path, capsys):
    """Training, evaluation, extraction, a gallery, and calibration; what was chosen is in files and first lines."""
    run = small(precision="auto", schedule={"epochs": 1})
    folder = RunFolder.new(tmp_path / "run")
    train(run, read_dataset(run.dataset, painted), folder, Progress())
    assert f", {forced}; images of " in capsys.readouterr().err
    for name in ("compute.json", "result.json"):
        figure = json.loads((folder.path / name).read_text())
        assert figure.get("compute", figure)["precision"] == forced
    assert json.loads((folder.path / "config.json").read_text())["precision"] == "auto"
    on = ["--dataset", "synthetic", "--root", str(painted), "--device", "cpu"]
    assert main(["evaluate", str(folder.best), *on, "--figures", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["compute"]["precision"] == forced
    assert f", {forced}; images of " in capsys.readouterr().err
    assert main(["calibrate", str(folder.best), *on, "--false-match-rate", "0.1"]) == 0
    assert f", {forced}; images of " in capsys.readouterr().err
    paths = [str(picture(tmp_path / f"{n}.png", n)) for n in range(3)]
    assert main(["extract", str(folder.best), *paths, "--out", str(tmp_path / "e.parquet"), "--device", "cpu"]) == 0
    assert f", {forced}; images of " in capsys.readouterr().err
    assert main(["gallery", "create", str(tmp_path / "gallery"), "--model", str(folder.best), "--device", "cpu"]) == 0
    assert main(["gallery", "add", str(tmp_path / "gallery"), *paths, "--device", "cpu"]) == 0
    assert f", {forced}; images of " in capsys.readouterr().err


def test_every_function_computes_in_what_was_measured(forced, painted, tmp_path):
    folder = small_model(tmp_path / "model", modalities=("rgb", "nir", "tir"))
    embedder = resight.load(folder, "cpu", batch_size=8)
    assert (embedder.compute.precision, embedder.compute.batch_size) == (forced, 8)
    assert next(embedder.model.backbone.blocks[0].attn.qkv.parameters()).dtype == device.DTYPES[forced]
    split = read_dataset("synthetic", painted)
    model, card = load_model(folder)
    live = Embedder(model, card, Embedding(batch_size=8))  # as training wraps a model
    result = evaluate(live, split)
    assert asdict(result.compute) == figures(result, "x")["compute"]
    assert result.compute == live.compute == embedder.compute
    assert next(model.backbone.blocks[0].attn.qkv.parameters()).dtype == torch.float32  # the model is not changed
    assert torch.equal(torch.from_numpy(result.query.vectors), torch.from_numpy(embedder.embed(split.query)))
    assert evaluate(folder, split).compute.precision == forced
    context = context_of(small(precision="auto"), card.vocabulary)
    assert context.compute == resolve_compute(CPU, "auto", training=True)
    assert context.compute.precision == forced
    assert f", {forced}; images of 64x32, batches of " in context.description


def test_a_run_that_is_resumed_computes_as_before(monkeypatch, painted, tmp_path, capsys):
    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: False)
    run = small(precision="auto", schedule={"epochs": 1})
    folder, split = RunFolder.new(tmp_path / "run"), read_dataset(run.dataset, painted)
    train(run, split, folder)
    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: True)  # another machine, say
    train(run, split, folder, Progress())
    assert json.loads((folder.path / "compute.json").read_text())["precision"] == "fp32"
    assert json.loads((folder.path / "result.json").read_text())["compute"]["precision"] == "fp32"
    assert ", fp32; images" in capsys.readouterr().err

    file = folder.path / "compute.json"
    before = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "processor": "Z80"}))
    assert compute_of_resumed(folder, ALONE, Progress()).processor == "Z80"
    assert "a processor with Z80 so far" in capsys.readouterr().err
    file.write_text(json.dumps({**before, "device": "cuda"}))
    assert compute_of_resumed(folder, ALONE, Progress()) is None
    assert "computed on cuda so far and is resumed on cpu" in capsys.readouterr().err
    file.write_text("{")
    with pytest.raises(CheckpointError, match=r"compute\.json is corrupt"):
        compute_of_resumed(folder, ALONE, Progress())


def test_an_extraction_that_is_resumed_computes_as_before(monkeypatch, tmp_path):
    folder = small_model(tmp_path / "model")
    paths = [picture(tmp_path / f"{n}.png", n) for n in range(4)]
    precisions = []

    def stopped(task):
        precisions.append(task.model.precision)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(executors, "write_shard", stopped)
        for fast in (False, True):
            monkeypatch.setattr(device, "bf16_layer_is_faster", lambda fast=fast: fast)
            with pytest.raises(KeyboardInterrupt):
                extract(folder, paths, tmp_path / "e.parquet", options=ExtractOptions("cpu"))
    assert precisions == ["fp32", "fp32"]
    assert extract(folder, paths, tmp_path / "e.parquet", options=ExtractOptions("cpu")).rows == 4


AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.mark.skipif(
    "avx2" not in (k for k, v in torch.cpu.get_capabilities().items() if v is True), reason="needs an x86 CPU with AVX2"
)
def test_the_variables_make_this_processor_behave_as_one_without_fast_bf16():
    code = "from resight import device; import torch; torch.set_num_threads(1); "
    code += (
        "print(device.processor_kind(), device.best_precision(torch.device('cpu')), device.bf16_product_is_faster())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **AVX2}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["AVX2", "fp32", "False"]


@pytest.mark.parametrize(("factors", "faster"), [
    ([5.0, 0.5], True), ([5.001], False), ([1.0, 0.899], True), ([1.0, 0.9], False), ([1.0, 0.901], False),
])  # fmt: skip
def test_the_limits_of_faster_and_hopeless(monkeypatch, factors, faster):
    trials = timed(monkeypatch, factors)
    threads = torch.get_num_threads()
    assert device._bf16_is_faster(lambda size, precision: lambda: None, 1, 2) is faster
    assert trials == [4, 6][: len(factors)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("measure", "sizes"), [
    (device.bf16_layer_is_faster, (192, 1536)), (device.bf16_product_is_faster, (128, 2048)),
])  # fmt: skip
def test_what_is_measured(monkeypatch, measure, sizes):
    """A trial of a small size and one of a large, each in both precisions, in one thread."""
    products = []

    def seconds(works, runs):
        assert torch.get_num_threads() == 1
        for work in works:
            work()
        return [1.0, 1.0]

    def product(a, b):
        products.append((a.dtype, tuple(a.shape), tuple(b.shape)))
        return real(a, b)

    real = torch.mm
    monkeypatch.setattr(device, "_shortest_seconds", seconds)
    monkeypatch.setattr(torch, "mm", product)
    layers = []
    monkeypatch.setattr(device.nn, "Linear", lambda *size: layers.append(size) or real_linear(*size))
    measure.__wrapped__()
    if products:
        assert products == [(t, (n // 8, 512), (512, n)) for n in sizes for t in (torch.bfloat16, torch.float32)]
    else:
        assert layers == [(384, size) for size in sizes for _ in range(2)]


real_linear = torch.nn.Linear


def test_the_shortest_of_several_runs_without_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(device.time, "perf_counter", lambda: now[0])
    calls = []

    def work(name, seconds):
        left = list(seconds)

        def run():
            calls.append(name)
            now[0] += left.pop(0)

        return run

    found = device._shortest_seconds((work("a", [0.1, 5, 3, 4]), work("b", [9, 2, 8, 7])), 3)
    assert found == pytest.approx([3, 2])
    assert calls == ["a", "b"] * 4


@pytest.mark.parametrize(("bound", "quota", "cores"), [
    (8, None, 8), (8, 0.5, 1), (8, 1.0, 1), (8, 1.1, 2), (2, 7.5, 2), (1, None, 1), (3, 3.0, 3),
])  # fmt: skip
def test_cores_that_are_available(monkeypatch, bound, quota, cores):
    monkeypatch.setattr(
        device.os, "sched_getaffinity", lambda pid: set(range(bound)) if pid == 0 else set(), raising=False
    )
    monkeypatch.setattr(device, "cpu_quota", lambda: quota)
    assert device.available_cores() == cores
    monkeypatch.delattr(device.os, "sched_getaffinity")
    monkeypatch.setattr(device.os, "cpu_count", lambda: 6)
    assert device.available_cores() == max(1, min(6, 6 if quota is None else -int(-quota // 1)))
    monkeypatch.setattr(device.os, "cpu_count", lambda: None)
    assert device.available_cores() == 1


@pytest.mark.parametrize(("quota", "period", "expected"), [
    ("0", "100000", 0.0), ("100000", "0", None), ("-1", "5", None), ("300000", "100000", 3.0), ("x", "5", None),
])  # fmt: skip
def test_quotas_of_version_1(tmp_path, quota, period, expected):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text(period)
    assert cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(("cuda", "mps", "name"), [
    (True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"),
])  # fmt: skip
def test_the_best_device_there_is(monkeypatch, cuda, mps, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert pick_device("auto") == torch.device(name)


def test_a_description_in_one_line():
    compute = device.Compute("cpu", "AVX2", "fp32", 3, "fused", 32)
    assert compute.describe((64, 32)) == "cpu (AVX2, 3 threads), fp32; images of 64x32, batches of 32"
    on_card = device.Compute("cuda:1", "AVX2", "bf16", 3, "formed", 512)
    assert on_card.describe((8, 4), 96) == "cuda:1, bf16; images of 8x4, batches of 96"


@pytest.mark.parametrize(("limit", "has", "kind"), [
    ("DEFAULT", {"amx_bf16", "avx512_bf16"}, "AMX"),
    ("AVX10_1_512", {"amx_bf16", "avx512_bf16"}, "AMX"),
    ("AVX512_CORE_AMX", {"amx_bf16", "avx512_bf16"}, "AMX"),
    ("avx512_core_vnni", {"amx_bf16", "avx512_bf16"}, "AVX-512"),
    ("AVX2_VNNI", {"amx_bf16", "avx512_bf16", "avx2"}, "AVX2"),
    ("AVX2_VNNI_2", {"avx2"}, "AVX2"),
    ("SSE41", {"avx512_bf16"}, "riscv64"),
    ("ALL", {"avx512_bf16"}, "AVX-512 with bf16"),
])  # fmt: skip
def test_the_kind_of_processor_under_other_limits(monkeypatch, limit, has, kind):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    monkeypatch.setattr(device.platform, "machine", lambda: "riscv64")
    assert processor_kind.__wrapped__() == kind


@pytest.mark.parametrize(("results", "kept"), [((1, 1), True), ((0, 1), False), ((1, 0), False)])
def test_memory_is_retained_under_glibc(monkeypatch, results, kept):
    calls = []

    class Library:
        def mallopt(self, option, value):
            calls.append((option, value))
            return results[len(calls) - 1]

    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: Library())
    monkeypatch.setattr(device.platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert device.retain_memory.__wrapped__() is kept
    assert calls == [(-4, 0), (-1, -1)][: 1 if results[0] == 0 else 2]  # M_MMAP_MAX and M_TRIM_THRESHOLD
    monkeypatch.setattr(device.platform, "libc_ver", lambda: ("", ""))
    assert device.retain_memory.__wrapped__() is False


def test_autocast_is_off_in_float32():
    for precision, enabled in (("fp32", False), ("bf16", True)):
        with device.autocast(CPU, precision):
            assert torch.is_autocast_enabled("cpu") is enabled
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            assert product.dtype == device.DTYPES[precision]
