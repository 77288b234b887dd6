"""Pre-trained weights: which names may be missing, how positions are resized, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from resight.config.sections import Model
from resight.errors import CheckpointError
from resight.models import pretrained as pretrained_module
from resight.models.backbones.build import build_backbone
from resight.models.backbones.positions import resize_positions
from resight.models.pretrained import load_pretrained
from resight.models.tensor_file import read_tensors
from resight.models.weights import fit, require_finite

COUNTS = {"camera": 3, "view": 1, "modality": 1}


def build(seed=0, size=(64, 32), **options):
    torch.manual_seed(seed)
    return build_backbone(Model(**{"backbone": "test_vit", **options}), size, COUNTS)


def file_of(path, tensors):
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "base.", "module.base."])
@pytest.mark.parametrize("options", [{}, {"jpm": True}, {"sie": ("camera",)}, {"jpm": True, "sie": ("camera",)}])
def test_a_plain_transformer_is_loaded_into_any_branches(tmp_path, prefix, options):
    source, target = build(1), build(2, **options)
    table = None if target.sie is None else target.sie.table.clone()
    file = file_of(tmp_path / "w.safetensors", {prefix + name: x for name, x in source.state_dict().items()})
    assert load_pretrained(target, file, "test_vit") == []
    state = target.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in source.state_dict().items())
    if target.sie is not None:
        assert torch.equal(target.sie.table, table)  # no file has it
    if target.jpm is not None:
        for name, tensor in source.blocks[-1].state_dict().items():
            assert torch.equal(state[f"jpm.block.{name}"], tensor)
        assert torch.equal(state["jpm.norm.weight"], source.norm.weight)


def test_side_information_of_the_file_is_used_where_it_fits(tmp_path):
    source, target = build(1, sie=("camera",)), build(2, sie=("camera",))
    load_pretrained(target, file_of(tmp_path / "w.safetensors", source.state_dict()), "test_vit")
    assert torch.equal(target.sie.table, source.sie.table)
    with pytest.raises(CheckpointError, match=r"not known: sie\.table"):
        load_pretrained(build(2), file_of(tmp_path / "w.safetensors", source.state_dict()), "test_vit")


@pytest.mark.parametrize("missing", ["cls_token", "pos_embed", "patch_embed.proj.bias", "blocks.3.norm1.weight"])
def test_every_other_name_must_be_there(tmp_path, missing):
    tensors = dict(build(1).state_dict())
    del tensors[missing]
    before = build(2, jpm=True)
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"w\.safetensors does not fit the model; missing: {missing}$"):
        load_pretrained(before, file_of(tmp_path / "w.safetensors", tensors), "test_vit")
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.state_dict().items())


def test_classifiers_are_left_out_and_nothing_else(tmp_path):
    ignored = ["head.weight", "head_dist.bias", "fc.weight", "pre_logits.x", "dist_token", "mask_token", "fc_norm.bias"]
    tensors = dict(build(1).state_dict())
    extra = {name: torch.ones(2) for name in ignored}
    file = file_of(tmp_path / "w.safetensors", tensors | extra)
    assert sorted(load_pretrained(build(2), file, "test_vit")) == sorted(ignored)
    for name in ("heads.weight", "cls_head.weight", "norm2.weight"):
        file = file_of(tmp_path / "w.safetensors", tensors | {name: torch.ones(2)})
        with pytest.raises(CheckpointError, match=f"not known: {name}"):
            load_pretrained(build(2), file, "test_vit")


def test_the_last_norm_may_be_called_fc_norm(tmp_path):
    source = build(1)
    tensors = dict(source.state_dict())
    tensors |= {"fc_norm.weight": torch.full((64,), 3.0), "fc_norm.bias": torch.full((64,), 4.0)}
    target = build(2)
    load_pretrained(target, file_of(tmp_path / "w.safetensors", tensors), "test_vit")
    assert torch.equal(target.norm.weight, source.norm.weight)  # where it has both, the norm is its own
    for kind in ("weight", "bias"):
        del tensors[f"norm.{kind}"]
    load_pretrained(target, file_of(tmp_path / "w.safetensors", tensors), "test_vit")
    assert (target.norm.weight.tolist(), target.norm.bias.tolist()) == ([3.0] * 64, [4.0] * 64)


def test_weights_of_a_resnet(tmp_path):
    source, target = (build(seed, backbone="resnet50") for seed in (1, 2))
    tensors = source.net.state_dict() | {"fc.weight": torch.ones(3, 2048), "fc.bias": torch.ones(3)}
    file = file_of(tmp_path / "w.safetensors", tensors)
    assert sorted(load_pretrained(target, file, "resnet50")) == ["fc.bias", "fc.weight"]
    assert torch.equal(target.net.layer1[0].conv1.weight, source.net.layer1[0].conv1.weight)


def test_positions_are_resized_bilinearly_without_the_class_token():
    target = build(size=(80, 48))  # a grid of 5 x 3
    positions = torch.randn(1, 1 + 16, 64)
    found = resize_positions(positions, target)
    grid = positions[:, 1:].view(1, 4, 4, 64).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (5, 3), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[:, 1:], resized.permute(0, 2, 3, 1).reshape(1, 15, 64), rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, :1], positions[:, :1])
    same = torch.randn(1, 16, 64)
    assert resize_positions(same, target) is same
    with pytest.raises(
        CheckpointError,
        match=r"has 17 patches, which is no square grid .* and 15 are needed",
    ):
        resize_positions(torch.randn(1, 18, 64), target)


def test_positions_of_patches_alone_are_resized_alone():
    target = build(size=(56, 28), backbone="vit_small_patch14_reg4_dinov2")
    positions = torch.randn(1, 9, 384)  # a grid of 3 x 3
    found = resize_positions(positions, target)
    grid = positions.view(1, 3, 3, 384).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (4, 2), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, resized.permute(0, 2, 3, 1).reshape(1, 8, 384), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        CheckpointError,
        match=r"has 10 patches, which is no square grid .* and 8 are needed",
    ):
        resize_positions(torch.randn(1, 10, 384), target)


def test_the_legacy_network_has_no_weights_of_timm(monkeypatch):
    with pytest.raises(CheckpointError, match="timm has no weights for legacy_vit_small"):
        load_pretrained(build(), "timm", "legacy_vit_small")
    source, target = build(1), build(2)
    monkeypatch.setattr(pretrained_module.timm, "create_model", lambda name, pretrained, num_classes: source)
    assert load_pretrained(target, "timm", "test_vit") == []
    assert torch.equal(target.cls_token, source.cls_token)


def test_a_long_list_of_problems_is_shortened():
    module = torch.nn.ModuleList(torch.nn.Linear(2, 1, bias=False) for _ in range(6))
    for present, says in ((1, "missing: 1.weight, 2.weight, 3.weight, 4.weight and 1 more"), (2, "5.weight$")):
        with pytest.raises(CheckpointError, match=says):
            fit(module, {f"{n}.weight": torch.zeros(1, 2) for n in range(present)}, "x")
    tensors = {f"{n}.weight": torch.zeros(2, 2) for n in range(6)}
    says = r"of another shape: 0\.weight is \[2, 2\] instead of \[1, 2\], .* and 2 more"
    with pytest.raises(CheckpointError, match=says):
        fit(module, tensors, "x")
    right = {f"{n}.weight": torch.full((1, 2), float(n)) for n in range(6)}
    assert fit(module, right | {"a.b": torch.ones(1), "ab": torch.ones(1)}, "x", ("a.", "ab")) == ["a.b", "ab"]
    assert [layer.weight[0, 0].item() for layer in module] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(CheckpointError, match="not known: a"):
        fit(module, right | {"a": torch.ones(1)}, "x")
    bad = {str(n): torch.tensor([float("inf")]) for n in range(6)}
    with pytest.raises(CheckpointError, match="infinite, in 0, 1, 2, 3 and 2 more: use"):
        require_finite(bad, "x")
    del bad["5"]
    with pytest.raises(CheckpointError, match="infinite, in 0, 1, 2, 3 and 1 more: use"):
        require_finite(bad, "x")
    with pytest.raises(CheckpointError, match="infinite, in 0, 1, 2, 3: use"):
        require_finite({name: bad[name] for name in "0123"}, "x")
    require_finite({"a": torch.tensor([1.0, -1.0])}, "x")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
def test_a_state_dict_is_read_wherever_it_is(tmp_path, wrapper):
    state = {"module.a": torch.ones(2), "b": torch.zeros(1), "epoch": 3}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "w.pth")
    found = read_tensors(tmp_path / "w.pth")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [1, 1], "b": [0]}


def test_files_without_tensors_are_refused(tmp_path):
    for content in ({"epoch": 3}, [torch.ones(1)], {"model": {"epoch": 3}}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match=r"w\.pth holds no tensors by name"):
            read_tensors(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        read_tensors(tmp_path / "no.pth")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"w\.safetensors is corrupt or no checkpoint"):
        read_tensors(tmp_path / "w.safetensors")
