"""The walkthrough of a recipe: what was measured against what is computed by hand, for tiny configurations."""

import random
import re
from pathlib import Path

import pytest
import torch

import resight
from resight.config import recipes
from resight.config.recipes import RECIPES, tiny, vary
from resight.errors import ConfigError
from resight.report.walkthrough.example import CAMERAS, IDENTITIES, VIEWS, make_example, plain_run
from resight.report.walkthrough.measure import train_one_step
from resight.report.walkthrough.record import recorded
from resight.report.walkthrough.summary import summarize

SIZE = {"size": (64, 32)}
SMALL = {"backbone": "test_vit", "stride": None}  # D = 64, 2 heads, 6 blocks, 4 x 2 patches of 16 pixels
D, HEADS, BLOCKS, HIDDEN, PATCHES, PARTS = 64, 2, 6, 192, 8, 4
TOKENS = 1 + PATCHES
R = 4 * 3  # images of 4 sightings in 3 modalities


@pytest.fixture(scope="module")
def side_info():
    run = vary(tiny(), model={"sie": ("camera", "modality")}, preprocessing=SIZE, loss={"id_weight": 0.5})
    return run, summarize(run)


@pytest.fixture(scope="module")
def fusion():
    run = vary(recipes.trimodal_fusion(), model=SMALL, preprocessing=SIZE)
    return run, summarize(run)


def test_shapes_of_side_information_are_those_computed_by_hand(side_info):
    summary = side_info[1]
    part = 1 + PATCHES // PARTS
    expected = {
        "images": [4, 3, 3, 64, 32], "present": [4, 3], "identity": [4], "camera": [4], "view": [4],
        "images for the network": [R, 3, 64, 32], "camera of each image": [R], "modality of each image": [R],
        "patches": [R, PATCHES, D], "class token": [1, 1, D], "position": [1, TOKENS, D],
        "side information": [R, 1, D], "tokens": [R, TOKENS, D],
        "norm": [R, TOKENS, D], "q, k, v in one": [R, TOKENS, 3 * D],
        "q, k, v by head": [3, R, HEADS, TOKENS, D // HEADS], "attention": [R, HEADS, TOKENS, TOKENS],
        "values, weighted": [R, TOKENS, D], "projection": [R, TOKENS, D], "after attention": [R, TOKENS, D],
        "second norm": [R, TOKENS, D], "MLP, hidden": [R, TOKENS, HIDDEN], "MLP, out": [R, TOKENS, D],
        "block 1": [R, TOKENS, D], f"blocks 2 to {BLOCKS - 1}": [R, TOKENS, D], f"block {BLOCKS}": [R, 1, D],
        "final norm": [R, 1, D],
        "groups of patches": [PARTS * R, part, D], "attention of the class tokens": [PARTS * R, HEADS, 1, part],
        "class tokens of the groups": [PARTS * R, 1, D], "local features": [PARTS * R, 1, D],
        f"features 0 to {PARTS}": [R, D], f"BNNecks 0 to {PARTS}": [R, D], f"logits 0 to {PARTS}": [R, IDENTITIES],
        "distances": [R, R], "identity loss": None, "triplet loss": None, "loss": None,
        "group 1": None, "group 2": None, "group 3": None, "group 4": None,
        "features of the queries": [2, 3 * (1 + PARTS) * D], "features of the gallery": [3, 3 * (1 + PARTS) * D],
        "similarities": [2, 3], "rank of the first match": [2], "CMC": [50], "mAP": None,
    }  # fmt: skip
    measured = {step.name: step.shape if step.shape is None else list(step.shape) for step in summary.steps}
    assert measured == expected
    assert list(measured) == list(expected)


def test_a_fusion_has_no_row_for_what_is_absent(fusion):
    run, summary = fusion
    rows = torch.tensor(summary.step("rows").content)
    present = torch.tensor(summary.step("present").content).bool()
    assert not present.all()
    assert not (rows >= 0)[~present].any()
    images = int((rows >= 0).sum())
    assert summary.step("images for the network").shape[0] == images
    assert rows[rows >= 0].tolist() == list(range(images))
    shares = torch.tensor(summary.step("share of each modality").content)
    assert bool((shares[rows < 0] == 0).all())
    torch.testing.assert_close(shares.sum(1), torch.ones(4), atol=2e-4, rtol=0)
    width = max(4, D // 4 // 4 * 4)
    assert summary.step("queries of the class tokens").shape == (images, width)
    assert summary.step("keys and values of all tokens").shape == (images, TOKENS, 2 * width)
    assert summary.step("learned from the others").shape == (4, 3, D)
    assert summary.step("fused feature").shape == (4, D)
    assert summary.step("feature 0").shape == (2 * images, D)  # before and after the attention
    assert summary.step("features of the queries").shape == (2, D)
    absent = [[picture is None for picture in sighting] for sighting in summary.thumbnails]
    assert absent == (~present).tolist()
    assert run.augmentation.drop_modality


def test_concatenation_has_a_head_of_its_own(fusion):
    summary = summarize(vary(fusion[0], model={"fusion": "concat"}))
    assert summary.step("fused feature").shape == (4, 3 * D)
    assert summary.step("logits 0 of the sightings").shape == (4, IDENTITIES)
    assert summary.step("features of the queries").shape == (2, 3 * D)


@pytest.mark.parametrize("fixture", ["side_info", "fusion"])
def test_a_letter_has_one_size_and_every_axis_of_a_vit_has_a_name_or_is_one(fixture, request):
    summary = request.getfixturevalue(fixture)[1]
    sizes = {axis.letter: axis.size for axis in summary.axes}
    assert all(axis.meaning for axis in summary.axes)
    for step in summary.steps:
        if step.name == "CMC" or step.shape is None:
            continue
        assert len(step.axes) == len(step.shape), step.name
        for name, size in zip(step.axes, step.shape, strict=True):
            factors = [int(word) if word.isdigit() else sizes[word] for word in name.split()]
            assert not factors or size == torch.tensor(factors).prod(), (step.name, name)
    assert sizes["S"] == sizes["R"] * (2 if fixture == "fusion" else 1)


def test_losses_add_up_and_groups_have_every_trained_parameter(side_info):
    run, summary = side_info
    losses = [summary.step(name).figures for name in ("identity loss", "triplet loss")]
    assert [figures["weight"] for figures in losses] == [0.5, run.loss.triplet_weight]
    total = sum(figures["weight"] * figures["value"] for figures in losses)
    assert summary.step("loss").figures["value"] == pytest.approx(total, rel=1e-5)
    groups = [step.figures for step in summary.steps if step.name.startswith("group ")]
    fixed = (1 + PARTS) * D  # biases of the BNNecks
    assert sum(group["parameters"] for group in groups) == summary.parameters - fixed
    base = run.optimizer.lr
    assert {group["learning rate"] for group in groups} == {base, base * run.optimizer.head_lr_factor}
    assert {group["weight decay"] for group in groups} == {0, run.optimizer.weight_decay}
    assert all(0 < group["in epoch 1"] < group["learning rate"] for group in groups)


def test_cmc_and_map_follow_from_the_similarities(side_info):
    summary = side_info[1]
    similarity = torch.tensor(summary.step("similarities").content)
    # Queries are of identities 0 and 1, and the gallery has one sighting of each of the identities 0, 1 and 2.
    ranks = [1 + int((similarity[q] > similarity[q, q]).sum()) for q in (0, 1)]
    assert summary.step("rank of the first match").content == ranks
    assert summary.step("mAP").figures["mAP"] == pytest.approx(sum(1 / rank for rank in ranks) / 2)
    assert summary.step("CMC").figures["R1"] == sum(rank == 1 for rank in ranks) / 2


def test_parameters_flops_and_gradients(side_info):
    summary = side_info[1]
    assert summary.step("patches").parameters == (3 * 16 * 16 + 1) * D
    assert summary.step("patches").flops == 2 * PATCHES * 3 * 16 * 16 * D  # a multiply-add counts as two
    assert summary.step("side information").parameters == CAMERAS * 3 * D
    assert summary.step("logits 0 to 4").parameters == (1 + PARTS) * IDENTITIES * D
    assert summary.step("attention").flops == 2 * TOKENS * TOKENS * D  # queries times keys
    # What is added passes its gradient on: the tokens' and, summed over the images, the position's.
    assert summary.step("after attention").gradient > 0
    assert summary.step("class token").gradient <= summary.step("position").gradient
    assert all(step.gradient > 0 for step in summary.steps if step.name.startswith(("block", "group ")))
    assert summary.step("similarities").gradient is None


def test_sources_exist(side_info, fusion):
    package = Path(resight.__file__).parent
    sources = {step.source for _, summary in (side_info, fusion) for step in summary.steps}
    checked = 0
    for source in sources:
        file, name = source.split()
        path = next((p for p in (package / file, package / "models" / file) if p.exists()), None)
        if path is not None:
            method = name.rpartition(".")[2]
            assert f"def {method}(" in path.read_text(), source
            checked += 1
    assert checked > 12


def test_a_model_is_left_without_hooks_and_random_draws_as_they_were(side_info, tmp_path):
    torch.manual_seed(5)
    random.seed(5)
    state, numbers = torch.get_rng_state(), random.getstate()
    trained = train_one_step(plain_run(side_info[0]), make_example(side_info[0], tmp_path / "images"))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == numbers
    model = trained.state.model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with recorded(model):
        assert any(module._forward_hooks for module in model.modules())
        assert model.backbone.blocks[0].attn.explicit
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not model.backbone.blocks[0].attn.explicit


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_at_a_small_size(name):
    run = RECIPES[name]()
    model = {} if run.model.backbone == "resnet50" else SMALL
    summary = summarize(vary(run, model=model, preprocessing=SIZE))
    assert summary.recipe == name
    assert summary.step("similarities").shape == (2, 3)
    assert len(summary.sections) >= 6
    titles = [section.title for section in summary.sections]
    assert ("Local features (JPM)" in titles) == run.model.jpm
    assert ("Fusion of the modalities" in titles) == (run.model.fusion is not None)
    assert len(summary.modalities) == (3 if name in ("tiny", "transreid-trimodal", "trimodal-fusion") else 1)
    assert all(re.match(r"[A-Z].*[.;]$", step.text) for step in summary.steps), name


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("swin_tiny_patch4_window7_224", ["patches", "q, k, v in one", "after attention", "stage 4", "pooled feature"]),
        ("convnext_atto", ["stem", "convolution", "MLP, hidden", "stage 4", "pooled feature"]),
        ("osnet_x0_25", ["stem", "stage 3", "last map", "global feature"]),
        ("eva02_tiny_patch14_224", ["patches", "class token", "tokens", "after attention", "blocks 2 to 12"]),
        ("regnetx_002", ["stem", "s1", "s4", "pooled feature"]),
    ],
)
def test_other_backbones(backbone, names):
    summary = summarize(vary(recipes.baseline_market(), model={"backbone": backbone}, preprocessing=SIZE))
    shown = [step.name for step in summary.steps]
    assert [name for name in shown if name in names] == names, shown
    assert summary.step("BNNeck 0").shape[0] == 4
    if backbone != "eva02_tiny_patch14_224":  # words of a vision transformer are not used for another network
        assert not any("class token" in step.text for step in summary.steps)


def test_a_backbone_for_each_modality_shows_the_first(fusion):
    summary = summarize(vary(fusion[0], model={"separate_backbones": True}))
    modality = torch.tensor(summary.step("modality of each image").content)
    assert summary.step("patches").shape == (int((modality == 0).sum()), PATCHES, D)
    assert summary.step("fused feature").shape == (4, D)


def test_side_information_has_a_row_for_each_of_six_cameras_and_eight_views(side_info):
    summary = summarize(vary(side_info[0], model={"sie": ("camera", "view")}))
    assert summary.step("side information").parameters == CAMERAS * VIEWS * D == 6 * 8 * D
    assert "camera (6) and view (8)" in summary.step("side information").text
    assert summary.step("view of each image").shape == (4,)


def test_settings_that_exclude_each_other_are_refused(side_info):
    with pytest.raises(ConfigError, match="need a vision transformer"):
        summarize(vary(side_info[0], model={"backbone": "resnet50"}))
    with pytest.raises(KeyError):
        side_info[1].step("no such step")
