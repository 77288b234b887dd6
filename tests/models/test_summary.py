"""The summary of a model: shapes, parameters and FLOPs against those of the network itself."""

import pytest
import torch

from resight import summarize
from resight.cli import main
from resight.config.recipes import tiny, vary
from resight.errors import ConfigError
from resight.models.summary import CAMERAS, IDENTITIES, summarize_model
from resight.models.transreid import TransReID


@pytest.fixture(scope="module")
def run():
    return vary(tiny(), model={"sie": ("camera", "modality")}, preprocessing={"size": (64, 32)})


def test_every_stage_has_its_shape(run):
    stages = {stage.name: stage for stage in summarize(run)}
    patches, width, parts = 4 * 2, 64, 4
    assert stages["image"].shape == [2, 3, 64, 32]
    assert stages["patches"].shape == [2, patches, width]
    assert stages["tokens"].shape == [2, 1 + patches, width]
    assert stages["global feature"].shape == [2, 1, width]
    assert stages["logits 0"].shape == [2, IDENTITIES]
    assert stages["local features"].shape[0] == 2 * parts
    assert stages["embedding"].shape == [2, width * (1 + parts)]
    assert next(iter(stages)) == "image"
    assert list(stages)[-1] == "embedding"


def test_parameters_and_flops_are_those_of_the_network(run):
    counts = {"camera": CAMERAS, "view": 8, "modality": 3}
    model = TransReID(run.model, run.preprocessing.size, IDENTITIES, counts)
    stages = {stage.name: stage for stage in summarize(run)}
    assert stages["embedding"].parameters == sum(parameter.numel() for parameter in model.parameters())
    assert stages["side information"].parameters == CAMERAS * 3 * 64
    assert stages["logits 0"].parameters == IDENTITIES * 64
    assert stages["logits 0"].flops == 2 * 2 * IDENTITIES * 64  # B = 2, a multiply-add counted as two
    assert stages["patches"].flops == 2 * 2 * (4 * 2) * (16 * 16 * 3) * 64
    single = sum(stage.flops for name, stage in stages.items() if name == "patches" or name.startswith("block "))
    assert single < stages["embedding"].flops


def test_sources_are_lines_of_the_code(run):
    from pathlib import Path

    import resight

    package = Path(resight.__file__).parent
    for stage in summarize(run)[1:]:
        file, _, line = stage.source.rpartition(":")
        if (package / file).exists():
            assert "def " in (package / file).read_text().splitlines()[int(line) - 1], stage


def test_a_model_is_left_without_hooks_and_as_it_was(run):
    model = TransReID(run.model, (64, 32), 5, {"camera": 2, "view": 1, "modality": 3})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    side_info = {kind: torch.zeros(2, dtype=torch.int64) for kind in ("camera", "view", "modality")}
    summarize_model(model, torch.randn(2, 3, 64, 32), side_info)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_settings_that_exclude_each_other_are_refused(run):
    with pytest.raises(ConfigError, match="need a vision transformer"):
        summarize(vary(run, model={"backbone": "resnet50"}))


def test_the_command_prints_the_stages_of_the_trimodal_recipe(capsys):
    assert main(["summary", "transreid-trimodal"]) == 0
    out = capsys.readouterr().out
    for shape in (
        "[2, 3, 224, 224]", "[2, 196, 768]", "[2, 197, 768]", "[3, 2, 12, 197, 64]", "[2, 12, 197, 197]",
        "[2, 1, 768]", "[2, 768]", "[2, 751]", "models/blocks.py:",
    ):  # fmt: skip
        assert shape in out


def test_the_command_takes_options_and_a_recipe(capsys, run):
    assert main(["summary", "tiny", "--preprocessing.size", "64", "32"]) == 0
    out = capsys.readouterr().out
    assert "[2, 3, 64, 32]" in out
    assert f"{summarize(vary(tiny(), preprocessing={'size': (64, 32)}))[-1].parameters:,}" in out
    assert main(["summary", "tinny"]) == 2
    assert "no recipe named 'tinny'" in capsys.readouterr().err
    assert main(["summary", "--help"]) == 0
    assert "usage: resight summary RECIPE" in capsys.readouterr().out


def test_jpm_sends_four_parts_through_the_shared_block_as_one_batch(capsys):
    assert main(["summary", "transreid-market"]) == 0
    out = capsys.readouterr().out
    assert "[8, 12, 1, 53]" in out  # 4 parts x B = 2; 52 patches and the class token, whose query alone is computed
    assert "[2, 3840]" in out
