"""The structure of named networks, and how their weights start."""

import pytest
import torch

from resight.config.sections import Model
from resight.models.backbones.resnet_ibn import RESNETS
from resight.models.transreid import TransReID


@pytest.mark.parametrize("suffix", ["", "_ibn", "_fc512"])
@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnets_from_50_layers_on_have_bottlenecks(depth, suffix):
    layout = RESNETS.get(f"resnet{depth}{suffix}")
    if layout is None:
        pytest.skip("there is no such network")
    assert layout.bottleneck == (depth >= 50)
    assert layout.width == (2048 if depth >= 50 else 512)
    assert layout.fc == (suffix == "_fc512")


def test_the_linear_layers_of_a_solider_start_at_small_numbers():
    torch.manual_seed(0)
    model = TransReID(Model(backbone="solider_swin_tiny"), (64, 32), 2, {"camera": 1, "view": 1, "modality": 1})
    weights = [m.weight.detach() for m in model.backbone.modules() if isinstance(m, torch.nn.Linear)]
    assert len(weights) > 40
    for weight in weights:
        assert 0.015 < float(weight.std()) < 0.025  # normal with 0.02, cut at two units
        assert float(weight.abs().max()) <= 2
