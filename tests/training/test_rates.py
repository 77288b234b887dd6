"""Learning rates, parameter groups and the moving average, recomputed number by number."""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from resight.config.optimization import Optimizer, Schedule
from resight.training.optimizer import freeze, make_optimizer, parameter_groups, set_learning_rate, update_ema
from resight.training.schedule import learning_rate


def test_cosine_with_warmup_by_hand():
    settings = Schedule(epochs=20, warmup_epochs=4, warmup_start=0.1, floor=0.02)
    lr, factor = 0.5, 3.0
    start, peak, floor = 0.05, 1.5, 0.01
    assert learning_rate(settings, 0, lr, factor) == pytest.approx(start)
    assert learning_rate(settings, 1, lr, factor) == pytest.approx(start + (peak - start) / 4)
    assert learning_rate(settings, 2.5, lr, factor) == pytest.approx(start + 2.5 / 4 * (peak - start))
    assert learning_rate(settings, 10, lr, factor) == pytest.approx((peak + floor) / 2)
    assert learning_rate(settings, 20, lr, factor) == pytest.approx(floor)
    assert learning_rate(settings, 27, lr, factor) == pytest.approx(floor)  # and it stays there
    for epoch in (4, 5, 12.25, 19):  # the cosine is over all epochs, as in the reference: it does not begin at the peak
        expected = floor + (peak - floor) * (1 + math.cos(math.pi * epoch / 20)) / 2
        assert learning_rate(settings, epoch, lr, factor) == pytest.approx(expected)
    assert learning_rate(settings, 4, lr) == pytest.approx(0.01 + 0.49 * (1 + math.cos(math.pi / 5)) / 2)


def test_without_warmup_the_first_epoch_has_the_schedules_rate():
    settings = Schedule(epochs=10, warmup_epochs=0, floor=0.0)
    assert learning_rate(settings, 0, 2.0) == pytest.approx(2.0)
    assert learning_rate(settings, 1, 2.0) == pytest.approx(1 + math.cos(math.pi / 10))


def test_steps_are_after_their_milestones():
    settings = Schedule(name="multistep", epochs=9, warmup_epochs=2, warmup_start=0.5, milestones=(4, 6), gamma=0.3)
    rates = [learning_rate(settings, epoch, 2.0, 1.5) for epoch in range(1, 8)]
    assert rates == pytest.approx([1 + 0.5 * (3 - 1), 3, 3, 3, 0.9, 0.9, 0.27])
    assert learning_rate(settings, 4.001, 2.0, 1.5) == pytest.approx(0.9)


NAMES = {
    "backbone.patch_embed.proj.weight": (2, 2),
    "backbone.patch_embed.proj.bias": (2,),
    "backbone.cls_token": (1, 1, 2),
    "backbone.reg_token": (1, 1, 2),
    "backbone.pos_embed": (1, 3, 2),
    "backbone.norm_pre.weight": (2,),
    "backbone.blocks.0.attn.qkv.weight": (6, 2),
    "backbone.blocks.0.attn.qkv.bias": (6,),
    "backbone.blocks.1.ls1.gamma": (2,),
    "backbone.blocks.10.mlp.fc1.weight": (2, 2),
    "backbone.jpm.block.mlp.fc1.weight": (2, 2),
    "backbone.jpm.norm.weight": (2,),
    "backbone.norm.weight": (2,),
    "backbone.norm.bias": (2,),
    "backbone.sie.table": (3, 2),
    "necks.0.weight": (2,),
    "heads.0.weight": (3, 2),
}
DEPTHS = [0, 0, 0, 0, 0, 0, 1, 1, 2, 11, 12, 13, 13, 13, 13, 13, 13]  # of 12 blocks; 13 is after them


def parameters():
    return [(name, nn.Parameter(torch.ones(shape))) for name, shape in NAMES.items()]


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_every_parameter_has_its_rate_and_decay(decay_vectors):
    settings = Optimizer(
        lr=0.4, layer_decay=0.5, bias_lr_factor=3.0, head_lr_factor=7.0, weight_decay=0.11, bias_weight_decay=0.05,
        decay_vectors=decay_vectors,
    )  # fmt: skip
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    groups = parameter_groups([*parameters(), ("necks.0.bias", frozen)], settings, depth=12)
    by_name = {name: group for group in groups for name in group["names"]}
    assert by_name.keys() == NAMES.keys()
    for (name, shape), depth in zip(NAMES.items(), DEPTHS, strict=True):
        bias = name.endswith("bias")
        head = name.startswith(("necks", "heads", "backbone.sie"))
        group = by_name[name]
        assert group["base"] == pytest.approx(0.4 * 0.5 ** (13 - depth)), name
        assert group["factor"] == pytest.approx((3 if bias else 1) * (7 if head else 1)), name
        assert group["lr"] == pytest.approx(group["base"] * group["factor"]), name
        token = name.endswith(("_token", "pos_embed", "sie.table"))
        undecayed = not decay_vectors and (len(shape) == 1 or token)
        assert group["weight_decay"] == (0 if undecayed else 0.05 if bias else 0.11), name
    assert all(len(group["params"]) == len(group["names"]) for group in groups)
    kinds = {(group["base"], group["factor"], group["weight_decay"]) for group in groups}
    assert len(kinds) == len(groups)  # parameters of one kind share a group


def test_without_layer_decay_all_layers_have_the_base_rate():
    groups = parameter_groups(parameters(), Optimizer(lr=0.3, bias_lr_factor=1.0))
    assert {group["base"] for group in groups} == {0.3}


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_the_optimizer_that_is_named(name, kind):
    settings = Optimizer(name=name, lr=0.2, momentum=0.7, betas=(0.8, 0.98))
    optimizer = make_optimizer(parameter_groups(parameters(), settings), settings)
    assert type(optimizer).__name__ == kind
    assert optimizer.defaults["lr"] == 0.2
    assert optimizer.defaults["fused"] is True
    if name == "sgd":
        assert optimizer.defaults["momentum"] == 0.7
    else:
        assert optimizer.defaults["betas"] == (0.8, 0.98)


def test_rates_are_set_in_every_group_and_the_highest_base_is_returned():
    settings = Optimizer(lr=1.0, layer_decay=0.5, bias_lr_factor=2.0)
    schedule = Schedule(epochs=10, warmup_epochs=2)
    optimizer = make_optimizer(parameter_groups(parameters(), settings, 12), settings)
    for epoch in (1, 2, 7, 10):
        returned = set_learning_rate(optimizer, schedule, epoch)
        assert returned == pytest.approx(learning_rate(schedule, epoch, 1.0))
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(learning_rate(schedule, epoch, group["base"], group["factor"]))


def test_freezing_clears_the_gradients_of_pretrained_parameters_only():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.sie = nn.Linear(2, 2)
    model.backbone.siezed = nn.Linear(2, 2)  # not side information
    model.backbone.norm = nn.Linear(2, 2)
    model.necks = nn.ModuleList([nn.Linear(2, 2)])
    model.heads = nn.ModuleList([nn.Linear(2, 2)])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    freeze(model)
    left = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    names = ("backbone.sie", "necks.0", "heads.0")
    assert left == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def test_the_moving_average_after_three_steps():
    average, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    expected = average.weight.tolist()
    for step in (1, 2, 3):
        model.weight.data.fill_(10.0 * step)
        model.running_var.fill_(float(step))
        model.num_batches_tracked.fill_(step)
        update_ema(average, model, 0.9)
        expected = [0.9 * x + 0.1 * 10 * step for x in expected]
        assert_allclose(average.weight.detach(), expected, rtol=1e-6)
        assert average.running_var.tolist() == [step, step]
        assert average.num_batches_tracked == step
    assert model.weight.tolist() == [30, 30]
