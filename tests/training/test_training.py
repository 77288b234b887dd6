"""Training end to end at a tiny size: it learns, is reproducible, and a killed run that is resumed ends the same."""

import functools
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from test_distributed import launcher  # noqa: F401
from training_helpers import context_of, run_to, same, small, weights

import resight
from resight.cli import main
from resight.config.recipes import RECIPES, tiny
from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.sightings import Split, hold_out
from resight.data.vocabulary import Vocabulary
from resight.device import resolve_compute
from resight.errors import ConfigError, StorageError, TrainingError
from resight.evaluation.result import figures
from resight.models import blocks
from resight.models.blocks import Block
from resight.models.checkpoint import load_model
from resight.progress import Progress
from resight.training import loop
from resight.training import state as state_module
from resight.training.inputs import Inputs
from resight.training.loop import train
from resight.training.optimizer import update_ema
from resight.training.resolve import resolve
from resight.training.run_folder import RunFolder, default_folder
from resight.training.state import start
from resight.training.step import gradients, reseed


def test_a_run_leaves_a_whole_folder(painted, tmp_path):
    run = small(evaluate_every=2)
    result = run_to(tmp_path / "run", run, painted)
    assert Run.model_validate_json((tmp_path / "run" / "config.json").read_text()) == resolve(run)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "loss" in line] == [1, 2, 3]
    assert [line["epoch"] for line in lines if "evaluated" in line] == [2]
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written == {"checkpoint": "epoch-0003", **figures(result, "synthetic")}
    assert written["mAP"] == result.summary()["mAP"]
    assert (tmp_path / "run" / "best").resolve() == (tmp_path / "run" / "last").resolve()
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "best", "checkpoints", "compute.json", "config.json", "last", "metrics.jsonl", "result.json",
    ]  # fmt: skip


def test_train_needs_nothing_but_a_run(painted, tmp_path, capsys):
    run = small(root=painted, out=tmp_path / "run", schedule={"epochs": 1})
    result = resight.train(run)
    assert (result.query.info.dataset, result.protocol.name) == ("synthetic", "market")
    assert json.loads((run.out / "result.json").read_text())["mAP"] == result.summary()["mAP"]
    _, card = load_model(run.out / "best")
    assert card.vocabulary == Vocabulary.of(read_dataset("synthetic", painted).train)
    assert card.vocabulary.cameras == ("synthetic:1", "synthetic:2")
    assert card.embedding == resolve(run).embedding
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")  # a library call shows nothing unless it is given a Progress
    with pytest.raises(ConfigError, match="exists already; continue it with --resume"):
        resight.train(run)


def test_train_checks_pictures_before_it_makes_a_folder(market, tmp_path):
    corrupt = next((market / "bounding_box_train").iterdir())
    corrupt.write_bytes(b"no picture")
    run = small(dataset="market1501", root=market, out=tmp_path / "run", schedule={"epochs": 1})
    with pytest.raises(resight.PictureError, match=corrupt.name):
        resight.train(run)
    assert not run.out.exists()


def test_the_same_seed_gives_the_same_weights(painted, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_to(tmp_path / name, small(seed=seed, schedule={"epochs": 1}), painted)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_killed_in_mid_epoch_it_ends_with_the_same_weights(launcher, painted, tmp_path, capsys):  # noqa: F811
    options = {"checkpoint_steps": 1, "schedule": {"epochs": 4}, "loss": {"center_weight": 0.01}, "root": painted}
    whole, killed = small(**options), small(**options, out=tmp_path / "killed")
    run_to(tmp_path / "whole", whole, painted)
    (tmp_path / "killed.json").write_text(killed.model_dump_json())
    process = launcher.start(["train", "--config", tmp_path / "killed.json"], tmp_path / "errors", processes=1)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("epoch-0002-step-*")):
        assert time.monotonic() < deadline, (tmp_path / "errors").read_text()
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    assert launcher.wait(process) == -signal.SIGKILL, "it ended before it could be killed"
    assert not (tmp_path / "killed" / "result.json").exists()
    assert main(["train", "--resume", str(tmp_path / "killed")]) == 0
    assert re.search(r"resumed in epoch [2-4] of 4, after \d+ steps?", capsys.readouterr().err)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert (tmp_path / "whole" / "result.json").read_text() == (tmp_path / "killed" / "result.json").read_text()
    figures = [
        [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in path.read_text().splitlines()]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "killed" / "metrics.jsonl")
    ]
    assert figures[0] == figures[1]


def test_the_best_checkpoint_is_chosen_by_held_out_identities(painted, tmp_path):
    run = small(validation_fraction=0.34, sampling={"identities": 2}, evaluate_every=1)
    run_to(tmp_path / "run", run, painted)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if line.get("evaluated") == "held-out"]
    assert len(evaluated) == 3
    best = max(evaluated, key=lambda line: (line["mAP"], -line["epoch"]))
    assert (tmp_path / "run" / "best").resolve().name == f"epoch-{best['epoch']:04d}"


def test_held_out_identities_are_not_learned_from(painted):
    split = read_dataset("synthetic", painted)
    learned, held_out = hold_out(split, 0.5, seed=3)
    assert held_out is not None
    assert set(learned.train.values("identity")).isdisjoint(held_out.query.values("identity"))
    assert len(learned.train) + len(held_out.query) == len(split.train)


def test_half_precision_and_clipping(painted, tmp_path):
    for precision in ("bf16", "fp16"):
        run = small(precision=precision, schedule={"epochs": 1}, optimizer={"clip": 1.0})
        run_to(tmp_path / precision, run, painted)
        assert all(v.isfinite().all() for v in weights(tmp_path / precision).values())


def test_a_loss_that_is_not_finite_stops_the_run(painted, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss is not finite in epoch 1.*lower --optimizer\.lr"):
        run_to(tmp_path / "run", small(optimizer={"name": "sgd", "lr": 1e18}), painted)


def test_a_run_is_never_written_over(painted, tmp_path):
    folder = RunFolder.new(tmp_path / "run")
    compute = resolve_compute(torch.device("cpu"), "fp32")
    folder.create(small(), compute)
    with pytest.raises(ConfigError, match="exists already; continue it with --resume"):
        RunFolder.new(folder.path)
    folder.create(small(seed=5), compute)
    assert Run.model_validate_json((folder.path / "config.json").read_text()).seed == 0


def test_a_finished_run_is_resumed_after_its_last_epoch(painted, tmp_path, capsys):
    run = small(schedule={"epochs": 2})
    run_to(tmp_path / "run", run, painted)
    files = ("metrics.jsonl", "result.json", "compute.json", "config.json")
    before = {name: (tmp_path / "run" / name).read_text() for name in files}
    trained = weights(tmp_path / "run")
    folder, stored = RunFolder.open(tmp_path / "run")
    capsys.readouterr()
    train(stored, read_dataset(run.dataset, painted), folder, Progress())
    said = capsys.readouterr().err
    assert "the run is finished (" in said
    assert "epoch 3" not in said
    assert {name: (tmp_path / "run" / name).read_text() for name in files} == before
    assert same(weights(tmp_path / "run"), trained)


def test_a_run_is_not_resumed_on_another_data_set(painted, tmp_path):
    run = small(schedule={"epochs": 1})
    run_to(tmp_path / "run", run, painted)
    folder, _ = RunFolder.open(tmp_path / "run")
    split = read_dataset("synthetic", painted)
    fewer = Split(split.name, split.train.of_identities(split.train.values("identity")[1:]), split.query, split.gallery)
    with pytest.raises(ConfigError, match=r"differs from the one that .* was started with"):
        train(run, fewer, folder)


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


def test_the_moving_average_is_the_model_and_is_resumed(painted, tmp_path):
    options = {"optimizer": {"ema": 0.9}, "schedule": {"epochs": 2}}
    run_to(tmp_path / "whole", small(**options), painted)
    run_to(tmp_path / "plain", small(schedule={"epochs": 2}), painted)
    stored = torch.load(tmp_path / "whole" / "last" / "training.pt", weights_only=True)
    raw, average = stored["model"], weights(tmp_path / "whole")
    assert same(raw, weights(tmp_path / "plain"))  # the average changes nothing of what is trained
    assert not same(raw, average)

    class StopHereError(Exception):
        pass

    def stop(context, state, name, best):
        saved(context, state, name, best)
        if name == "epoch-0001":
            raise StopHereError

    saved = loop.save_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", stop)
        with pytest.raises(StopHereError):
            run_to(tmp_path / "broken", small(**options), painted)
    folder, run = RunFolder.open(tmp_path / "broken")
    train(run, read_dataset(run.dataset, painted), folder)
    assert same(weights(tmp_path / "broken"), average)


def test_update_ema_is_a_moving_average():
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
    vocabulary = load_model(tmp_path / "frozen" / "best")[1].vocabulary
    initial = start(context_of(small(), vocabulary)).model.state_dict()
    frozen, half = weights(tmp_path / "frozen"), weights(tmp_path / "half")
    backbone = [name for name in initial if name.startswith("backbone.") and "sie" not in name]
    assert len(backbone) > 50
    for name in backbone:
        assert torch.equal(initial[name], frozen[name]), name
    for name in ("heads.0.weight", "backbone.sie.table"):
        assert not torch.equal(initial[name], frozen[name])
    assert not torch.equal(initial["backbone.blocks.0.attn.qkv.weight"], half["backbone.blocks.0.attn.qkv.weight"])


def test_gradient_checkpointing_changes_nothing(painted, tmp_path):
    for name, gradient_checkpointing in (("plain", False), ("checkpointed", True)):
        options = {"model": {"drop_path": 0.3, "dropout": 0.1}, "schedule": {"epochs": 1}}
        run_to(tmp_path / name, small(gradient_checkpointing=gradient_checkpointing, **options), painted)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "checkpointed"))


def test_compiled_blocks_train_as_plain_ones(monkeypatch):
    """Every form of a block (drop-path, class token alone, parts) is compiled; torch's own operations compute the
    graphs, which takes a second where C++ takes a minute: the test below compiles one of them."""
    compiled_with = []

    def graphs():
        compiled_with.append("aot_eager")
        return torch.compile(Block.steps, dynamic=False, backend="aot_eager")

    monkeypatch.setattr(blocks, "_compiled_steps", functools.cache(graphs))
    vocabulary = Vocabulary(("a", "b"), ("1", "2"), (), ("rgb",))
    images, identity = torch.randn(8, 3, 64, 32), torch.arange(8) // 4
    side_info = {"camera": torch.arange(8) % 2, "modality": torch.zeros(8, dtype=torch.int64)}
    monkeypatch.setattr(state_module, "_require_compiler", lambda device: None)  # none is used
    outcomes = []
    for compiled in (False, True):
        run = small(compile=compiled, model={"jpm": True, "drop_path": 0.4, "dropout": 0.0})
        context = context_of(run, vocabulary)
        state = start(context)
        loss = gradients(context, state, Inputs(images, side_info, identity), identity, (3,)).loss
        gradient = {name: p.grad for name, p in state.model.named_parameters() if p.grad is not None}
        outcomes.append((loss.total, gradient))
    assert compiled_with == ["aot_eager"]
    (plain_loss, plain), (compiled_loss, compiled) = outcomes
    torch.testing.assert_close(compiled_loss, plain_loss)
    assert compiled.keys() == plain.keys()
    for name, gradient in plain.items():
        assert (compiled[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler is here")
def test_a_block_compiled_to_cpp_computes_as_a_plain_one():
    """Drop-path included: its draws do not depend on who computes."""
    run = small(model={"drop_path": 0.4, "dropout": 0.0})
    state = start(context_of(run, Vocabulary(("a", "b"), (), (), ("rgb",))))
    block = state.model.train().backbone.blocks[-1]
    x = torch.randn(16, 9, state.model.backbone.width)
    outcomes = []
    for compiled in (False, True):
        block.compiled = compiled
        block.zero_grad()
        inputs = x.clone().requires_grad_()
        reseed((3,))
        out = block(inputs, 1)
        out.square().sum().backward()
        outcomes.append([out.detach(), inputs.grad, *(p.grad.clone() for p in block.parameters())])
    dropped = (outcomes[0][0] == x[:, :1]).all(2).any()
    assert dropped  # of some images both branches were left out
    for plain, compiled in zip(*outcomes, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_compiling_needs_a_compiler_and_blocks(painted, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="--compile needs a C\\+\\+ compiler"):
        run_to(tmp_path / "run", small(compile=True), painted)
    plain = {"backbone": "resnet50", "jpm": False, "sie": (), "drop_path": 0.0, "dropout": 0.0}
    for option, says in (
        ("compile", "--compile is for plain vision transformers, and resnet50 is none"),
        ("gradient_checkpointing", "needs transformer blocks, and resnet50 has none"),
    ):
        with pytest.raises(ConfigError, match=says):
            run_to(tmp_path / "run", small(**{option: True}, model=plain), painted)


def test_tensorboard_has_the_figures_of_the_metrics(painted, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_to(tmp_path / "run", small(tensorboard=True, evaluate_every=1), painted)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses)
    assert any(tag.endswith("/mAP") for tag in events.Tags()["scalars"])
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="pip install 'resight"):
        run_to(tmp_path / "other", small(tensorboard=True), painted)
