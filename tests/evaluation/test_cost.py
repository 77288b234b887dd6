"""The cost of embedding sightings that lack modalities."""

import pytest
from conftest import small_model, varied_model

from resight.evaluation.cost import subset_cost
from resight.inference.load import load

MODALITIES = ("rgb", "nir", "tir")


def test_operations_are_those_of_the_images_that_are_present(tmp_path):
    model = load(small_model(tmp_path / "m", modalities=MODALITIES, fusion="mean", sie=("modality",)), "cpu", "fp32")
    one, two, three = (subset_cost(model, name, 1.0) for name in ("tir", "rgb+tir", "rgb+nir+tir"))
    assert one.flops > 1e5
    assert (two.flops, three.flops) == (2 * one.flops, 3 * one.flops)
    width, depth = 64, 6
    assert one.parameters == three.parameters > depth * 12 * width**2  # a block has 12 D**2 weights


def test_operations_and_parameters_of_the_fusion_are_counted(tmp_path):
    flops, parameters = {}, {}
    for kind in ("mean", "gate", "attention"):
        folder = varied_model(tmp_path / kind, modalities=MODALITIES, fusion=kind, sie=("modality",))
        model = load(folder, "cpu", "fp32")
        cost = subset_cost(model, "rgb+tir", 1.0)
        flops[kind] = cost.flops
        parameters[kind] = cost.parameters - sum(p.numel() for p in model.model.backbone.parameters())
        assert parameters[kind] == sum(p.numel() for p in model.model.fusion.parameters())
    assert flops["mean"] < flops["gate"] < flops["attention"]


def test_separate_backbones_count_where_their_modality_is_present(tmp_path):
    folder = small_model(tmp_path / "m", modalities=MODALITIES, fusion="mean", sie=(), separate_backbones=True)
    model = load(folder, "cpu", "fp32")
    one, three = (subset_cost(model, name, 1.0) for name in ("tir", "rgb+nir+tir"))
    assert three.parameters == 3 * one.parameters
    assert three.flops == pytest.approx(3 * one.flops)
