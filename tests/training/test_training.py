"""Training end to end at a tiny size: it learns, is reproducible, and goes on after a kill as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from resight.config.recipes import RECIPES, tiny, vary
from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.sightings import Split, hold_out
from resight.data.vocabulary import Vocabulary
from resight.device import resolve_compute
from resight.errors import ConfigError, StorageError, TrainingError
from resight.evaluation.evaluate import evaluate
from resight.evaluation.result import figures
from resight.models.checkpoint import load_model
from resight.progress import Progress
from resight.training import loop
from resight.training.distributed import DistributedContext
from resight.training.loop import train
from resight.training.lr_finder import Found, find_learning_rate
from resight.training.optimizer import update_ema
from resight.training.run_folder import RunFolder, default_folder
from resight.training.state import start
from resight.training.step import gradients

pytestmark = pytest.mark.slow
SMALL = {
    "device": "cpu",
    "precision": "fp32",
    "preprocessing": {"size": (64, 32)},
    "sampling": {"identities": 3, "instances": 2},
    "schedule": {"epochs": 3, "warmup_epochs": 1},
    "augmentation": {"erase": 0.5},
    "model": {"drop_path": 0.2, "dropout": 0.1},
}


def small(**changes) -> Run:
    return vary(vary(tiny(), **SMALL), **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "model.safetensors")


def run_to(path: Path, run: Run, root: Path):
    split = read_dataset(run.dataset, root)
    return train(run, split, RunFolder.new(path), Progress(quiet=True))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_leaves_a_whole_folder(painted, tmp_path):
    run = small(evaluate_every=2)
    result = run_to(tmp_path / "run", run, painted)
    assert Run.model_validate_json((tmp_path / "run" / "config.json").read_text()) == run
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "loss" in line] == [1, 2, 3]
    assert [line["epoch"] for line in lines if "evaluated" in line] == [2]
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written == {"checkpoint": "epoch-0003", **figures(result, "synthetic")}
    assert written["mAP"] == result.summary()["mAP"]
    assert (tmp_path / "run" / "best").resolve() == (tmp_path / "run" / "last").resolve()
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    model, card = load_model(tmp_path / "run" / "best")
    split = read_dataset("synthetic", painted)
    again = evaluate(model, split, card.vocabulary, card.preprocessing, run.evaluation, "fp32")
    assert again.metrics.map == result.metrics.map


def test_the_same_seed_gives_the_same_weights(painted, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_to(tmp_path / name, small(seed=seed, schedule={"epochs": 1}), painted)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_killed_in_mid_epoch_it_ends_with_the_same_weights(painted, tmp_path):
    options = {"checkpoint_steps": 1, "schedule": {"epochs": 6}, "loss": {"center_weight": 0.01}, "root": painted}
    whole, killed = small(**options), small(**options, out=tmp_path / "killed")
    run_to(tmp_path / "whole", whole, painted)
    (tmp_path / "killed.json").write_text(killed.model_dump_json())
    command = [sys.executable, "-m", "resight.cli", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--from", tmp_path / "killed.json"], env=environment)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("epoch-0002-step-*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    subprocess.run([*command, "--resume", tmp_path / "killed"], env=environment, check=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert (tmp_path / "whole" / "result.json").read_text() == (tmp_path / "killed" / "result.json").read_text()
    figures = [
        [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in path.read_text().splitlines()]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "killed" / "metrics.jsonl")
    ]
    assert figures[0] == figures[1]


def test_the_best_is_chosen_by_identities_kept_aside(painted, tmp_path):
    run = small(validation_fraction=0.34, sampling={"identities": 2}, evaluate_every=1)
    run_to(tmp_path / "run", run, painted)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held = [line for line in lines if line.get("evaluated") == "held-out"]
    assert len(held) == 3
    best = max(held, key=lambda line: (line["mAP"], -line["epoch"]))
    assert (tmp_path / "run" / "best").resolve().name == f"epoch-{best['epoch']:04d}"


def test_held_out_identities_are_not_learned_from(painted):
    split = read_dataset("synthetic", painted)
    learned, held = hold_out(split, 0.5, seed=3)
    assert held is not None
    assert set(learned.train.values("identity")).isdisjoint(held.query.values("identity"))
    assert len(learned.train) + len(held.query) == len(split.train)


def test_half_precision_and_clipping(painted, tmp_path):
    for precision in ("bf16", "fp16"):
        run = small(precision=precision, schedule={"epochs": 1}, optimizer={"clip": 1.0})
        run_to(tmp_path / precision, run, painted)
        assert all(v.isfinite().all() for v in weights(tmp_path / precision).values())


def test_a_loss_that_is_no_number_stops_the_run(painted, tmp_path):
    with pytest.raises(TrainingError, match=r"no number any more in epoch 1.*lower --optimizer\.lr"):
        run_to(tmp_path / "run", small(optimizer={"name": "sgd", "lr": 1e18}), painted)


def test_a_run_is_never_written_over(painted, tmp_path):
    folder = RunFolder.new(tmp_path / "run")
    compute = resolve_compute(torch.device("cpu"), "fp32")
    folder.create(small(), compute)
    with pytest.raises(ConfigError, match="exists already and is not written over; use --resume"):
        RunFolder.new(folder.path)
    folder.create(small(seed=5), compute)
    assert Run.model_validate_json((folder.path / "config.json").read_text()).seed == 0


def test_a_run_is_not_resumed_on_another_data_set(painted, tmp_path):
    run = small(schedule={"epochs": 1})
    run_to(tmp_path / "run", run, painted)
    folder, _ = RunFolder.open(tmp_path / "run")
    split = read_dataset("synthetic", painted)
    fewer = Split(split.name, split.train.of_identities(split.train.values("identity")[1:]), split.query, split.gallery)
    with pytest.raises(ConfigError, match=r"is not the one that .* was begun with"):
        train(run, fewer, folder, Progress(quiet=True))


def test_runs_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_folder(tiny()) == Path("runs/tiny")
    Path("runs/tiny").mkdir(parents=True)
    assert default_folder(tiny()) == Path("runs/tiny-2")


def test_a_full_disk_keeps_the_checkpoint_before(painted, tmp_path, monkeypatch):
    run = small(schedule={"epochs": 1})
    run_to(tmp_path / "run", run, painted)
    before = weights(tmp_path / "run")
    folder, _ = RunFolder.open(tmp_path / "run")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    model, card = load_model(tmp_path / "run" / "last")
    with pytest.raises(StorageError, match="the disk is full"):
        folder.save("epoch-0002", model.state_dict(), card, {}, best=True)
    monkeypatch.undo()
    assert same(weights(tmp_path / "run"), before)
    assert [p.name for p in folder.checkpoints.iterdir()] == ["epoch-0001"]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_the_disk(name):
    run = RECIPES[name]()
    assert run.recipe == name
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_the_average_is_what_is_kept_and_resumes(painted, tmp_path):
    options = {"optimizer": {"ema": 0.9}, "schedule": {"epochs": 2}}
    run_to(tmp_path / "whole", small(**options), painted)
    run_to(tmp_path / "plain", small(schedule={"epochs": 2}), painted)
    held = torch.load(tmp_path / "whole" / "last" / "training.pt", weights_only=True)
    raw, kept = held["model"], weights(tmp_path / "whole")
    assert same(raw, weights(tmp_path / "plain"))  # the average changes nothing of what is trained
    assert not same(raw, kept)

    class StopHereError(Exception):
        pass

    def stop(folder, name, *arguments, **options):
        saved(folder, name, *arguments, **options)
        if name == "epoch-0001":
            raise StopHereError

    saved = loop.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save", stop)
        with pytest.raises(StopHereError):
            run_to(tmp_path / "broken", small(**options), painted)
    folder, run = RunFolder.open(tmp_path / "broken")
    train(run, read_dataset(run.dataset, painted), folder, Progress(quiet=True))
    assert same(weights(tmp_path / "broken"), kept)


def test_follow_is_a_moving_average():
    a, b = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    torch.nn.init.constant_(b.weight, 3.0)
    b.running_mean += 7
    update_ema(a, b, 0.75)
    assert a.weight.tolist() == [1.5] * 3
    assert a.running_mean.tolist() == [7.0] * 3


def test_frozen_epochs_leave_the_backbone_alone(painted, tmp_path):
    for name, epochs in (("frozen", 2), ("half", 1)):
        options = {"freeze_epochs": epochs, "weight_decay": 0.1}
        run_to(tmp_path / name, small(optimizer=options, schedule={"epochs": 2}), painted)
    run = small()
    vocabulary = load_model(tmp_path / "frozen" / "best")[1].vocabulary
    begun = start(
        run, vocabulary, DistributedContext(0, 1, torch.device("cpu")), Progress(quiet=True)
    ).model.state_dict()
    frozen, half = weights(tmp_path / "frozen"), weights(tmp_path / "half")
    for name in begun:
        if name.startswith("backbone.") and "side" not in name:
            assert torch.equal(begun[name], frozen[name]), name
    assert not torch.equal(begun["heads.0.weight"], frozen["heads.0.weight"])
    assert not torch.equal(begun["backbone.blocks.0.attn.qkv.weight"], half["backbone.blocks.0.attn.qkv.weight"])


def test_recomputing_blocks_changes_nothing(painted, tmp_path):
    for name, gradient_checkpointing in (("kept", False), ("again", True)):
        options = {"model": {"drop_path": 0.3, "dropout": 0.1}, "schedule": {"epochs": 1}}
        run_to(tmp_path / name, small(gradient_checkpointing=gradient_checkpointing, **options), painted)
    assert same(weights(tmp_path / "kept"), weights(tmp_path / "again"))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler is here")
def test_compiled_blocks_train_as_plain_ones(painted):
    """Drop-path included: what it draws does not depend on who computes."""
    vocabulary, context = (
        Vocabulary(("a", "b"), ("1", "2"), (), ("rgb",)),
        DistributedContext(0, 1, torch.device("cpu")),
    )
    images, identity = torch.randn(8, 3, 64, 32), torch.arange(8) // 4
    side_info = {"camera": torch.arange(8) % 2, "modality": torch.zeros(8, dtype=torch.int64)}
    found = []
    for compiled in (False, True):
        run = small(compile=compiled, precision="fp32", model={"jpm": True, "drop_path": 0.4, "dropout": 0.0})
        state = start(run, vocabulary, context, Progress(quiet=True))
        loss, _, _ = gradients(state, images, side_info, identity, run.loss, "fp32", context, (3,))
        found.append((loss.total, {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}))
    (plain, expected), (fast, got) = found
    torch.testing.assert_close(fast, plain)
    for name, gradient in expected.items():
        assert (got[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


def test_compiling_needs_a_compiler_and_blocks(painted, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="--compile needs a C\\+\\+ compiler"):
        run_to(tmp_path / "run", small(compile=True), painted)
    plain = {"backbone": "resnet50", "jpm": False, "sie": ()}
    for option in ("compile", "recompute"):
        with pytest.raises(ConfigError, match="has none of"):
            run_to(tmp_path / "run", small(**{option: True}, model=plain), painted)


def test_the_rate_at_which_the_loss_falls_fastest(painted):
    split = read_dataset("synthetic", painted)
    run = small(model={"drop_path": 0.0, "dropout": 0.0})
    found = find_learning_rate(run, split, 1e-5, 1e2, 24, Progress(quiet=True))
    assert 3 <= len(found.rates) <= 24
    assert len(found.losses) == len(found.rates)
    assert np.allclose(np.diff(np.log(found.rates)), np.log(1e7) / 23)
    assert 1e-5 <= found.steepest < 1e2
    assert Found(np.geomspace(1, 100, 5), np.array([3.0, 2.9, 1.0, 0.9, 4.0])).steepest == pytest.approx(10**0.5)
    with pytest.raises(ConfigError, match="are no range"):
        find_learning_rate(run, split, 1.0, 0.1, 24, Progress(quiet=True))
    with pytest.raises(ConfigError, match="begin lower"):
        _ = Found(np.ones(2), np.ones(2)).steepest


def test_tensorboard_has_the_figures_of_the_metrics(painted, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_to(tmp_path / "run", small(tensorboard=True, evaluate_every=1), painted)
    held = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    held.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert [event.value for event in held.Scalars("train/loss")] == pytest.approx(losses)
    assert any(tag.endswith("/mAP") for tag in held.Tags()["scalars"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ConfigError, match="pip install 'resight"):
        run_to(tmp_path / "other", small(tensorboard=True), painted)
