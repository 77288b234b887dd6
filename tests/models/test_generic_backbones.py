"""Networks of timm by name: their features are timm's, and they train, resume, export and are refused like a ViT."""

import pytest
import timm
import torch
from conftest import small_model
from torch import nn
from training_helpers import run_to, same, small, weights

import resight
from resight.config.optimization import Optimizer
from resight.config.sections import Model
from resight.data.catalog import read_dataset
from resight.errors import CheckpointError, ConfigError
from resight.models.backbones import eva as eva_module
from resight.models.backbones.build import backbone_class, build_backbone
from resight.models.backbones.eva import Eva
from resight.models.backbones.timm_net import TimmNet
from resight.models.backbones.vit import ViT
from resight.models.jpm import rearrange
from resight.models.meta import on_meta
from resight.models.pretrained import load_pretrained
from resight.models.transreid import TransReID, build_empty
from resight.training import loop
from resight.training.optimizer import parameter_groups
from resight.training.run_folder import RunFolder

COUNTS = {"camera": 3, "view": 0, "modality": 1}
SIZE = (64, 32)
ROTARY = "eva02_tiny_patch14_224"


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    """EVA-02's smallest transformer, of two narrow blocks."""
    original = timm.create_model

    def create(name, **options):
        if name == ROTARY:
            options |= {"depth": 2, "embed_dim": 32, "num_heads": 2}
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", create)


def build(name, size=SIZE, **options):
    torch.manual_seed(0)
    return build_backbone(Model(backbone=name, **{"drop_path": 0.0, **options}), size, COUNTS).eval()


def test_names_choose_the_class():
    for name, kind in (
        ("test_vit", ViT), (ROTARY, Eva), ("vit_small_patch16_dinov3", Eva), ("test_convnext", TimmNet),
        ("swin_tiny_patch4_window7_224", TimmNet), ("vit_base_patch16_siglip_224", TimmNet),
    ):  # fmt: skip
        assert backbone_class(name) is kind, name


@pytest.mark.parametrize("name", [ROTARY, "test_convnext", "test_efficientnet", "test_vit_relpos", "test_resnet"])
def test_a_feature_is_timms(name):
    net = build(name)
    pooling = "token" if name == ROTARY else "avg"
    options = {"img_size": SIZE} if name in (ROTARY, "test_vit_relpos") else {}
    reference = timm.create_model(name, num_classes=0, global_pool=pooling, **options).eval()
    reference.load_state_dict({key.removeprefix("net."): tensor for key, tensor in net.state_dict().items()})
    images = torch.randn(2, 3, *SIZE)
    feature = net(images, {})[0]
    assert net.widths == (feature.shape[1],)
    torch.testing.assert_close(feature, reference(images))


def test_poolings_by_hand():
    images = torch.randn(2, 3, *SIZE)
    for name in ("test_efficientnet", ROTARY):
        net = build(name)
        x = net.net.forward_features(images)
        patches = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x[:, 1:]
        expected = {
            "max": patches.amax(1),
            "mean-max": torch.cat([patches.mean(1), patches.amax(1)], 1),
            "gem": patches.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3),
        }
        for pooling, feature in expected.items():
            pooled = build(name, pooling=pooling)
            state = net.state_dict() | {k: v for k, v in pooled.state_dict().items() if k.startswith("pool.")}
            pooled.load_state_dict(state)
            torch.testing.assert_close(pooled(images, {})[0], feature)
            assert pooled.embedding_width == feature.shape[1]


def test_side_information_and_parts_of_a_rotary_transformer():
    """Each part's patches keep their own rotary positions, and the class token is before each."""
    net = build(ROTARY, jpm=True, jpm_parts=2, jpm_shift=3, sie=("camera",), sie_weight=2.0)
    images, labels = torch.randn(2, 3, *SIZE), {"camera": torch.tensor([2, 0])}
    inner = net.net
    x, rope = inner._pos_embed(inner.patch_embed(images))
    x = x + 2.0 * net.sie.table[labels["camera"]][:, None]
    x = inner.blocks[0](x, rope=rope)
    order = rearrange(torch.arange(8.0).view(1, 8, 1), 3, 2).flatten().long()
    expected = [inner.norm(inner.blocks[1](x, rope=rope))[:, 0]]
    for part in order.chunk(2):
        tokens = torch.cat([x[:, :1], x[:, 1 + part]], 1)
        expected.append(inner.norm(inner.blocks[1](tokens, rope=rope[part]))[:, 0])
    for ours, theirs in zip(net(images, labels), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    combined = torch.cat([expected[0], expected[1] / 2, expected[2] / 2], 1)
    torch.testing.assert_close(net.combine(net(images, labels)), combined)


def test_recomputed_blocks_give_the_same_gradients(monkeypatch):
    net, used = build(ROTARY), []
    images = torch.randn(2, 3, *SIZE)
    original = eva_module.checkpoint
    monkeypatch.setattr(eva_module, "checkpoint", lambda *a, **options: used.append(1) or original(*a, **options))
    gradients = []
    for recompute in (False, True):
        net.train().gradient_checkpointing = recompute
        net.zero_grad()
        net(images, {})[0].square().sum().backward()
        gradients.append(net.net.patch_embed.proj.weight.grad.clone())
    assert len(used) == 2
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "name", ["test_vit", "legacy_vit_small", "osnet_x0_25", "resnet18", "test_convnext", "clip_rn50"]
)
def test_an_empty_network_has_the_names_and_shapes_of_a_built_one(name):
    """No value is computed: what draws weights is left out on the meta device, and only there."""
    arguments = (Model(backbone=name, drop_path=0.0), SIZE, 3, {"camera": 0, "view": 0, "modality": 1})
    built, empty = TransReID(*arguments), build_empty(*arguments)
    expected = {key: (tensor.shape, tensor.dtype) for key, tensor in built.state_dict().items()}
    assert {key: (tensor.shape, tensor.dtype) for key, tensor in empty.state_dict().items()} == expected
    assert all(parameter.is_meta for parameter in empty.parameters())
    with on_meta():
        drawn = torch.zeros(100, device="cpu").normal_().clamp_(min=-0.5)
    assert drawn.min() == -0.5
    assert len(drawn.unique()) > 10


def test_tables_that_no_file_stores_are_computed():
    counts = {"camera": 0, "view": 0, "modality": 1}
    before = torch.random.get_rng_state()
    for name in (ROTARY, "test_convnext"):
        empty = build_empty(Model(backbone=name), SIZE, 3, counts)
        on_meta = {buffer for buffer, tensor in empty.named_buffers() if tensor.is_meta}
        assert on_meta <= set(empty.state_dict())
        assert any(parameter.is_meta for parameter in empty.parameters()) == (name != ROTARY)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("name", "options", "says"), [
    ("test_convnext", {"jpm": True}, "model.jpm cannot be set: jpm, sie and stride need a vision transformer"),
    ("test_convnext", {"sie": ("camera",), "stride": 8}, r"model\.stride, model\.sie cannot be set"),
    ("test_convnext", {"pooling": "token-gem"}, "needs a class token, and test_convnext has none"),
    ("test_convnext", {"gem_power": 2.0}, "gem_power needs the pooling gem"),
    ("test_convnext", {"part_tokens": 3}, "does not use it"),
    (ROTARY, {"stem": "ics"}, "model.stem cannot be set: the backbone .* does not use it"),
    (ROTARY, {"jpm": True, "pooling": "gem"}, "jpm and pooling gem exclude each other"),
    (ROTARY, {"jpm": True, "jpm_parts": 9}, "jpm_parts 9 needs at least as many patches, not 8"),
    ("resnet50", {"projection": 64}, "model.projection cannot be set: the backbone resnet50 does not use it"),
    ("test_vit", {"jpm": True, "pooling": "gem"}, "jpm and pooling gem exclude each other"),
    ("test_vit", {"part_fusion": "mean"}, "part_fusion and part_necks need part_tokens"),
    ("test_vit", {"stem": "ics", "stride": 8}, "stride needs the stem patch"),
])  # fmt: skip
def test_an_option_that_a_backbone_does_not_use_is_refused(name, options, says):
    with pytest.raises(ConfigError, match=says):
        build(name, **options)


def test_a_size_that_a_network_cannot_take():
    for name, size in (("swin_tiny_patch4_window7_224", (2, 2)), ("vit_small_patch16_dinov3", (65, 30))):
        with pytest.raises(ConfigError, match=f"{name} cannot take images of {size[0]}x{size[1]}: "):
            build(name, size)


def test_layers_are_numbered_for_their_learning_rates():
    for name in ("test_convnext", ROTARY):
        model = nn.Module()
        model.backbone = build(name)
        layers = {f"backbone.{name}": layer for name, layer in model.backbone.layers.items()}
        settings = Optimizer(lr=1.0, layer_decay=0.5, bias_lr_factor=1.0)
        groups = parameter_groups(model.named_parameters(), settings, model.backbone.depth, layers)
        rates = {name: group["lr"] for group in groups for name in group["names"]}
        depth = model.backbone.depth
        stem = "backbone.net.patch_embed.proj.weight" if name == ROTARY else "backbone.net.stem.0.weight"
        assert rates[stem] == 0.5 ** (depth + 1)
        assert max(rates.values()) == (1.0 if name == ROTARY else 0.5)
        assert len(set(rates.values())) >= 3


@pytest.mark.parametrize("name", [ROTARY, "test_convnext"])
def test_weights_of_another_size_and_of_a_classifier(name, tmp_path):
    options = {"img_size": (84, 84)} if name == ROTARY else {}
    torch.manual_seed(1)
    reference = timm.create_model(name, num_classes=7, **options)
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    net = build(name)
    left_out = load_pretrained(net, str(tmp_path / "w.pth"), name)
    assert left_out
    assert all(name.startswith("head.") for name in left_out)
    own = net.state_dict()
    if name == ROTARY:
        assert torch.equal(own["net.blocks.1.mlp.fc2.weight"], reference.blocks[1].mlp.fc2.weight)
        assert torch.equal(own["net.norm.weight"], reference.fc_norm.weight)
        assert own["net.pos_embed"].shape == (1, 9, 32)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_pretrained(build("test_vit", (32, 32)), str(tmp_path / "w.pth"), "test_vit")


@pytest.mark.parametrize("name", [ROTARY, "test_convnext"])
def test_it_trains_resumes_bit_for_bit_and_is_a_start(name, painted, tmp_path, monkeypatch):
    tokens = {"sie": ("camera",), "jpm": True} if name == ROTARY else {"sie": (), "jpm": False}
    options = {
        "model": {"backbone": name, "drop_path": 0.1, "dropout": 0.0, **tokens},
        "preprocessing": {"size": SIZE},
        "schedule": {"epochs": 2},
    }
    run_to(tmp_path / "run", small(**options), painted)
    # Interrupt another run in its second epoch, and resume it.
    original, epochs = loop.train_epoch, []

    def interrupted(context, state, *rest, **others):
        epochs.append(state.epoch)
        if epochs == [1, 2]:
            raise KeyboardInterrupt
        original(context, state, *rest, **others)

    monkeypatch.setattr(loop, "train_epoch", interrupted)
    run = small(**options)
    with pytest.raises(KeyboardInterrupt):
        run_to(tmp_path / "resumed", run, painted)
    loop.train(run, read_dataset(run.dataset, painted), RunFolder.open(tmp_path / "resumed")[0])
    assert epochs == [1, 2, 2]
    assert same(weights(tmp_path / "run"), weights(tmp_path / "resumed"))
    # The folder is a start of another training, but only of the same backbone.
    start = small(**options | {"schedule": {"epochs": 1}}, weights=str(tmp_path / "run" / "best"))
    assert 0 <= run_to(tmp_path / "tuned", start, painted).summary()["mAP"] <= 1
    with pytest.raises(CheckpointError, match=f"with the backbone {name}, and the run has test_vit"):
        run_to(tmp_path / "wrong", small(weights=str(tmp_path / "run" / "best")), painted)


@pytest.mark.parametrize("name", [ROTARY, "test_convnext"])
def test_an_exported_file_has_parity(name, tmp_path):
    folder = small_model(tmp_path / "model", backbone=name, sie=("camera",) if name == ROTARY else ())
    assert resight.export(folder, tmp_path / "exported", "onnx").cosine > 0.9999
