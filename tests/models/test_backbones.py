"""Every backbone's exact size, and each of its parts against a plain writing of itself."""

import math

import pytest
import timm
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn import functional as F

from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones.build import build_backbone, require_backbone
from resight.models.backbones.plain import COMMON
from resight.models.backbones.resnet import ResNet
from resight.models.backbones.vit import ViT
from resight.models.blocks import (
    AttentionWeights,
    Block,
    OverlapPatchEmbed,
    SplitHeads,
    fold_and_cast_weights,
    scaled_linear,
)
from resight.models.jpm import rearrange
from resight.models.sie import SIE
from resight.models.transreid import TransReID

COUNTS = {"camera": 6, "view": 3, "modality": 1}
SIZE = (80, 48)


def build(size=SIZE, counts=COUNTS, **options):
    return build_backbone(Model(**{"backbone": "test_vit", **options}), size, counts)


def meta(**options):
    with torch.device("meta"):  # shapes without memory
        return build((256, 128), **options)


# name: width, depth, heads, hidden width of the MLP, bias of the queries, tokens, names in the state dict, parameters
TABLE = {
    "vit_tiny_patch16_224": (192, 12, 3, 768, True, 129, 150, 5_511_360),
    "vit_small_patch16_224": (384, 12, 6, 1536, True, 129, 150, 21_639_552),
    "vit_base_patch16_224": (768, 12, 12, 3072, True, 129, 150, 85_746_432),
    "vit_large_patch16_224": (1024, 24, 16, 4096, True, 129, 294, 303_232_000),
    "deit_small_patch16_224": (384, 12, 6, 1536, True, 129, 150, 21_639_552),
    "vit_small_patch14_dinov2": (384, 12, 6, 1536, True, 163, 174, 21_592_704),
    "legacy_vit_small": (768, 8, 8, 2304, False, 129, 94, 47_933_184),
    "test_vit": (64, 6, 2, 192, True, 129, 78, 308_032),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_transformer_has_its_size(name):
    width, depth, heads, hidden, bias, tokens, names, parameters = TABLE[name]
    net = meta(backbone=name, drop_path=0.3)
    assert isinstance(net, ViT)
    assert (net.width, len(net.blocks), len(net.widths), net.prefix, net.no_embed_class) == (width, depth, 1, 1, False)
    assert tuple(net.pos_embed.shape) == (1, tokens, width)
    assert tuple(net.cls_token.shape) == (1, 1, width)
    for n, block in enumerate(net.blocks):
        assert type(block) is Block
        assert (block.attn.split.heads, block.attn.split.width) == (heads, width // heads)
        assert block.attn.weights.scale == (width if name == "legacy_vit_small" else width // heads) ** -0.5
        assert tuple(block.attn.qkv.weight.shape) == (3 * width, width)
        assert (block.attn.qkv.bias is not None) == bias
        assert tuple(block.mlp.fc1.weight.shape) == (hidden, width)
        rate = getattr(block.drop_path1, "drop_prob", 0.0)
        assert rate == pytest.approx(0.3 * n / (depth - 1))  # linear from 0 to that of the last block
        assert getattr(block.drop_path2, "drop_prob", 0.0) == rate
        assert not block.compiled
        assert not block.attn.explicit
    assert len(net.state_dict()) == names
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    net.compile_blocks()
    assert all(block.compiled for block in net.blocks)
    assert not net.gradient_checkpointing


def test_names_of_the_state_dict():
    names = set(build(jpm=True, sie=("camera", "view")).state_dict())
    plain = {"cls_token", "pos_embed", "norm.weight", "norm.bias"}
    plain |= {f"patch_embed.proj.{kind}" for kind in ("weight", "bias")}
    layers = [f"{layer}.{kind}" for kind in ("weight", "bias") for layer in (
        "norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2",
    )]  # fmt: skip
    blocks = {f"blocks.{n}.{layer}" for n in range(6) for layer in layers}
    local = {f"jpm.block.{layer}" for layer in layers} | {"jpm.norm.weight", "jpm.norm.bias"}
    assert names == plain | blocks | local | {"sie.table"}


def test_the_names_of_common_backbones_exist():
    assert len(COMMON) == len(set(COMMON)) == 10
    for name in (*COMMON, "resnet50", "legacy_vit_small"):
        require_backbone(name)
    with pytest.raises(ConfigError, match=r"no backbone named 'vit_huge'.*legacy_vit_small"):
        require_backbone("vit_huge")


def test_registers_come_before_the_patches():
    net = build((56, 28), backbone="vit_small_patch14_reg4_dinov2", jpm=True).eval()
    assert (net.prefix, net.no_embed_class, tuple(net.pos_embed.shape)) == (5, True, (1, 8, 384))
    images = torch.randn(2, 3, 56, 28)
    tokens = net.tokens(images, {})
    assert tokens.shape == (2, 13, 384)
    torch.testing.assert_close(tokens[:, 0], net.cls_token[:, 0].expand(2, -1))
    torch.testing.assert_close(tokens[:, 1:5], net.reg_token.expand(2, -1, -1))
    torch.testing.assert_close(tokens[:, 5:], net.patch_embed(images) + net.pos_embed)
    seen = []
    net.jpm.block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net.jpm(tokens)
    assert seen[0].shape == (2 * 4, 1 + 2, 384)  # no part contains a register
    torch.testing.assert_close(seen[0][4:, 0], tokens[1, :1].expand(4, -1))
    torch.testing.assert_close(seen[0][:4, 1:].flatten(0, 1), rearrange(tokens[:1, 5:], 5, 2)[0])


def test_positions_and_side_information_are_added_to_every_token():
    net = build(sie=("camera", "view"), sie_weight=2.5).eval()
    images, labels = torch.randn(2, 3, *SIZE), {"camera": torch.tensor([4, 5]), "view": torch.tensor([2, 0])}
    plain = torch.cat([net.cls_token.expand(2, -1, -1), net.patch_embed(images)], 1) + net.pos_embed
    rows = 2.5 * net.sie.table[[4 * 3 + 2, 5 * 3 + 0]][:, None]
    torch.testing.assert_close(net.tokens(images, labels), plain + rows)
    assert list(net.sie.counts.items()) == [("camera", 6), ("view", 3)]  # modality has one label


@pytest.mark.parametrize(("kinds", "rows"), [(("view",), 3), (("view", "camera"), 18), (("modality",), None)])
def test_kinds_of_side_information_with_two_labels_or_more(kinds, rows):
    sie = build(sie=kinds, sie_dropout=0.25).sie
    assert (None if sie is None else sie.table.shape[0]) == rows
    if sie is not None:
        assert list(sie.counts) == sorted(kinds)
        assert sie.dropout == 0.25


def test_rates_of_dropout_reach_their_layers():
    net = build(dropout=0.11, attention_dropout=0.22)
    assert net.pos_drop.p == 0.11
    for block in net.blocks:
        assert (block.attn.attn_drop.p, block.attn.proj_drop.p, block.mlp.drop1.p) == (0.22, 0.11, 0.11)


@pytest.mark.parametrize(("height", "width", "patch", "step", "grid"), [
    (256, 128, 16, None, (16, 8)), (256, 128, 16, 12, (21, 10)), (16, 16, 16, 16, (1, 1)), (47, 33, 16, 8, (4, 3)),
])  # fmt: skip
def test_a_grid_of_patches_by_hand(height, width, patch, step, grid):
    embed = OverlapPatchEmbed((height, width), patch, 3, 5, stride=step)
    assert (embed.grid_size, embed.num_patches, embed.patch_size) == (grid, grid[0] * grid[1], (patch, patch))
    images = torch.randn(1, 3, height, width)
    found, weight, size = embed(images), embed.proj.weight, step or patch
    assert found.shape == (1, embed.num_patches, 5)
    for n in (0, embed.num_patches - 1):
        top, left = n // grid[1] * size, n % grid[1] * size
        region = images[0, :, top : top + patch, left : left + patch]
        torch.testing.assert_close(
            found[0, n], (weight * region).sum((1, 2, 3)) + embed.proj.bias, rtol=1e-4, atol=1e-5
        )
    assert OverlapPatchEmbed((16, 16), 16, 3, 5, bias=False).proj.bias is None


def test_patches_are_copied_only_where_gradients_are_computed(monkeypatch):
    """Both ways give the same; on a CPU the gradient of a convolution is slow, and copied patches take memory."""
    embed, used = OverlapPatchEmbed((32, 16), 16, 3, 5), []
    real = F.unfold
    monkeypatch.setattr(F, "unfold", lambda *arguments, **options: used.append(1) or real(*arguments, **options))
    for gradient, count in ((True, 1), (False, 0)):
        used.clear()
        with torch.set_grad_enabled(gradient):
            embed(torch.randn(1, 3, 32, 16))
        assert len(used) == count


def test_images_and_parts_at_the_limit():
    build((16, 16))
    with pytest.raises(ConfigError, match=r"images of 16x15 are smaller than a patch of test_vit \(16 pixels\)"):
        build((16, 15))
    assert build((64, 16), jpm=True, jpm_parts=4).widths == (64,) * 5
    with pytest.raises(ConfigError, match="jpm_parts 5 needs at least as many patches; images of 64x16 give 4"):
        build((64, 16), jpm=True, jpm_parts=5)


def test_heads_are_consecutive_columns():
    x = torch.arange(2 * 3 * 12.0).view(2, 3, 12)
    found = SplitHeads(2, 3)(x)  # 2 of queries, keys, values
    assert found.shape == (2, 2, 2, 3, 3)
    for n in range(2):
        for head in range(2):
            assert torch.equal(found[n, :, head], x[..., 6 * n + 3 * head : 6 * n + 3 * head + 3])
    q, k = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 5, 3)
    weights = AttentionWeights(0.7)(q, k)
    torch.testing.assert_close(weights, (0.7 * torch.einsum("bhqd,bhtd->bhqt", q, k)).softmax(-1))


def naive_block(block, x):
    """The whole block in float64, head by head."""
    block = block.double()
    x = x.double()
    heads, scale = block.attn.split.heads, block.attn.weights.scale
    q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, -1)
    attended = torch.cat(
        [
            (scale * a @ b.transpose(1, 2)).softmax(-1) @ c
            for a, b, c in zip(*(t.chunk(heads, -1) for t in (q, k, v)), strict=True)
        ],
        -1,
    )
    x = x + block.ls1(block.attn.proj(attended))
    return x + block.ls2(block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x)))))


@pytest.mark.parametrize("name", ["test_vit", "legacy_vit_small", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("queries", [None, 1, 3])
def test_a_block_head_by_head(name, queries):
    torch.manual_seed(0)
    block = build((56, 28), backbone=name).blocks[2].eval()
    for parameter in block.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(2, 6, block.norm1.normalized_shape[0])
    found = {}
    for explicit in (False, True):
        block.attn.explicit = explicit
        found[explicit] = block(x, queries).detach()
    assert found[True].shape[1] == (6 if queries is None else queries)
    expected = naive_block(block, x)[:, :queries]
    for rows in found.values():
        assert_allclose(rows, expected.detach(), rtol=1e-3, atol=1e-3)


def test_a_dropped_path_is_scaled_by_its_inverse_probability():
    block = build(drop_path=0.5).blocks[-1].train()
    x = torch.randn(400, 2, 64)
    torch.manual_seed(0)
    found = block(x)
    torch.manual_seed(0)
    masks = [torch.empty(400, 1, 1).bernoulli_(0.5) / 0.5 for _ in range(2)]
    attended = x + masks[0] * block.attn(block.norm1(x), None, block.ls1)
    torch.testing.assert_close(found, attended + masks[1] * block._mlp(block.norm2(attended)))
    assert 0.4 < (masks[0] == 0).float().mean() < 0.6
    torch.testing.assert_close(block.eval()(x), block(x))


def test_a_layer_scale_is_multiplied_into_the_weights():
    from timm.layers.layer_scale import LayerScale

    x, scale = torch.randn(2, 3, 4), LayerScale(5)
    scale.gamma.data.uniform_(0.5, 2)
    for bias in (True, False):
        linear = nn.Linear(4, 5, bias=bias)
        torch.testing.assert_close(scaled_linear(linear, scale, x), scale(linear(x)))
        torch.testing.assert_close(scaled_linear(linear, nn.Identity(), x), linear(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_folding_leaves_no_layer_scale_and_casts_the_weights_of_products(dtype):
    torch.manual_seed(0)
    net = build((56, 28), backbone="vit_small_patch14_dinov2", jpm=True).eval()
    for name, parameter in net.named_parameters():
        if "gamma" in name:
            parameter.data.uniform_(0.5, 1.5)
    images = torch.randn(1, 3, 56, 28)
    before = [feature.detach() for feature in net(images, {})]
    fold_and_cast_weights(net, dtype)
    assert not [name for name in net.state_dict() if "gamma" in name]
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert module.weight.dtype == dtype
        elif isinstance(module, nn.LayerNorm):
            assert module.weight.dtype == torch.float32
    assert net.pos_embed.dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        after = net(images, {})
    for a, b in zip(before, after, strict=True):
        assert (a - b.float()).norm() <= (0.05 if dtype == torch.bfloat16 else 1e-4) * a.norm()


@pytest.mark.parametrize(("shift", "groups", "expected"), [
    (0, 1, [0, 1, 2, 3, 4, 5, 6]),
    (1, 1, [0, 1, 2, 3, 4, 5, 6]),
    (3, 1, [2, 3, 4, 5, 6, 0, 1]),
    (3, 2, [2, 6, 3, 0, 4, 1, 5, 0]),  # one more: the second-last of the shifted sequence
    (1, 3, [0, 3, 6, 1, 4, 5, 2, 5, 5]),
])  # fmt: skip
def test_rearrangement_by_hand(shift, groups, expected):
    patches = torch.arange(7.0).view(1, 7, 1)
    assert rearrange(patches, shift, groups).flatten().tolist() == expected


def test_parts_leave_out_what_remains():
    net = build(jpm=True, jpm_parts=4, jpm_rearrange=False).eval()  # 15 patches: parts of 3
    tokens, seen = torch.randn(2, 16, 64), []
    net.jpm.block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    local = net.jpm(tokens)
    assert [tuple(feature.shape) for feature in local] == [(2, 64)] * 4
    for image in range(2):
        for part in range(4):
            run = seen[0][4 * image + part]
            assert torch.equal(run, tokens[image, [0, *range(1 + 3 * part, 4 + 3 * part)]])
    assert (net.jpm.shift, net.jpm.groups, net.jpm.parts, len(net.widths)) == (5, 2, 4, 5)
    assert all(torch.equal(a, b) for a, b in zip(
        net.jpm.block.state_dict().values(), net.blocks[-1].state_dict().values(), strict=True,
    ))  # fmt: skip
    assert net.jpm.block is not net.blocks[-1]


def test_unknown_side_information_in_each_mode():
    torch.manual_seed(0)
    sie = SIE({"camera": 3, "view": 2}, 5, weight=1.5, dropout=0.3)
    assert (sie.unknown, tuple(sie.table.shape)) == ("mean", (6, 5))
    assert_allclose(SIE({"camera": 400}, 50, 1.0).table.std().item(), 0.02, rtol=0.03)
    table = sie.table.detach().view(3, 2, 5)
    labels = {"camera": torch.tensor([2, 3, 0, -1]), "view": torch.tensor([1, 0, 2, -1])}
    sie.eval()
    expected = torch.stack([table[2, 1], table[:, 0].mean(0), table[0].mean(0), table.mean((0, 1))])
    torch.testing.assert_close(sie(labels)[:, 0], 1.5 * expected)
    sie.unknown = "off"
    expected[1:] = 0
    torch.testing.assert_close(sie(labels)[:, 0], 1.5 * expected)
    sie.train()  # in training every image has side information, and 30 % count as unknown
    many = {kind: torch.full((3000,), 1) for kind in ("camera", "view")}
    found = sie(many)[:, 0].detach() / 1.5
    dropped = (found - table.mean((0, 1))).norm(dim=1) < 1e-6
    assert dropped.float().mean() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(found[~dropped], table[1, 1].expand(int((~dropped).sum()), -1))


def test_resnet_is_timms_but_for_two_strides():
    net = build(backbone="resnet50", stride=None).eval()
    assert isinstance(net, ResNet)
    assert net.widths == (2048,)
    assert len(net.state_dict()) == 318
    assert sum(parameter.numel() for parameter in net.parameters()) == 23_508_032
    theirs = timm.create_model("resnet50", num_classes=0).eval()
    theirs.load_state_dict({name.removeprefix("net."): tensor for name, tensor in net.state_dict().items()})
    for convolution in (theirs.layer4[0].conv2, theirs.layer4[0].downsample[0]):
        convolution.stride = (1, 1)
    images = torch.randn(2, 3, 64, 32)
    torch.testing.assert_close(net(images, {})[0], theirs(images))
    (feature,) = net(torch.randn(1, 3, 64, 32), {})
    assert feature.shape == (1, 2048)
    for option in ({"jpm": True}, {"sie": ("camera",)}, {"stride": 12}):
        with pytest.raises(ConfigError, match="jpm, sie and stride need a vision transformer"):
            build(backbone="resnet50", **option)


@pytest.mark.parametrize("feature", ["before", "after"])
def test_an_embedding_is_the_global_feature_and_weighted_parts(feature):
    torch.manual_seed(0)
    model = TransReID(Model(backbone="test_vit", jpm=True, jpm_parts=3, feature=feature), SIZE, 4, COUNTS).eval()
    assert (model.width, len(model.necks), len(model.heads)) == (4 * 64, 4, 4)
    for neck in model.necks:
        neck.running_mean.normal_()
    images = torch.randn(2, 3, *SIZE)
    features = model.backbone(images, {})
    if feature == "after":
        features = [neck(x) for neck, x in zip(model.necks, features, strict=True)]
    torch.testing.assert_close(model.embed(images, {}), torch.cat([features[0], *(x / 3 for x in features[1:])], 1))
    out = model(images, {})
    torch.testing.assert_close(
        out.logits[2], F.linear(model.necks[2](out.features[2]), model.heads[2].weight), rtol=1e-4, atol=1e-6
    )


def test_recomputed_blocks_are_used_in_training_only(monkeypatch):
    from resight.models.backbones import vit

    net = build()
    used = []
    monkeypatch.setattr(vit, "checkpoint", lambda block, x, use_reentrant: used.append(block) or block(x))
    images = torch.randn(1, 3, *SIZE)
    for training, on, gradient, expected in (
        (True, True, True, 5), (False, True, True, 0), (True, False, True, 0), (True, True, False, 0),
    ):  # fmt: skip
        net.train(training).gradient_checkpointing = on
        used.clear()
        with torch.set_grad_enabled(gradient):
            net(images, {})
        assert len(used) == expected


def test_attention_uses_dropout_in_training_alone():
    block = build(attention_dropout=0.9).blocks[0]
    x = torch.randn(1, 5, 64)
    assert torch.equal(block.eval()(x), block(x))
    assert not torch.equal(block.train()(x), block(x))
    assert math.isclose(block.attn.attn_drop.p, 0.9)
