"""Micro-batches, and processes that train together, against one process with the whole batch."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from launcher import Launcher
from training_helpers import ALONE, CPU, context_of, weights

from resight.cli import main
from resight.config.recipes import tiny, vary
from resight.config.run import Run
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.losses.objective import objective
from resight.models.checkpoint import load_model
from resight.training.distributed import DistributedContext, embed_distributed
from resight.training.inputs import Inputs
from resight.training.state import start
from resight.training.step import gradients, reseed

VOCABULARY = Vocabulary(tuple("abcd"), ("1", "2"), (), ("rgb",))
EPOCHS = 6  # of one step; a process is killed after the second


def state_of(micro_batch_size=None, **model):
    run = vary(tiny(), preprocessing={"size": (64, 32)}, model={"sie": ("camera",), **model}, precision="fp32")
    run = vary(run, device="cpu", loss={"center_weight": 0.01}, micro_batch_size=micro_batch_size)
    context = context_of(run, VOCABULARY)
    return context, start(context)


def batch(count=16):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 64, 32, generator=generator)
    identity = torch.arange(count) // 4
    return images, {"camera": torch.arange(count) % 2, "modality": torch.zeros(count, dtype=torch.int64)}, identity


def grads(state):
    return {name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None}


def close(values, expected, tolerance=1e-5):
    assert set(values) == set(expected)
    for name, value in expected.items():  # some are 0 but for rounding
        assert (values[name] - value).norm() <= tolerance * value.norm() + 1e-6, name


@pytest.mark.parametrize("micro_batch_size", [None, 5, 8])
def test_micro_batches_give_the_gradients_of_the_whole_batch(micro_batch_size):
    context, state = state_of(drop_path=0.0)
    images, side_info, identity = batch()
    out = state.model(images, side_info, identity)
    settings = context.run.loss
    loss = objective(out.features, out.logits, identity, settings, state.center, side_info["modality"])
    loss.total.backward()
    expected, centers = grads(state), state.center.centers.grad.clone()
    mean = state.model.necks[0].running_mean.clone()

    context, state = state_of(micro_batch_size, drop_path=0.0)
    total = gradients(context, state, Inputs(images, side_info, identity), identity, (0,)).loss
    assert total.total.item() == pytest.approx(loss.total.item(), rel=1e-6)
    close(grads(state), expected)
    close({"centers": state.center.centers.grad}, {"centers": centers})
    torch.testing.assert_close(state.model.necks[0].running_mean, mean)


def test_micro_batches_replay_dropout_and_drop_path():
    options = {"drop_path": 0.4, "dropout": 0.2, "attention_dropout": 0.1, "jpm": True}
    context, state = state_of(**options)
    images, side_info, identity = batch()
    parts = []
    for n, part in enumerate((slice(0, 6), slice(6, 12), slice(12, 16))):  # one graph over all parts: all the memory
        reseed((7, n))
        parts.append(state.model.backbone(images[part], {kind: labels[part] for kind, labels in side_info.items()}))
    features = [torch.cat(branch) for branch in zip(*parts, strict=True)]
    logits = state.model.classify(features, identity)
    loss = objective(features, logits, identity, context.run.loss, state.center, side_info["modality"])
    loss.total.backward()
    expected = grads(state)

    context, state = state_of(6, **options)
    gradients(context, state, Inputs(images, side_info, identity), identity, (7,))
    close(grads(state), expected)


def test_a_micro_batch_needs_no_more_memory_than_its_own_graph():
    """What autograd stores at one time, in bytes: a quarter of the batch needs a quarter of it."""

    def peak_bytes(micro_batch_size):
        context, state = state_of(micro_batch_size)
        stored, peak = 0, 0

        class Stored:
            def __init__(self, tensor):
                nonlocal stored, peak
                self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
                stored += self.size
                peak = max(peak, stored)

            def __del__(self):
                nonlocal stored
                stored -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Stored, lambda saved: saved.tensor):
            gradients(context, state, Inputs(*batch()), batch()[2], (0,))
        return peak

    whole, quarter = peak_bytes(None), peak_bytes(4)
    parameters = sum(p.numel() * 4 for p in state_of()[1].model.parameters())  # stored too, of whatever size
    assert quarter - parameters < 0.35 * (whole - parameters)


def test_a_backbone_with_batchnorm_is_not_divided():
    model = {"backbone": "resnet50", "jpm": False, "sie": ()}
    run = vary(tiny(), device="cpu", model=model, micro_batch_size=4)
    with pytest.raises(ConfigError, match="--micro-batch-size needs a backbone without BatchNorm"):
        start(context_of(run, VOCABULARY))
    pair = DistributedContext(0, 2, CPU)
    with pytest.raises(ConfigError, match=r"resnet50 has BatchNorm.*use one process"):
        start(context_of_pair(vary(tiny(), device="cpu", model=model), pair))


def context_of_pair(run, distributed):
    """The context of a process that has no other to talk to: its compute is its own."""
    context = context_of(run, VOCABULARY)
    return type(context)(run, context.card, distributed, context.compute, context.progress)


def test_local_slices_cover_everything_once():
    for size in (1, 2, 3, 5):
        for count in (0, 1, 7, 64):
            rows = [
                n for rank in range(size) for n in range(count)[DistributedContext(rank, size, CPU).local_slice(count)]
            ]
            assert rows == list(range(count))


def test_one_process_embeds_all_of_a_table(tmp_path):
    table = SightingTable.of(Sighting({"rgb": tmp_path / f"{n}.png"}) for n in range(3))
    reports = []

    class Embedder:
        def embed(self, rows, progress):
            progress(len(rows))
            return np.ones((len(rows), 2), np.float32)

    assert embed_distributed(ALONE, Embedder(), table, reports.append).shape == (3, 2)
    assert reports == [3]


def command(painted, out, *options):
    fixed = (
        f"tiny --device cpu --precision fp32 --schedule.epochs {EPOCHS} --sampling.identities 6 --model.drop-path 0.1"
    )
    size = "--preprocessing.size 64 32"
    words = ["train", *fixed.split(), *size.split(), "--root", str(painted), "--out", str(out), *options]
    return ["-m", "resight.cli", *words]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def alone(painted, out, *options):
    assert main(command(painted, out, *options)[2:]) == 0


def torchrun(painted, out, *options):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    words = [sys.executable, *launch, *command(painted, out, *options)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())


@pytest.fixture(scope="session")
def launcher():
    with Launcher() as launcher:
        yield launcher


def train_pair(launcher, painted, out, *options):
    """Train with two processes until they end."""
    errors = out.with_suffix(".err")
    agent = launcher.start(command(painted, out, *options)[2:], errors)
    assert launcher.wait(agent) == 0, errors.read_text()


def losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if "loss" in line])


def all_weights(out):
    return torch.cat([w.flatten().float() for w in weights(out, "best").values()])


@pytest.fixture(scope="module")
def pair(launcher, painted, tmp_path_factory):
    """An uninterrupted run of two processes: epochs of one step."""
    out = tmp_path_factory.mktemp("pair") / "run"
    train_pair(launcher, painted, out)
    return out


def test_two_processes_learn_as_one(painted, pair, tmp_path):
    alone(painted, tmp_path / "one", "--micro-batch-size", "36")  # 72 images: two draw drop-path as two processes do
    np.testing.assert_allclose(losses(pair), losses(tmp_path / "one"), rtol=0, atol=1e-4)
    assert len(losses(pair)) == EPOCHS
    one, two = (
        torch.cat([w.flatten().float() for w in weights(out, "best").values()]) for out in (tmp_path / "one", pair)
    )
    assert (one - two).norm() < 0.01 * one.norm()  # AdamW makes steps of rounding where a gradient is 0
    results = [json.loads((out / "result.json").read_text()) for out in (pair, tmp_path / "one")]
    assert results[0]["mAP"] == pytest.approx(results[1]["mAP"], abs=0.02)
    assert Run.model_validate_json((pair / "config.json").read_text()).schedule.epochs == EPOCHS


def test_two_processes_lose_the_modalities_that_one_loses(launcher, painted, tmp_path):
    by_modality = ["--augmentation.drop-by-modality", "rgb", "0.5", "nir", "0.3"]
    fusion = ["--model.fusion", "gate", "--augmentation.drop-modality", "0.5", *by_modality]
    options = [*fusion, "--model.drop-path", "0", "--schedule.epochs", "3"]
    train_pair(launcher, painted, tmp_path / "two", *options)
    alone(painted, tmp_path / "one", *options)
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=0, atol=1e-4)


def kill_one(agent, out):
    """Kill a process of a run after two steps."""
    deadline = time.time() + 200
    while not (out / "metrics.jsonl").exists() or len(losses(out)) < 2:
        assert time.time() < deadline
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(agent)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_weights_are_the_same(painted, pair, tmp_path):
    """By torchrun itself."""
    out = tmp_path / "run"
    with torchrun(painted, out) as run:
        kill_one(run.pid, out)
        _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "Signal 9" in errors or "SIGKILL" in errors or "exitcode: -9" in errors
    assert "resumed in epoch" in errors
    np.testing.assert_array_equal(losses(out), losses(pair))
    trained = weights(pair, "best")
    assert all(torch.equal(value, trained[name]) for name, value in weights(out, "best").items())


@pytest.mark.slow
def test_sharded_weights_learn_as_whole_ones(launcher, painted, pair, tmp_path):
    """Through FSDP2 and DCP; gradients are clipped, at a norm that none reaches."""
    out = tmp_path / "run"
    train_pair(launcher, painted, out, "--fsdp", "--optimizer.clip", "1e9")
    require_same_run(out, pair)


@pytest.mark.slow
def test_sharded_weights_and_their_average_are_resumed(launcher, painted, tmp_path):
    """A process is killed on the way; every gradient is clipped. One process with whole weights is the reference."""
    options = ("--optimizer.clip", "0.5", "--optimizer.ema", "0.5")
    alone(painted, tmp_path / "whole", "--micro-batch-size", "36", *options)
    out, errors = tmp_path / "run", tmp_path / "errors"
    agent = launcher.start(command(painted, out, "--fsdp", *options)[2:], errors)
    kill_one(agent, out)
    assert launcher.wait(agent) == 0, errors.read_text()
    assert "resumed in epoch" in errors.read_text()
    require_same_run(tmp_path / "run", tmp_path / "whole")


def require_same_run(out, whole):
    np.testing.assert_allclose(losses(out), losses(whole), rtol=2e-4)  # sums are taken in another order
    one, two = (all_weights(run) for run in (whole, out))
    assert (one - two).norm() < 0.01 * one.norm()
    assert (out / "last" / "shards" / ".metadata").is_file()
    assert not list((out / "checkpoints").glob(".*"))
    assert load_model(out / "best")[0].width


@pytest.mark.parametrize(("size", "options", "message"), [
    (1, {}, "--fsdp is for several processes"),
    (2, {"micro_batch_size": 4}, "--fsdp and --micro-batch-size"),
    (2, {"compile": True}, "--fsdp and --compile"),
    (2, {"precision": "fp16"}, "--fsdp and --precision fp16"),
    (2, {"model": {"backbone": "resnet50", "jpm": False, "sie": ()}}, "has BatchNorm"),
])  # fmt: skip
def test_options_that_do_not_go_with_fsdp(size, options, message):
    run = vary(tiny(), fsdp=True, device="cpu", **options)
    with pytest.raises(ConfigError, match=message):
        start(context_of_pair(run, DistributedContext(0, size, CPU)))


def test_several_processes_need_a_folder_that_is_named(monkeypatch, painted, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resight.training.distributed.initialize", lambda device: DistributedContext(0, 2, CPU))
    assert main(["train", "tiny", "--root", str(painted)]) == 2
    assert "several processes need --out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
