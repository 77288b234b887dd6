"""The model's parts against naive versions of themselves, and what it must refuse."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from resight.config.sections import Model
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.models.backbones.resnet import ResNet
from resight.models.backbones.vit import plain_vit
from resight.models.blocks import Attention, OverlapPatchEmbed
from resight.models.jpm import rearrange
from resight.models.sie import SIE
from resight.models.transreid import TransReID

VOCABULARY = Vocabulary(("a", "b", "c"), ("1", "2"), (), ("rgb", "nir", "tir"))
SIZE = (80, 48)


def build(**options):
    torch.manual_seed(0)
    model = TransReID(
        Model(**{"backbone": "test_vit", "drop_path": 0.0} | options),
        SIZE,
        len(VOCABULARY.identities),
        VOCABULARY.counts,
    )
    for parameter in model.parameters():  # away from the symmetric start, so that every part counts
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def labels(n=3):
    return {"camera": torch.arange(n) % 2, "view": torch.full((n,), -1), "modality": torch.arange(n) % 3}


@pytest.mark.parametrize("n", [12, 13, 441])
@pytest.mark.parametrize("shift", [1, 5, 8])
def test_rearrange_as_the_reference_writes_it(n, shift):
    tokens = torch.randn(2, 1 + n, 3)  # with the class token, as the reference counts
    moved = torch.cat([tokens[:, shift:], tokens[:, 1:shift]], 1)
    if moved.shape[1] % 2:
        moved = torch.cat([moved, moved[:, -2:-1]], 1)
    half = moved.shape[1] // 2
    expected = torch.stack([moved[:, i // 2 if i % 2 == 0 else half + i // 2] for i in range(2 * half)], 1)
    assert torch.equal(rearrange(tokens[:, 1:], shift, 2), expected)


@pytest.mark.parametrize("shuffled", [True, False])
def test_parts_one_after_another_give_the_same(shuffled):
    model = build(jpm=True, jpm_rearrange=shuffled, jpm_shift=3).eval()
    x = torch.randn(3, 3, *SIZE)
    tokens = model.backbone.tokens(x, labels())
    for block in model.backbone.blocks[:-1]:
        tokens = block(tokens)
    jpm, patches = model.backbone.jpm, tokens[:, 1:]
    length = patches.shape[1] // 4
    if shuffled:
        patches = rearrange(patches, 3, 2)
    features = model.backbone(x, labels())
    for part in range(4):
        run = torch.cat([tokens[:, :1], patches[:, part * length : (part + 1) * length]], 1)
        whole = jpm.norm(jpm.block(run))[:, 0]
        torch.testing.assert_close(features[1 + part], whole)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch14_dinov2", "legacy_vit_small"])
def test_class_token_alone_equals_the_whole_block(backbone):
    model = build(backbone=backbone).eval()
    block = model.backbone.blocks[-1]
    x = torch.randn(2, 7, model.backbone.width)
    torch.testing.assert_close(block(x, queries=1), block(x)[:, :1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_and_explicit_attention_agree(dtype):
    """Values and gradients."""
    computed = []
    for explicit in (False, True):
        model = build(jpm=True).eval().to(dtype)
        for module in model.modules():
            if isinstance(module, Attention):
                module.explicit = explicit
        x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
        out = model.embed(x, labels(2))
        out.square().sum().backward()
        computed.append([out, *(p.grad for p in model.backbone.parameters() if p.grad is not None)])
    for fused, formed in zip(*computed, strict=True):
        scale = 1e-4 if dtype == torch.float32 else 0.05
        assert (fused - formed).float().norm() <= scale * formed.float().norm() + 1e-5


def test_plain_vit_equals_timm():
    import timm

    ours = build(backbone="vit_tiny_patch16_224").eval()
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=0).eval()
    theirs.load_state_dict(ours.backbone.state_dict())
    x = torch.randn(2, 3, *SIZE)
    torch.testing.assert_close(ours.backbone(x, {})[0], theirs(x), rtol=1e-4, atol=1e-4)


def test_layer_scale_in_the_weights_equals_timm():
    import timm

    torch.manual_seed(0)
    settings = Model(backbone="vit_small_patch14_dinov2", drop_path=0.0)
    ours = plain_vit(settings, (56, 28)).eval()
    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=(56, 28), num_classes=0).eval()
    for name, value in ours.state_dict().items():
        if "gamma" in name:
            value.uniform_(0.5, 1.5)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(2, 9, 384)
    torch.testing.assert_close(ours.blocks[3](tokens), theirs.blocks[3](tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "deit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_other_plain_vits(name):
    model = build(backbone=name, jpm=True, sie=("camera",)).eval()
    assert model.embed(torch.randn(2, 3, *SIZE), labels(2)).shape == (2, model.width)


def test_side_information_rows_and_unknown_labels():
    side_info = SIE({"camera": 2, "view": 3}, 4, weight=3.0)
    table = side_info.table.detach()
    known = side_info({"camera": torch.tensor([0, 1, 1]), "view": torch.tensor([2, 0, 2])})[:, 0]
    torch.testing.assert_close(known, 3.0 * table[[2, 3, 5]])  # camera * views + view
    unknown = side_info({"camera": torch.tensor([-1, 1, -1, 9]), "view": torch.tensor([1, -1, -1, 1])})[:, 0]
    expected = torch.stack([table[[1, 4]].mean(0), table[3:].mean(0), table.mean(0), table[[1, 4]].mean(0)])
    torch.testing.assert_close(unknown, 3.0 * expected)


def test_side_information_of_one_camera_is_off():
    one = TransReID(Model(backbone="test_vit", sie=("camera",)), SIZE, 2, Vocabulary(("a", "b"), ("1",)).counts)
    assert one.backbone.sie is None


def test_three_modalities_with_one_camera_change_the_embedding():
    model = build(sie=("modality",)).eval()
    assert model.backbone.sie is not None
    assert model.backbone.sie.table.shape[0] == 3
    x = torch.randn(1, 3, *SIZE).expand(3, -1, -1, -1)
    embeddings = model.embed(x, labels())
    assert (embeddings[0] - embeddings[1]).norm() > 1e-3
    assert (embeddings[1] - embeddings[2]).norm() > 1e-3


@pytest.mark.parametrize("head", ["softmax", "arcface", "cosface", "am-softmax", "circle"])
@pytest.mark.parametrize("jpm", [True, False])
def test_every_head_with_and_without_parts_and_with_dropout(head, jpm):
    model = build(head=head, jpm=jpm, dropout=0.1, attention_dropout=0.1, drop_path=0.2).train()
    identity = torch.tensor([0, 1, 2, 0])
    out = model(torch.randn(4, 3, *SIZE), labels(4), identity)
    assert len(out.logits) == (5 if jpm else 1)
    sum(F.cross_entropy(x, identity) for x in out.logits).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_feature_after_the_neck():
    model = build(feature="after").eval()
    model.necks[0].running_mean.normal_()
    x = torch.randn(2, 3, *SIZE)
    feature = model.backbone(x, labels(2))[0]
    torch.testing.assert_close(model.embed(x, labels(2)), model.necks[0](feature))


def test_resnet_keeps_the_last_resolution():
    model = build(backbone="resnet50").eval()
    assert isinstance(model.backbone, ResNet)
    assert model.backbone.net.forward_features(torch.randn(1, 3, 128, 64)).shape == (1, 2048, 8, 4)
    assert model.embed(torch.randn(2, 3, 128, 64), {}).shape == (2, 2048)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backbone": "vit_base_patch99"}, "no backbone named 'vit_base_patch99'.*vit_base_patch16_224"),
        ({"backbone": "test_convnext", "jpm": True}, "model.jpm cannot be set: .*test_convnext is none"),
        ({"backbone": "vit_base_patch32_224", "jpm": True}, "needs at least as many patches"),
        ({"backbone": "resnet50", "jpm": True}, "need a vision transformer"),
    ],
)
def test_refuses(options, says):
    with pytest.raises(ConfigError, match=says):
        TransReID(Model(**options), (48, 32), len(VOCABULARY.identities), VOCABULARY.counts)


def test_overlapping_grid():
    for height, width, stride in ((256, 128, 12), (256, 256, 12), (384, 128, 16), (256, 128, 11)):
        net = plain_vit(Model(backbone="test_vit", stride=stride), (height, width))
        assert net.patch_embed.num_patches == ((height - 16) // stride + 1) * ((width - 16) // stride + 1)
    assert np.prod(net.patch_embed.grid_size) == net.patch_embed(torch.zeros(1, 3, 256, 128)).shape[1]


@pytest.mark.parametrize("stride", [16, 11])
def test_patches_by_a_product_equal_those_by_a_convolution(stride):
    embed = OverlapPatchEmbed((64, 48), 16, 3, 24, stride=stride)
    x = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        expected = embed(x)
    torch.testing.assert_close(embed(x), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (2, embed.num_patches, 24)
