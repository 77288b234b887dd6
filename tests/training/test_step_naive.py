"""A training step, an epoch, the search for a learning rate and their files, against plain writings of themselves."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from training_helpers import ALONE, context_of, small

from resight.config.recipes import vary
from resight.config.run import Run
from resight.data.augment.augment import augment
from resight.data.loader import Batch
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError, StorageError, TrainingError
from resight.losses.objective import objective
from resight.training import loop, lr_finder, state
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext, initialize, restarted
from resight.training.fsdp import clip
from resight.training.lines import epoch_line, score_line
from resight.training.run_folder import RunFolder, _epoch, default_folder
from resight.training.schedule import learning_rate
from resight.training.step import reseed, train_step

KNOWN = Vocabulary(("a", "b", "c"), ("1", "2"), (), ("rgb", "tir"))
QUIET = {"model": {"drop_path": 0.0, "dropout": 0.0}}


def batch_of(count=6):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 2, 3, 64, 32), dtype=torch.uint8, generator=generator)
    present = torch.ones(count, 2, dtype=torch.bool)
    present[1, 0] = False
    numbers = torch.arange(count)
    return Batch(images, present, numbers // 2, numbers % 2, torch.full((count,), -1))


def everything(count=6):
    return slice(0, count), count


@pytest.mark.parametrize(("changes", "frozen"), [
    ({}, False),
    ({"optimizer": {"clip": 0.01}}, False),
    ({"optimizer": {"freeze_epochs": 2}}, True),
    ({"optimizer": {"freeze_epochs": 1}}, False),
    ({"loss": {"center_weight": 0.02, "center_lr": 0.3}, "optimizer": {"ema": 0.9}}, False),
    ({"loss": {"cross_modal_weight": 0.6, "triplet_weight": 0}, "augmentation": {"tone": 0.5}}, False),
])  # fmt: skip
def test_a_step_by_hand(changes, frozen):
    """Epoch 2, step 5: draws follow from both; loss, clip, weights, centers and average in this order."""
    run = vary(small(**QUIET, seed=11, optimizer={"name": "sgd", "lr": 0.05}), **changes)
    context = context_of(run, KNOWN)
    trained = state.start(context)
    trained.epoch, trained.step = 2, 5
    trained.model.train()
    plain = copy.deepcopy(trained.model)
    plain_center = copy.deepcopy(trained.center)
    batch = batch_of()
    values = train_step(context, trained, batch, everything())

    # The same by hand.
    draws = np.random.SeedSequence((11, 2, 5)).generate_state(2, np.uint64)
    mean, std = run.preprocessing.mean, run.preprocessing.std
    images = augment(batch.images, run.augmentation, mean, std, torch.Generator().manual_seed(int(draws[1])))
    rows, _ = batch.present.nonzero(as_tuple=True)
    identity = batch.identity[rows]
    out = plain(images[batch.present], batch.side_info(), identity)
    loss = objective(out.features, out.logits, identity, run.loss, plain_center, batch.side_info()["modality"])
    loss.total.backward()
    names = dict(plain.named_parameters())
    if frozen:
        for name, parameter in names.items():
            if not name.startswith(("necks", "heads", "backbone.sie")):
                parameter.grad = None
    if run.optimizer.clip:
        torch.nn.utils.clip_grad_norm_(plain.parameters(), run.optimizer.clip)
    groups = {name: group for group in trained.optimizer.param_groups for name in group["names"]}
    for name, parameter in names.items():
        if parameter.grad is not None:
            gradient = parameter.grad + groups[name]["weight_decay"] * parameter.detach()
            parameter.data -= groups[name]["lr"] * gradient
    for name, parameter in trained.model.named_parameters():
        torch.testing.assert_close(parameter, names[name], rtol=1e-4, atol=1e-6, msg=name)
    if plain_center is not None:
        gradient = plain_center.centers.grad / 0.02
        torch.testing.assert_close(trained.center.centers, plain_center.centers - 0.3 * gradient, rtol=1e-4, atol=1e-5)
        assert trained.average is not None
        before = dict(state.start(context).model.named_parameters())
        for name, parameter in trained.average.named_parameters():
            expected = 0.9 * before[name] + 0.1 * names[name]
            torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-6)
    assert_allclose(values["loss"], loss.total.detach(), rtol=1e-5)
    assert_allclose(values["accuracy"], (out.logits[0].argmax(1) == identity).float().mean())
    assert (int(values["images"]), "center" in values) == (11, plain_center is not None)
    assert ("cross_modal" in values) == (run.loss.cross_modal_weight > 0)


def test_the_cross_modal_loss_needs_two_modalities():
    run = small(loss={"cross_modal_weight": 1.0})
    one = Vocabulary(("a", "b"), (), (), ("tir",))
    with pytest.raises(ConfigError, match=r"the training set has only tir: set it to 0"):
        TrainContext.create(run, one, ALONE, context_of(run, KNOWN).progress)
    assert TrainContext.create(run, KNOWN, ALONE, context_of(run, KNOWN).progress).card.vocabulary == KNOWN


def test_draws_follow_from_all_of_their_numbers():
    reseed((1, 2, 3))
    first = torch.rand(3)
    torch.manual_seed(int(np.random.SeedSequence((1, 2, 3)).generate_state(1, np.uint64)[0]))
    assert torch.equal(first, torch.rand(3))
    reseed((1, 2, 4))
    assert not torch.equal(first, torch.rand(3))


def test_gradients_are_clipped_by_their_common_norm():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    clip(parameters, 10.0)
    assert parameters[1].grad.tolist() == [0, 4]
    clip(parameters, 1.0)
    assert_allclose(torch.stack([parameters[0].grad, parameters[1].grad]), [[0.6, 0], [0, 0.8]], rtol=1e-4)
    assert parameters[2].grad is None
    clip(parameters[2:], 1.0)  # nothing to clip


def test_a_new_state():
    run = small(optimizer={"layer_decay": 0.5, "lr": 0.1})
    fresh = state.start(context_of(run, KNOWN))
    assert (fresh.epoch, fresh.step, fresh.best, fresh.sums, fresh.sharded) == (1, 0, -1.0, {}, False)
    assert (fresh.average, fresh.center, fresh.center_optimizer) == (None, None, None)
    assert fresh.eval_model is fresh.model
    assert fresh.backbone is fresh.model.backbone
    assert not fresh.scaler.is_enabled()
    bases = {name: group["base"] for group in fresh.optimizer.param_groups for name in group["names"]}
    depth = len(fresh.model.backbone.blocks)
    assert bases["backbone.patch_embed.proj.weight"] == pytest.approx(0.1 * 0.5 ** (depth + 1))
    assert bases["backbone.blocks.0.norm1.weight"] == pytest.approx(0.1 * 0.5**depth)
    dumped = fresh.dump()
    assert dumped["model"] is None
    assert dumped["position"] == {"epoch": 1, "step": 0, "best": -1.0, "sums": {}}
    assert dumped["center"] is None

    run = small(optimizer={"ema": 0.5}, loss={"center_weight": 0.1, "center_lr": 0.7}, precision="fp16")
    run = run.model_copy(update={"gradient_checkpointing": True})
    full = state.start(context_of(run, KNOWN))
    assert full.eval_model is full.average is not None
    assert not any(parameter.requires_grad for parameter in full.average.parameters())
    assert tuple(full.center.centers.shape) == (3, full.model.backbone.width)
    assert full.center_optimizer.param_groups[0]["lr"] == 0.7
    assert full.scaler.is_enabled() == torch.amp.GradScaler("cpu", enabled=True).is_enabled()
    assert full.model.backbone.gradient_checkpointing
    full.epoch, full.step, full.best, full.sums = 4, 2, 0.25, {"loss": 3.0}
    other = state.start(context_of(run.model_copy(update={"seed": 9}), KNOWN))
    assert not torch.equal(other.center.centers, full.center.centers)
    other.restore(full.dump())
    assert (other.epoch, other.step, other.best, other.sums) == (4, 2, 0.25, {"loss": 3.0})
    assert torch.equal(other.center.centers, full.center.centers)
    for a, b in zip(other.model.parameters(), full.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("changes", "size", "says"), [
    ({"micro_batch_size": 2}, 1, "--micro-batch-size needs a backbone without BatchNorm"),
    ({"gradient_checkpointing": True}, 1, "needs transformer blocks, and resnet50 has none"),
    ({}, 2, "several processes would compute on parts of a batch"),
])  # fmt: skip
def test_a_resnet_is_for_whole_batches(changes, size, says):
    run = small(model={"backbone": "resnet50", "jpm": False, "sie": (), "drop_path": 0.0, "dropout": 0.0}, **changes)
    context = context_of(run, KNOWN)
    distributed = DistributedContext(0, size, torch.device("cpu"))
    with pytest.raises(ConfigError, match=says):
        state._require_fit(run, distributed, context.card.build().backbone)
    plain = small(micro_batch_size=2)
    state._require_fit(plain, distributed, context_of(plain, KNOWN).card.build().backbone)


class Log:
    """What is shown."""

    def __init__(self):
        self.lines, self.started, self.updates = [], [], []

    def log(self, line):
        self.lines.append(line)

    def start(self, *what, **options):
        self.started.append(what)

    def update(self, *what):
        self.updates.append(what)


def curve_of(losses, steps=None, lr=0.5):
    """The search with given losses, of a step that changes nothing."""
    left, rates = list(losses), []
    groups = [{"base": lr, "factor": 1.0}, {"base": lr / 4, "factor": 2.0}]
    optimizer = SimpleNamespace(param_groups=groups)

    def step(context, current, batch, part):
        assert part == (slice(0, 3), 3)
        rates.append([group["lr"] for group in groups])
        return {"loss": torch.tensor(left.pop(0))}

    count = steps or len(losses)
    context = SimpleNamespace(progress=Log(), run=small(optimizer={"lr": lr}), distributed=ALONE)
    batches = iter([Batch(*(torch.zeros(3) for _ in range(5)))] * count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lr_finder, "train_step", step)
        current = SimpleNamespace(step=0, optimizer=optimizer)
        curve = lr_finder._curve(context, current, batches, np.geomspace(1e-3, 1e-1, count))
    return curve, np.array(rates), context.progress


def test_losses_are_smoothed_and_rates_set_in_each_group():
    losses = [4.0, 3.0, 5.0, 1.0]
    curve, rates, log = curve_of(losses)
    mean, expected = 0.0, []
    for n, loss in enumerate(losses, start=1):
        mean = 0.9 * mean + 0.1 * loss
        expected.append(mean / (1 - 0.9**n))
    assert_allclose(curve.losses, expected, rtol=1e-6)
    assert_allclose(curve.rates, np.geomspace(1e-3, 1e-1, 4))
    assert_allclose(rates, np.geomspace(1e-3, 1e-1, 4)[:, None] * [1, 0.5], rtol=1e-6)
    assert log.started == [("learning rates", 4)]
    assert [number for number, _ in log.updates] == [1, 2, 3, 4]


def test_the_search_ends_where_the_loss_diverges():
    limit = (4 * (1 - 0.81) - 0.09) / 0.1  # the second loss at which the mean is 4 times the first
    assert len(curve_of([1.0, limit - 0.01, 1.0])[0].losses) == 3
    assert len(curve_of([1.0, limit + 0.01, 1.0])[0].losses) == 1
    for bad in (math.nan, math.inf):
        curve, _, _ = curve_of([1.0, 1.0, bad, 1.0])
        assert (len(curve.losses), len(curve.rates)) == (2, 2)
    assert len(curve_of([100.0, 90.0, 80.0])[0].losses) == 3  # a first high loss is no divergence


@pytest.mark.parametrize(("low", "high", "steps"), [(0.1, 0.1, 5), (0.2, 0.1, 5), (0.0, 0.1, 5), (0.1, 0.2, 2)])
def test_ranges_at_their_limits(low, high, steps):
    with pytest.raises(ConfigError, match="are no range"):
        lr_finder.find_learning_rate(small(), None, low, high, steps)


def epoch_of(run, batches, state_epoch=1, step=0, estimate=False, folder=None, loss=2.0):
    """An epoch of a step that changes nothing, with the rates, parts and shown lines."""
    seen = []
    current = SimpleNamespace(
        epoch=state_epoch, step=step, sums={}, model=torch.nn.Linear(1, 1),
        optimizer=SimpleNamespace(param_groups=[{"base": 1.0, "factor": 1.0}, {"base": 0.5, "factor": 2.0}]),
    )  # fmt: skip
    log = Log()
    context = SimpleNamespace(run=run, distributed=ALONE, progress=log, folder=folder)

    def step_of(context, current, batch, part):
        seen.append((current.optimizer.param_groups[1]["lr"], part, batch))
        return {"loss": torch.tensor(loss + len(seen)), "id": torch.tensor(1.0), "triplet": torch.tensor(0.5),
                "accuracy": torch.tensor(0.25), "images": torch.tensor(7)}  # fmt: skip

    class Batches:
        def batches(self, rows):
            for row in rows:
                yield SimpleNamespace(to=lambda device, row=row: row)

    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", step_of)
        clock = iter(range(10, 10_000, 2))  # two seconds from one look at the clock to the next
        patch.setattr(loop, "perf_counter", lambda: float(next(clock)))
        patch.setattr(loop, "save_checkpoint", lambda context, current, name, best: saved.append((name, best)))
        loop.train_epoch(context, current, Batches(), batches, estimate)
    return seen, current, log, saved


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_rates_and_sums_of_an_epoch(every, tmp_path):
    run = small(schedule={"every": every, "epochs": 8, "warmup_epochs": 3})
    batches = [[1, 2], [3, 4, 5], [6], [7, 8]]
    folder = RunFolder(tmp_path)
    seen, current, log, saved = epoch_of(run, batches, state_epoch=2, folder=folder)
    for n, (rate, part, batch) in enumerate(seen):
        position = 2 if every == "epoch" else 1 + (n + 1) / 4
        assert rate == pytest.approx(learning_rate(run.schedule, position, 0.5, 2.0))
        assert part == (slice(0, len(batches[n])), len(batches[n]))
        assert batch == batches[n]
    assert current.step == 4
    assert current.sums == {"loss": 3.0 + 4 + 5 + 6, "id": 4.0, "triplet": 2.0, "accuracy": 1.0}
    (line,) = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (line["epoch"], line["loss"], line["id"], line["accuracy"]) == (2, 4.5, 1.0, 0.25)
    assert line["lr"] == pytest.approx(learning_rate(run.schedule, 2, 1.0))
    assert (line["seconds"], line["images_per_second"]) == (10, 2.8)  # 5 x 2 seconds, 4 x 7 images
    assert log.started == [("epoch 2/8", 4, 0)]
    assert log.updates[1][0] == 2
    assert log.updates[1][1].startswith("loss 3.500  accuracy 25.0 %  lr ")
    assert log.updates[1][1].endswith(f"  {2 * 7 / 4:.0f} images/s")
    assert log.lines == [epoch_line(line, 8)]
    assert saved == []


def test_a_resumed_epoch_takes_the_remaining_steps_and_saves_between():
    run = small(checkpoint_steps=2)
    seen, current, log, saved = epoch_of(run, [[n] for n in range(8)], state_epoch=3, step=3)
    assert [batch for _, _, batch in seen] == [[3], [4], [5], [6], [7]]
    assert saved == [("epoch-0003-step-000004", False), ("epoch-0003-step-000006", False)]
    assert log.started == [("epoch 3/3", 8, 3)]
    assert current.step == 8


@pytest.mark.parametrize(("steps", "left"), [(1, None), (2, 4), (11, 22), (12, 24), (13, 27), (30, 78)])
def test_the_remaining_time_is_estimated_once(steps, left):
    """After 12 steps or at the end of a shorter epoch; three epochs of `steps`, less what was taken."""
    _, _, log, _ = epoch_of(small(), [[0]] * steps, estimate=True)
    estimates = [line for line in log.lines if line.startswith("about ")]
    assert len(estimates) == (left is not None)
    assert left is None or f" for {left} remaining steps, " in estimates[0]
    assert not [line for line in epoch_of(small(), [[0]] * steps)[2].lines if line.startswith("about ")]


def test_the_estimate_does_not_count_the_first_step():
    log = Log()
    context = SimpleNamespace(run=small(schedule={"epochs": 4}), progress=log)
    loop._log_estimate(context, SimpleNamespace(epoch=2, step=3), 10, [100.0, 110.0, 130.0])
    # 3 epochs of 10 steps are left, of which 3 are taken; 15 seconds each.
    from resight.progress import duration

    assert log.lines == [f"about {duration(27 * 15)} for 27 remaining steps, without evaluation"]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step(loss):
    with pytest.raises(TrainingError, match="not finite in epoch 5, step 1: lower"):
        epoch_of(small(), [[0], [1]], state_epoch=5, loss=loss)


@pytest.mark.parametrize(("every", "selection", "epochs", "evaluated", "better"), [
    (2, "validation", 5, [2, 4, 5], [2, 4]),
    (2, None, 5, [2, 4], [1, 2, 3, 4, 5]),
    (0, "validation", 3, [3], [3]),
    (0, None, 3, [], [1, 2, 3]),
    (3, "test", 3, [3], [3]),
])  # fmt: skip
def test_epochs_that_are_evaluated_and_chosen(every, selection, epochs, evaluated, better, monkeypatch, tmp_path):
    """mAP is 0.1 in each epoch but the fourth, where it is 0.3: an equal one is not better."""
    run = small(evaluate_every=every, schedule={"epochs": epochs}, select_on_test=selection == "test")
    validation = "held-out" if selection == "validation" else None
    context = SimpleNamespace(run=run, folder=RunFolder(tmp_path), distributed=ALONE, progress=Log())
    measured, chosen = [], []

    def score(context, model, split):
        assert split == (validation or "test set")
        measured.append(current.epoch)
        return SimpleNamespace(summary=lambda: {"mAP": 0.3 if current.epoch == 4 else 0.1})

    monkeypatch.setattr(loop, "score", score)
    current = SimpleNamespace(epoch=1, best=-1.0, sharded=False, eval_model=None)
    for epoch in range(1, epochs + 1):
        current.epoch = epoch
        if loop._evaluate_epoch(context, current, "test set", validation):
            chosen.append(epoch)
    assert (measured, chosen) == (evaluated, better)
    assert current.best == (-1.0 if selection is None else 0.3 if epochs > 3 else 0.1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] if evaluated else []
    assert [(line["epoch"], line["evaluated"]) for line in lines] == [(n, validation or "test") for n in evaluated]


def test_lines_of_text():
    line = {"epoch": 7, "loss": 1.23456, "id": 0.5, "triplet": 0.25, "accuracy": 0.75, "lr": 0.00812,
            "images_per_second": 123.45, "seconds": 59.6}  # fmt: skip
    expected = "epoch   7/120  loss 1.235  id 0.500  triplet 0.250  accuracy 75.0 %  lr 8.12e-03  123.5 images/s  60 s"
    assert epoch_line(line, 120) in (expected, expected.replace("123.5", "123.4"))
    assert score_line({"mAP": 0.12345, "R1": 1.0}) == "mAP 12.3 %  R1 100.0 %"


def test_lines_after_an_epoch_are_removed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.forget_after(3)  # there is no file yet
    for epoch in (1, 2, 3, 4):
        folder.record({"epoch": epoch})
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 1, "lo')
    folder.forget_after(2)
    assert folder.metrics.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert (_epoch('{"epoch": 5}'), _epoch("{}"), _epoch("x")) == (5, math.inf, math.inf)


def test_folders_are_numbered_from_2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = small()
    for name in ("tiny", "tiny-2", "tiny-3"):
        folder = default_folder(run)
        assert str(folder) == f"runs/{name}"
        folder.mkdir(parents=True)
    assert default_folder(small(out=tmp_path / "x")) == tmp_path / "x"
    monkeypatch.setattr("resight.training.run_folder.Path.exists", lambda path: not path.name.endswith("-9999"))
    assert default_folder(run).name == "tiny-9999"
    monkeypatch.setattr("resight.training.run_folder.Path.exists", lambda path: True)
    with pytest.raises(StorageError, match="runs/tiny to runs/tiny-9999 all exist"):
        default_folder(run)


def test_one_process_is_the_context_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert initialize("cpu") == DistributedContext(0, 1, torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert initialize("cpu").size == 1
    for count, expected in ((None, False), ("0", False), ("1", True), ("2", True)):
        monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
        if count:
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        assert restarted() is expected
    second = DistributedContext(1, 3, torch.device("cpu"))
    assert (ALONE.is_main, second.is_main) == (True, False)
    assert [second.local_slice(count) for count in (9, 10, 2, 0)] == [
        slice(3, 6), slice(3, 6), slice(0, 1), slice(0, 0),
    ]  # fmt: skip
    rows = torch.ones(2, requires_grad=True)
    assert not ALONE.gather(rows).requires_grad
    assert ALONE.wrap(model := torch.nn.Linear(1, 1)) is model
    assert ALONE.of_main("x") == "x"
    ALONE.barrier()
    assert Run.model_validate(small().model_dump()) == small()
