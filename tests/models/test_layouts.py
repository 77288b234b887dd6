"""The structure of named networks, and how their weights start."""

import pytest
import torch

from resight.config.sections import Model
from resight.models.backbones.clip_resnet import CLIP_RESNETS
from resight.models.backbones.positions import guess_grid
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


@pytest.mark.parametrize(
    ("name", "blocks", "width", "projected"),
    [  # Radford et al. 2021, table 19
        ("clip_rn50", (3, 4, 6, 3), 2048, 1024),
        ("clip_rn101", (3, 4, 23, 3), 2048, 512),
        ("clip_rn50x4", (4, 6, 10, 6), 2560, 640),
        ("clip_rn50x16", (6, 8, 18, 8), 3072, 768),
    ],
)
def test_the_resnets_of_clip(name, blocks, width, projected):
    layout = CLIP_RESNETS[name]
    assert (layout.blocks, 32 * layout.stem, layout.projected) == (blocks, width, projected)


@pytest.mark.parametrize(
    ("height", "width", "stride"),
    [(256, 128, 16), (256, 128, 12), (384, 128, 16), (224, 224, 16), (256, 256, 12), (384, 384, 12), (224, 112, 12)],
)
def test_the_grid_of_usual_sizes(height, width, stride):
    rows, columns = ((side - 16) // stride + 1 for side in (height, width))
    assert guess_grid(rows * columns) == (rows, columns)


@pytest.mark.parametrize("patches", [0, 1, 7, 127])
def test_numbers_that_are_of_no_grid(patches):
    assert guess_grid(patches) == ((1, 1) if patches == 1 else None)


def test_the_linear_layers_of_a_solider_start_at_small_numbers():
    torch.manual_seed(0)
    model = TransReID(Model(backbone="solider_swin_tiny"), (64, 32), 2, {"camera": 1, "view": 1, "modality": 1})
    weights = [m.weight.detach() for m in model.backbone.modules() if isinstance(m, torch.nn.Linear)]
    assert len(weights) > 40
    for weight in weights:
        assert 0.015 < float(weight.std()) < 0.025  # normal with 0.02, cut at two units
        assert float(weight.abs().max()) <= 2
