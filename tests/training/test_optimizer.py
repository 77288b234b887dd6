"""Learning rates and parameter groups against the reference's, epoch by epoch."""

import json

import golden_cases
import pytest
from numpy.testing import assert_allclose
from torch import nn

from resight.config.optimization import Optimizer, Schedule
from resight.config.sections import Model
from resight.data.vocabulary import Vocabulary
from resight.models.transreid import TransReID
from resight.training.optimizer import make_optimizer, parameter_groups, set_learning_rate
from resight.training.schedule import learning_rate


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 4)
        self.bottleneck = nn.BatchNorm1d(4)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(4, 3, bias=False)


def test_golden_schedule():
    golden = json.loads((golden_cases.GOLDEN / "schedule_market.json").read_text())
    settings = Optimizer()  # the defaults are the reference's recipe for Market-1501
    groups = parameter_groups(Tiny().named_parameters(), settings)
    initial = {name: group for group in groups for name in group["names"]}
    for expected in golden["initial_groups"]:
        group = initial.pop(expected["name"])
        assert (group["lr"], group["weight_decay"]) == pytest.approx((expected["lr"], expected["weight_decay"]))
    assert not initial
    optimizer = make_optimizer(groups, settings)
    names = [group["name"] for group in golden["initial_groups"]]
    for epoch, expected in enumerate(golden["lr_by_epoch"], start=1):
        set_learning_rate(optimizer, Schedule(), epoch)
        rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
        assert_allclose([rates[name] for name in names], expected, rtol=1e-9)


def test_multistep_with_warmup():
    settings = Schedule(name="multistep", epochs=20, warmup_epochs=4, milestones=(10, 15))
    rates = [learning_rate(settings, epoch, 1.0) for epoch in range(1, 21)]
    assert rates[:4] == pytest.approx([0.2575, 0.505, 0.7525, 1.0])
    assert rates[4:] == pytest.approx([1.0] * 6 + [0.1] * 5 + [0.01] * 5)


def test_layer_decay_and_vectors():
    settings = Model(backbone="vit_tiny_patch16_224", jpm=True, sie=("camera",))
    model = TransReID(settings, (64, 32), 2, Vocabulary(("a", "b"), ("1", "2")).counts)
    options = Optimizer(lr=1.0, layer_decay=0.5, decay_vectors=False, head_lr_factor=5, bias_lr_factor=1)
    groups = parameter_groups(model.named_parameters(), options, depth=12)
    by_name = {name: group for group in groups for name in group["names"]}
    assert len(by_name) == sum(p.requires_grad for p in model.parameters())
    for name, lr in {
        "backbone.patch_embed.proj.weight": 0.5**13,
        "backbone.pos_embed": 0.5**13,
        "backbone.blocks.0.attn.qkv.weight": 0.5**12,
        "backbone.blocks.11.mlp.fc1.weight": 0.5,
        "backbone.jpm.block.mlp.fc1.weight": 0.5,
        "backbone.norm.weight": 1.0,
        "backbone.sie.table": 5.0,
        "heads.4.weight": 5.0,
        "necks.0.weight": 5.0,
    }.items():
        assert by_name[name]["lr"] == pytest.approx(lr), name
    undecayed = {name for name, group in by_name.items() if group["weight_decay"] == 0}
    vectors = {name for name, p in model.named_parameters() if p.requires_grad and p.ndim == 1}
    assert undecayed == vectors | {"backbone.pos_embed", "backbone.cls_token", "backbone.sie.table"}


def test_necks_and_heads_of_fused_features_have_the_rate_of_heads():
    model = TransReID(Model(backbone="test_vit", fusion="concat"), (64, 32), 2, {"modality": 3})
    options = Optimizer(lr=1.0, head_lr_factor=5, classifier_lr_factor=2, bias_lr_factor=1)
    rates = {
        name: group["lr"] for group in parameter_groups(model.named_parameters(), options) for name in group["names"]
    }
    assert rates["necks.0.weight"] == 5
    assert rates["fused_heads.0.weight"] == rates["heads.0.of_modality.2.weight"] == 10
