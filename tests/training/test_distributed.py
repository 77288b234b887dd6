"""Pieces of a batch, and processes that train together, against one process with the whole batch."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from resight.config.recipes import tiny, vary
from resight.config.run import Run
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.losses.objective import objective
from resight.models.checkpoint import load_model
from resight.progress import Progress
from resight.training.distributed import DistributedContext
from resight.training.state import start
from resight.training.step import gradients, reseed

ALONE = DistributedContext(0, 1, torch.device("cpu"))
VOCABULARY = Vocabulary(tuple("abcd"), ("1", "2"), (), ("rgb",))


def state_of(**model):
    run = vary(tiny(), images={"size": (64, 32)}, model={"sie": ("camera",), **model}, precision="fp32")
    run = vary(run, loss={"center_weight": 0.01})
    return run, start(run, VOCABULARY, ALONE, Progress(quiet=True))


def batch(count=16):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 64, 32, generator=generator)
    identity = torch.arange(count) // 4
    return images, {"camera": torch.arange(count) % 2, "modality": torch.zeros(count, dtype=torch.int64)}, identity


def grads(state):
    return {name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None}


def close(found, expected, tolerance=1e-5):
    assert set(found) == set(expected)
    for name, value in expected.items():  # some are 0 but for rounding
        assert (found[name] - value).norm() <= tolerance * value.norm() + 1e-6, name


@pytest.mark.parametrize("piece", [None, 5, 8])
def test_pieces_give_the_gradients_of_the_whole_batch(micro_batch_size):
    run, state = state_of(drop_path=0.0)
    images, side_info, identity = batch()
    out = state.model(images, side_info, identity)
    loss = objective(out.features, out.logits, identity, run.loss, state.center, side_info["modality"])
    loss.total.backward()
    expected, centers = grads(state), state.center.centers.grad.clone()
    mean = state.model.necks[0].running_mean.clone()

    run, state = state_of(drop_path=0.0)
    found, _, _ = gradients(state, images, side_info, identity, run.loss, "fp32", ALONE, (0,), micro_batch_size)
    assert found.total.item() == pytest.approx(loss.total.item(), rel=1e-6)
    close(grads(state), expected)
    close({"centers": state.center.centers.grad}, {"centers": centers})
    torch.testing.assert_close(state.model.necks[0].running_mean, mean)


def test_pieces_replay_dropout_and_drop_path():
    options = {"drop_path": 0.4, "dropout": 0.2, "attention_dropout": 0.1, "jpm": True}
    run, state = state_of(**options)
    images, side_info, identity = batch()
    pieces = []
    for n, part in enumerate((slice(0, 6), slice(6, 12), slice(12, 16))):  # one graph over all pieces: all the memory
        reseed((7, n))
        pieces.append(state.model.backbone(images[part], {kind: labels[part] for kind, labels in side_info.items()}))
    features = [torch.cat(branch) for branch in zip(*pieces, strict=True)]
    logits = state.model.classify(features, identity)
    objective(features, logits, identity, run.loss, state.center, side_info["modality"]).total.backward()
    expected = grads(state)

    run, state = state_of(**options)
    gradients(state, images, side_info, identity, run.loss, "fp32", ALONE, (7,), 6)
    close(grads(state), expected)


def test_a_piece_holds_no_more_than_its_own_graph():
    """What autograd keeps at one time, in bytes: a quarter of the batch needs a quarter of it."""

    def most(micro_batch_size):
        run, state = state_of()
        held, peak = 0, 0

        class IngestReport:
            def __init__(self, tensor):
                nonlocal held, peak
                self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
                held += self.size
                peak = max(peak, held)

            def __del__(self):
                nonlocal held
                held -= self.size

        with torch.autograd.graph.saved_tensors_hooks(IngestReport, lambda kept: kept.tensor):
            gradients(state, *batch(), run.loss, "fp32", ALONE, (0,), micro_batch_size)
        return peak

    whole, quarter = most(None), most(4)
    parameters = sum(p.numel() * 4 for p in state_of()[1].model.parameters())  # saved too, of whatever piece
    assert quarter - parameters < 0.35 * (whole - parameters)


def test_a_backbone_with_batchnorm_is_not_taken_apart():
    run = vary(tiny(), model={"backbone": "resnet50", "jpm": False, "sie": ()}, micro_batch_size=4)
    with pytest.raises(ConfigError, match="--micro-batch-size needs a backbone without BatchNorm"):
        start(run, VOCABULARY, ALONE, Progress(quiet=True))


def command(painted, out, *options):
    fixed = "tiny --device cpu --precision fp32 --schedule.epochs 20 --sampling.identities 6 --model.drop-path 0.1"
    words = ["train", *fixed.split(), "--root", str(painted), "--out", str(out), *options]
    return ["-m", "resight.cli", *words]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def alone(painted, out, *options):
    subprocess.run(
        [sys.executable, *command(painted, out, *options)], check=True, capture_output=True, env=environment()
    )


def torchrun(painted, out, *options):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    words = [sys.executable, *launch, *command(painted, out, *options)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())


def losses(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if "loss" in line])


def weights(out):
    return load_file(out / "best" / "model.safetensors")


@pytest.fixture(scope="module")
def pair(painted, tmp_path_factory):
    """An unbroken run of two processes: 20 epochs of one step."""
    out = tmp_path_factory.mktemp("pair") / "run"
    done = torchrun(painted, out)
    _, says = done.communicate(timeout=300)
    assert done.returncode == 0, says
    return out


@pytest.mark.slow
def test_two_processes_learn_as_one(painted, pair, tmp_path):
    alone(
        painted, tmp_path / "one", "--micro-batch-size", "36"
    )  # 72 pictures: two pieces draw drop-path as two processes do
    np.testing.assert_allclose(losses(pair), losses(tmp_path / "one"), rtol=0, atol=1e-4)
    assert len(losses(pair)) == 20
    one, two = (torch.cat([w.flatten().float() for w in weights(out).values()]) for out in (tmp_path / "one", pair))
    assert (one - two).norm() < 0.01 * one.norm()  # AdamW makes steps of rounding where a gradient is 0
    results = [json.loads((out / "result.json").read_text()) for out in (pair, tmp_path / "one")]
    assert results[0]["mAP"] == pytest.approx(results[1]["mAP"], abs=0.02)
    assert Run.model_validate_json((pair / "config.json").read_text()).schedule.epochs == 20


def kill_one(run, out):
    """Kills a process of a run after five steps, and returns what the run, which must end well, said."""
    deadline = time.time() + 200
    while not (out / "metrics.jsonl").exists() or len(losses(out)) < 5:
        assert time.time() < deadline
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, says = run.communicate(timeout=300)
    assert run.returncode == 0, says
    return says


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_weights_are_the_same(painted, pair, tmp_path):
    out = tmp_path / "run"
    says = kill_one(torchrun(painted, out), out)
    assert "Signal 9" in says or "SIGKILL" in says or "exitcode: -9" in says
    np.testing.assert_array_equal(losses(out), losses(pair))
    assert all(torch.equal(value, weights(pair)[name]) for name, value in weights(out).items())


@pytest.mark.slow
@pytest.mark.parametrize("ema", ["0", "0.5"])
def test_weights_in_parts_learn_as_whole_ones_and_resume(painted, pair, tmp_path, ema):
    """Through FSDP2 and DCP, gradients clipped; killed on the way and gone on with."""
    options = ["--optimizer.clip", "1e9" if ema == "0" else "0.5", "--optimizer.ema", ema]
    out = tmp_path / "run"
    kill_one(torchrun(painted, out, "--fsdp", *options), out)
    if ema == "0":
        whole = pair
    else:
        whole = tmp_path / "whole"
        done = torchrun(painted, whole, *options)
        assert done.wait(timeout=300) == 0
    np.testing.assert_allclose(losses(out), losses(whole), rtol=2e-4)  # sums are taken in another order
    one, two = (torch.cat([w.flatten().float() for w in weights(run).values()]) for run in (whole, out))
    assert (one - two).norm() < 0.01 * one.norm()
    assert (out / "last" / "shards" / ".metadata").is_file()
    assert not list((out / "checkpoints").glob(".*"))
    assert load_model(out / "best")[0].width


def test_weights_in_parts_need_a_team_and_no_pieces(monkeypatch):
    for context, options, says in (
        (ALONE, {}, "--fsdp is for several processes"),
        (DistributedContext(0, 2, torch.device("cpu")), {"piece": 4}, "does not go together with --micro-batch-size"),
        (DistributedContext(0, 2, torch.device("cpu")), {"compile": True}, "does not go together with --compile"),
    ):
        with pytest.raises(ConfigError, match=says):
            start(vary(tiny(), fsdp=True, **options), VOCABULARY, context, Progress(quiet=True))


def test_processes_must_be_told_where(monkeypatch, painted, capsys):
    from resight.cli import main

    monkeypatch.setattr(
        "resight.training.distributed.join", lambda device: DistributedContext(0, 2, torch.device("cpu"))
    )
    assert main(["train", "tiny", "--root", str(painted)]) == 2
    assert "several processes need --out" in capsys.readouterr().err
