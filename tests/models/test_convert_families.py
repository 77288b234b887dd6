"""Foreign families of checkpoints: their special parts by hand, their options, what is assumed, and bad files."""

import argparse

import numpy as np
import pytest
import timm
import torch
from conftest import small_model
from torch import nn
from torch.nn import functional as F

import resight
from resight import convert_checkpoint
from resight.cli import main
from resight.config.sections import Model
from resight.errors import CheckpointError, ConfigError
from resight.models import pretrained
from resight.models.backbones.build import build_backbone
from resight.models.convert import convert as convert_module
from resight.models.convert import plain_vit
from resight.models.convert.family import FamilyOptions, divide_labels
from resight.models.convert.recognition import FAMILIES
from resight.models.pooling import GeM, Pool
from resight.models.pretrained import load_pretrained

COUNTS = {"camera": 6, "view": 0, "modality": 1}
SIZE = (64, 32)
CLIP = "vit_base_patch16_clip_quickgelu_224"


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    """Transformers of width 64 are timm's test_vit."""
    monkeypatch.setitem(plain_vit.NAMES, (64, 6, 16), "test_vit")


def random_state(settings, size=SIZE, seed=0):
    """A backbone's state dict whose values depend on its names, large enough to matter."""
    net = build_backbone(Model(backbone="test_vit", **settings), size, COUNTS)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in net.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        is_scale = tensor.ndim == 1 and name.endswith("weight")
        state[name] = 1 + 0.1 * noise if is_scale or "running_var" in name else 0.1 * noise
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
    return state


def plain_file(path, settings=None, necks=True, prefix="base.", **extra):
    """A checkpoint of a plain transformer as TransReID-SSL writes it."""
    state = {prefix + name: tensor for name, tensor in random_state(settings or {}).items()}
    table = state.pop(f"{prefix}sie.table", None)
    if table is not None:
        state[f"{prefix}sie_embed"] = table[:, None]
    if necks:
        state |= {"classifier.weight": torch.randn(5, 64), "bottleneck.weight": torch.full((64,), 2.0)}
        state |= {f"bottleneck.{name}": torch.zeros(64) for name in ("bias", "running_mean")}
        state |= {"bottleneck.running_var": torch.ones(64), "bottleneck.num_batches_tracked": torch.tensor(0)}
    torch.save(state | extra, path)
    return path


def part_file(path, fused=None, prefix="base."):
    """A checkpoint of PASS with a neck for each token, or one for the fused feature of that width."""
    state = random_state({"part_tokens": 3})
    positions, tokens = state.pop("pos_embed"), state.pop("reg_token")
    state |= {"cls_pos": positions[:, :1], "pos_embed": positions[:, 4:]}
    state |= {f"part{n + 1}_pos": positions[:, n + 1 : n + 2] for n in range(3)}
    state |= {f"part_token{n + 1}": tokens[:, n : n + 1] for n in range(3)}
    state = {prefix + name: tensor for name, tensor in state.items()}
    width = fused or 64
    for ending in ("",) if fused else ("", "_1", "_2", "_3"):
        neck = nn.BatchNorm1d(width)
        neck.running_mean.normal_()
        state |= {f"bottleneck{ending}.{name}": tensor for name, tensor in neck.state_dict().items()}
    state["classifier.weight"] = torch.randn(5, fused or 128)
    torch.save(state, path)
    return path


def images(count=3):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(5))


def embed(file, feature="before", side_info=None, **options):
    model = convert_checkpoint(file, size=SIZE, feature=feature, **options).model
    labels = side_info or {"camera": torch.tensor([0, 3, 5]), "view": torch.zeros(3).long()}
    with torch.no_grad():
        return model.embed(images(), labels)


def change(a, b):
    return float((a - b).norm() / b.norm())


def last_tokens(state, settings=None):
    """All tokens after the last norm, of a plain transformer with that state: [3, 1 + N, D]."""
    net = build_backbone(Model(backbone="test_vit", **(settings or {})), SIZE, COUNTS).eval()
    net.load_state_dict(state)
    with torch.no_grad():
        x = net.tokens(images(), {})
        for block in net.blocks:
            x = block(x)
        return net.norm(x)


def test_poolings_by_naive_loops(tmp_path):
    tokens = last_tokens(random_state({}))
    patches = tokens[:, 1:]
    gem = patches.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)
    groups = [patches[:, start : start + 4].amax(1) for start in range(0, patches.shape[1] // 4 * 4, 4)]
    expected = {
        "token": tokens[:, 0],
        "mean": patches.mean(1),
        "max": patches.amax(1),
        "gem": gem,
        "token-gem": tokens[:, 0] + gem,
        "mean-max": torch.cat([patches.mean(1), patches.amax(1)], 1),
        "max4-mean": torch.stack(groups).mean(0),
    }
    file = plain_file(tmp_path / "w.pth", necks=False)
    for pooling, feature in expected.items():
        torch.testing.assert_close(embed(file, pooling=pooling), feature, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed(file, gem=True), expected["token-gem"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed(file), expected["token"], rtol=1e-4, atol=1e-5)
    assert change(expected["token-gem"], expected["token"]) > 0.05
    powered = patches.clamp(min=1e-6).pow(2.5).mean(1).pow(1 / 2.5)
    torch.testing.assert_close(embed(file, pooling="gem", gem_power=2.5), powered, rtol=1e-4, atol=1e-5)


def test_a_remainder_of_the_patches_is_left_out_and_gem_can_be_trained():
    x = torch.randn(2, 10, 3)
    naive = torch.stack([x[:, :4].amax(1), x[:, 4:8].amax(1)]).mean(0)
    torch.testing.assert_close(Pool("max4-mean", 3.0)(None, x), naive)
    gem = GeM(2.0, trained=True)
    gem(x).sum().backward()
    assert gem.p.grad.abs() > 0
    assert list(gem.state_dict()) == ["p"]
    assert list(GeM(2.0).state_dict()) == []


class NaiveStem(nn.Module):
    """TransReID-SSL's stem, normalisation written out."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def _batch_norm(self, x, name):
        mean, variance = (self.state[f"{name}.running_{kind}"][:, None, None] for kind in ("mean", "var"))
        weight, bias = (self.state[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def _ibn(self, x, name):
        first, second = x[:, :32], x[:, 32:]
        mean, variance = first.mean((2, 3), keepdim=True), first.var((2, 3), keepdim=True, correction=0)
        weight, bias = (self.state[f"{name}.IN.{kind}"][:, None, None] for kind in ("weight", "bias"))
        first = (first - mean) / (variance + 1e-5).sqrt() * weight + bias
        return torch.cat([first, self._batch_norm(second, f"{name}.BN")], 1)

    def forward(self, x):
        x = F.relu(self._ibn(F.conv2d(x, self.state["conv.0.weight"], stride=2, padding=3), "conv.1"))
        x = F.relu(self._ibn(F.conv2d(x, self.state["conv.3.weight"], padding=1), "conv.4"))
        x = F.relu(self._batch_norm(F.conv2d(x, self.state["conv.6.weight"], padding=1), "conv.7"))
        x = F.conv2d(x, self.state["proj.weight"], self.state["proj.bias"], stride=8)
        return x.flatten(2).transpose(1, 2)


def test_the_convolutional_stem_by_hand(tmp_path):
    state = random_state({"stem": "ics"})
    conversion = convert_checkpoint(plain_file(tmp_path / "w.pth", {"stem": "ics"}), size=SIZE)
    assert conversion.card.model.stem == "ics"
    parts = {name.removeprefix("patch_embed."): x for name, x in state.items() if name.startswith("patch_embed.")}
    with torch.no_grad():
        ours = conversion.model.backbone.patch_embed(images())
    torch.testing.assert_close(ours, NaiveStem(parts)(images()), rtol=1e-4, atol=1e-4)
    assert conversion.model.backbone.has_batch_norm


@pytest.mark.parametrize("feature", ["before", "after"])
def test_part_tokens_and_their_fusion(tmp_path, feature):
    file = part_file(tmp_path / "w.pth")
    conversion = convert_checkpoint(file, size=SIZE)
    model = conversion.model
    assert (model.backbone.widths, model.width) == ((64,) * 4, 128)
    assert "class token and mean of the parts" in " ".join(conversion.notes)
    assert "each token has a head of its own" in conversion.left_out["classifier.weight"]
    with torch.no_grad():
        x = model.backbone.tokens(images(), {})
        for block in model.backbone.blocks:
            x = block(x)
        features = list(model.backbone.norm(x)[:, :4].unbind(1))
        if feature == "after":
            features = [neck(x) for neck, x in zip(model.necks, features, strict=True)]
    parts = (features[1] + features[2] + features[3]) / 3
    for fusion, expected in (
        ("concat", torch.cat([features[0], parts], 1)), ("mean", (features[0] + parts) / 2),
        ("all", torch.cat(features, 1)),
    ):  # fmt: skip
        torch.testing.assert_close(embed(file, feature, part_fusion=fusion), expected, rtol=1e-4, atol=1e-5)


def test_one_neck_tells_the_fusion_by_its_width(tmp_path):
    for width, fusion in ((128, "concat"), (64, "mean")):
        file = part_file(tmp_path / "w.pth", fused=width)
        conversion = convert_checkpoint(file, size=SIZE)
        assert (conversion.card.model.part_fusion, conversion.card.model.part_necks) == (fusion, False)
        assert conversion.model.backbone.widths == (width,)
        assert "--part-fusion" not in " ".join(conversion.notes)
        before, after = embed(file), embed(file, "after")
        torch.testing.assert_close(conversion.model.necks[0](before), after)


def clip_file(path, prefix="", **extra):
    """A checkpoint of CLIP-ReID's baseline with side information, of a transformer with two blocks."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape, scale=0.1):
        return scale * torch.randn(shape, generator=generator)

    def norm(name, width=768):
        return {f"{name}.weight": 1 + draw(width), f"{name}.bias": draw(width)}

    state = {"class_embedding": draw(768), "positional_embedding": draw(9, 768), "proj": draw(768, 512, scale=0.04)}
    state |= {"conv1.weight": draw(768, 3, 16, 16), **norm("ln_pre"), **norm("ln_post")}
    for n in range(2):
        block = f"transformer.resblocks.{n}."
        state |= norm(f"{block}ln_1") | norm(f"{block}ln_2")
        for name, rows, columns in (
            ("attn.in_proj_", 2304, 768), ("attn.out_proj.", 768, 768), ("mlp.c_fc.", 3072, 768),
            ("mlp.c_proj.", 768, 3072),
        ):  # fmt: skip
            state |= {f"{block}{name}weight": draw(rows, columns, scale=0.03), f"{block}{name}bias": draw(rows)}
    state = {f"image_encoder.{name}": tensor for name, tensor in state.items()} | {"cv_embed": draw(6, 768)}
    for ending, width in (("", 768), ("_proj", 512)):
        neck = nn.BatchNorm1d(width).state_dict()
        state |= {f"bottleneck{ending}.{name}": tensor for name, tensor in neck.items()}
        state[f"classifier{ending}.weight"] = draw(5, width)
    torch.save({prefix + name: tensor for name, tensor in (state | extra).items()}, path)
    return path, state


def naive_clip(state, x, cameras, weight, activation=lambda x: x * torch.sigmoid(1.702 * x)):
    """CLIP-ReID's image encoder, written out."""

    def part(name):
        return state[f"image_encoder.{name}"]

    def norm(x, name):
        return F.layer_norm(x, (768,), part(f"{name}.weight"), part(f"{name}.bias"), 1e-5)

    x = F.conv2d(x, part("conv1.weight"), stride=16).flatten(2).transpose(1, 2)
    token = part("class_embedding") + weight * state["cv_embed"][cameras][:, None]
    x = norm(torch.cat([token, x], 1) + part("positional_embedding"), "ln_pre")
    for n in range(2):
        block = f"transformer.resblocks.{n}."
        y = norm(x, f"{block}ln_1")
        y = F.linear(y, part(f"{block}attn.in_proj_weight"), part(f"{block}attn.in_proj_bias"))
        q, k, v = (z.unflatten(-1, (12, 64)).transpose(1, 2) for z in y.chunk(3, -1))
        y = ((q @ k.transpose(-1, -2) / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, part(f"{block}attn.out_proj.weight"), part(f"{block}attn.out_proj.bias"))
        y = F.linear(norm(x, f"{block}ln_2"), part(f"{block}mlp.c_fc.weight"), part(f"{block}mlp.c_fc.bias"))
        x = x + F.linear(activation(y), part(f"{block}mlp.c_proj.weight"), part(f"{block}mlp.c_proj.bias"))
    feature = norm(x[:, 0], "ln_post")
    return torch.cat([feature, feature @ part("proj")], 1)


def test_clip_by_hand(tmp_path, monkeypatch):
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: original(name, **options, depth=2))
    text = {"text_encoder.ln_final.weight": torch.ones(3), "prompt_learner.cls_ctx": torch.ones(3)}
    file, state = clip_file(tmp_path / "w.pth", "module.", **text)
    cameras = torch.tensor([0, 3, 5])
    conversion = convert_checkpoint(file, size=SIZE)
    assert {*conversion.left_out} == {*text}
    assert "text encoder" in conversion.left_out["text_encoder.ln_final.weight"]
    assert conversion.card.model.backbone == CLIP
    assert conversion.model.backbone.widths == (768, 512)
    expected = naive_clip(state, images(), cameras, 1.0)
    assert change(embed(file), expected) < 1e-5
    assert change(embed(file, sie_weight=3.0), naive_clip(state, images(), cameras, 3.0)) < 1e-5
    assert change(embed(file, sie_weight=0.0), expected) > 0.05
    assert 1e-3 < change(naive_clip(state, images(), cameras, 1.0, F.gelu), expected) < 0.1
    assert any("weight of the side information of 1.0" in note for note in conversion.notes)
    assert any("6 rows of side information are cameras" in note for note in conversion.notes)


def test_side_information_of_a_plain_transformer(tmp_path):
    file = plain_file(tmp_path / "w.pth", {"sie": ("camera",)})
    conversion = convert_checkpoint(file, size=SIZE)
    assert (conversion.card.model.sie, conversion.card.model.sie_weight) == (("camera",), 3.0)
    assert len(conversion.card.vocabulary.cameras) == 6
    assert change(embed(file, sie_weight=1.0), embed(file)) > 0.01
    both = convert_checkpoint(file, size=SIZE, cameras=3, views=2, dataset="market1501")
    assert (both.card.model.sie, len(both.card.vocabulary.views)) == (("camera", "view"), 2)
    assert both.card.vocabulary.cameras[0].startswith("market1501:")
    assert "rows of side information" not in " ".join(both.notes)
    assert divide_labels(3, FamilyOptions(view_is_modality=True))[0] == {"modality": 3}
    for options, says in (
        ({"cameras": 4}, "6 rows, not 4 cameras x 1 views"), ({"views": 6, "view_is_modality": True}, "more than"),
        ({"cameras": 0}, "cameras: "), ({"sie_weight": float("nan")}, "sie_weight: "),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            convert_checkpoint(file, size=SIZE, **options)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
@pytest.mark.parametrize("wrapper", ["teacher", "student", "state_dict", "model", None])
def test_pretrained_files_are_converted_and_a_start_of_training(tmp_path, prefix, wrapper):
    """Their grid of 8 x 4 patches is twice as high as wide, and is resized to 5 x 3."""
    state = random_state({}, (128, 64))
    content = {prefix + name: tensor for name, tensor in state.items()} | {"head.mlp.0.weight": torch.ones(3, 3)}
    scalar = {"epoch": 99, "args": argparse.Namespace(lr=1.0), "rank1": np.float64(0.5)}
    torch.save({wrapper: content, **scalar} if wrapper else content, tmp_path / "w.pth")
    conversion = convert_checkpoint(tmp_path / "w.pth")
    assert conversion.card.preprocessing.size == (128, 64)
    assert conversion.card.vocabulary.identities == ()
    assert "no necks" in " ".join(conversion.notes)
    target = build_backbone(Model(backbone="test_vit", jpm=True, jpm_parts=2), (80, 48), COUNTS)
    load_pretrained(target, str(tmp_path / "w.pth"), "test_vit")
    grid = state["pos_embed"][:, 1:].view(1, 8, 4, 64).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (5, 3), mode="bilinear", align_corners=False).permute(0, 2, 3, 1).reshape(1, 15, 64)
    torch.testing.assert_close(target.state_dict()["pos_embed"][:, 1:], resized, rtol=1e-4, atol=1e-5)
    conversion = convert_checkpoint(tmp_path / "w.pth", size=(80, 48))
    torch.testing.assert_close(
        conversion.model.state_dict()["backbone.pos_embed"][:, 1:], resized, rtol=1e-4, atol=1e-5
    )
    assert "positions of 32 patches are resized to 15" in " ".join(conversion.notes)


@pytest.mark.parametrize(("name", "options"), [("test_vit", {"stride": 12}), ("test_vit_relpos", {})])
def test_a_folder_of_another_grid_is_a_start_of_training(tmp_path, name, options):
    """The grid of a folder's positions is known, also where it is neither square nor twice as high as wide."""
    sie = ("camera",) if name == "test_vit" else ()
    folder = small_model(tmp_path / "model", backbone=name, sie=sie, **options)  # 64 x 32: a grid of 5 x 2
    target = build_backbone(Model(backbone=name), (80, 48), COUNTS)
    left_out = load_pretrained(target, str(folder), name)
    assert ("backbone.sie.table" in left_out) == bool(sie)
    source = resight.load(folder, "cpu", "fp32").model.backbone
    if name == "test_vit":
        grid = source.pos_embed[:, 1:].view(1, 5, 2, 64).permute(0, 3, 1, 2)
        resized = F.interpolate(grid, (5, 3), mode="bilinear", align_corners=False)
        expected = resized.permute(0, 2, 3, 1).reshape(1, 15, 64)
        torch.testing.assert_close(target.state_dict()["pos_embed"][:, 1:], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match=f"with the backbone {name}, and the run has vit_tiny_patch16_224"):
        load_pretrained(target, str(folder), "vit_tiny_patch16_224")


def test_parts_and_clip_are_a_start_of_training(tmp_path):
    file = part_file(tmp_path / "w.pth", prefix="backbone.")
    target = build_backbone(Model(backbone="test_vit", part_tokens=3), (80, 48), COUNTS)
    left_out = load_pretrained(target, str(file), "test_vit")
    assert "classifier.weight" in left_out
    assert torch.equal(target.reg_token, random_state({"part_tokens": 3})["reg_token"])
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_pretrained(build_backbone(Model(backbone="test_vit"), SIZE, COUNTS), str(file), "test_vit")


def test_a_converted_folder_is_loaded_and_its_assumptions_are_printed(tmp_path, capsys):
    file = plain_file(tmp_path / "w.pth")
    command = ["convert", str(file), "--out", str(tmp_path / "model"), "--size", "64", "32"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "read as a checkpoint of TransReID, TransReID-SSL, PersonViT" in out
    assert "assumed: the feature is the class token (--gem" in out
    assert "assumed: a mean and standard deviation of 0.5" in out
    assert main([*command[:2], "--out", str(tmp_path / "gem"), *command[4:], "--gem", "--stride", "16"]) == 0
    out = capsys.readouterr().out
    assert "class token (--gem" not in out
    assert "stride" not in out
    plain, gem = (resight.load(tmp_path / name, "cpu", "fp32") for name in ("model", "gem"))
    torch.testing.assert_close(plain.embed_tensor(images(), normalize=False), embed(file))
    assert change(gem.embed_tensor(images(), normalize=False), embed(file)) > 0.05


def test_sizes_that_the_positions_tell():
    def found(patches, **options):
        return plain_vit.find_size(patches, 16, options)[:2]

    assert found(128) == ((256, 128), 16)
    assert found(210) == ((256, 128), 12)
    assert found(192) == ((384, 128), 16)
    assert found(441) == ((256, 256), 12)
    assert found(196) == ((224, 224), 16)
    assert found(72) == ((192, 96), 16)
    assert found(210, stride=12) == ((256, 128), 12)
    assert found(210, size=(256, 128)) == ((256, 128), 12)
    with pytest.raises(CheckpointError, match="the 7 patches of the checkpoint fit no usual image size"):
        found(7)
    with pytest.raises(ConfigError, match="--size 8 8 is smaller than a patch"):
        found(7, size=(8, 8))


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


BAD = {
    "missing": (lambda s: without(s, "base.blocks.3.mlp.fc1.bias"), (), "missing: backbone.blocks.3.mlp.fc1.bias"),
    "no positions": (lambda s: without(s, "base.pos_embed"), (), "does not have pos_embed"),
    "NaN": (lambda s: s | {"base.norm.weight": torch.full((64,), torch.nan)}, (), "NaN or infinite, in backbone.norm"),
    "wrong width": (lambda s: s | {"base.norm.bias": torch.ones(63)}, (), "norm.bias is [63] instead of [64]"),
    "mixed": (lambda s: s | {"image_encoder.class_embedding": torch.ones(768)}, (), "and of CLIP-ReID with a vision"),
    "of another": (lambda s: s | {"base.layers.0.blocks.0.x": torch.ones(1)}, (), "not known"),
    "unexpected": (lambda s: s | {"heads.bnneck.weight": torch.ones(1)}, (), "and of fast-reid: a checkpoint"),
    "unknown": (lambda s: {"encoder.weight": torch.ones(1)}, (), "of no family of checkpoints"),
    "known, unread": (lambda s: {"necks.0.weight": torch.ones(1)}, (), "looks like a model of resight itself"),
    "JPM": (lambda s: s | {"b1.0.norm1.weight": torch.ones(64)}, (), "--options MODEL.JPM=True"),
    "both names": (lambda s: s | {"module.base.norm.bias": torch.ones(64)}, (), "names of the same tensor"),
    "option": (dict, ("--semantic-weight", "0.2"), "--semantic-weight is no option of checkpoints of TransReID"),
    "range": (dict, ("--gem-power", "-1"), "gem_power: Input should be greater than 0"),
    "two": (dict, ("--gem", "--pooling", "max"), "--gem and --pooling max exclude each other"),
    "pooling": (dict, ("--pooling", "median"), "pooling"),
    "backbone": (dict, ("--backbone", "vit_giant"), "no backbone named 'vit_giant'"),
    "another backbone": (dict, ("--backbone", "vit_tiny_patch16_224"), "does not fit the model; of another shape"),
    "view": (dict, ("--options", "MODEL.JPM=False", "--gem"), "--gem is not used with the reference's options"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_or_option_is_refused_in_one_sentence(case, tmp_path, capsys):
    change_state, options, says = BAD[case]
    file = plain_file(tmp_path / "w.pth")
    torch.save(change_state(torch.load(file)), file)
    size = () if "view" in case else ("--size", "64", "32")
    assert main(["convert", str(file), "--out", str(tmp_path / "model"), *size, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("resight: ")
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "model").exists()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "vit_tiny_patch16_dinov3_qkvb"])
def test_weights_of_timm_by_name(name, tmp_path, monkeypatch):
    """The file of a network with a classifier, and the same weights as `timm:NAME`, which downloads them."""
    original = timm.create_model
    narrow = {"depth": 2, "embed_dim": 32, "num_heads": 2} if "dinov3" in name else {}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: original(name, **options | narrow))
    torch.manual_seed(0)
    is_vit = "vit" in name
    reference = timm.create_model(name, num_classes=3, **({"img_size": SIZE} if is_vit else {})).eval()
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    expected = reference.forward_head(reference.forward_features(images()), pre_logits=True)
    options = {"backbone": name, "pooling": "mean"} if name == "vit_tiny_patch16_dinov3_qkvb" else {"backbone": name}
    if name == "vit_tiny_patch16_dinov3_qkvb" and reference.global_pool == "token":
        options["pooling"] = "token"
    conversion = convert_checkpoint(tmp_path / "w.pth", size=SIZE, **options)
    torch.testing.assert_close(conversion.model.embed(images(), {}), expected)
    if name != "test_vit":
        settings = timm.get_pretrained_cfg(name)
        assert conversion.card.preprocessing.mean == settings.mean
        assert any("timm's preprocessing" in note for note in conversion.notes)
    monkeypatch.setattr(pretrained, "download", lambda name: dict(reference.state_dict()))
    monkeypatch.setattr(convert_module, "download", lambda name: dict(reference.state_dict()))
    downloaded = convert_checkpoint(f"timm:{name}", size=SIZE)
    assert downloaded.card.model.backbone == name
    assert downloaded.card.preprocessing.size == SIZE


def test_timm_offline(tmp_path, capsys, monkeypatch):
    def offline(name, pretrained=False, **options):
        raise OSError("no network here")

    monkeypatch.setattr(timm, "create_model", offline)
    assert main(["convert", "timm:vit_tiny_patch16_224", "--out", str(tmp_path / "m")]) == 2
    assert "could not get pre-trained weights of vit_tiny_patch16_224 (no network here)" in capsys.readouterr().err


def test_no_family_matches_the_files_of_another(tmp_path):
    files = {"PASS": part_file(tmp_path / "p.pth"), "TransReID": plain_file(tmp_path / "t.pth")}
    files["CLIP-ReID"] = clip_file(tmp_path / "c.pth")[0]
    for name, file in files.items():
        state = torch.load(file)
        assert [family.name.startswith(name) for family in FAMILIES if family.matches(state)] == [True]
