"""The parts of published networks against naive computations; every network of ours by name."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import resight
from resight.cli import main
from resight.config.run import Run
from resight.config.sections import Model
from resight.errors import ConfigError
from resight.models.backbones import solider
from resight.models.backbones.build import build_backbone
from resight.models.backbones.clip_resnet import CLIP_RESNETS, AttentionPool, clip_grid
from resight.models.backbones.osnet import OSNETS, Gate
from resight.models.backbones.resnet_ibn import RESNETS, NonLocal
from resight.models.backbones.solider import SOLIDER_SWINS, Semantic, SwinLayout
from resight.models.backbones.stems import IBN
from resight.models.backbones.swin import PatchMerging, WindowAttention, shift_mask
from resight.models.pooling import GeM
from resight.models.published import list_models
from resight.models.transreid import TransReID
from resight.report.walkthrough.summary import summarize

COUNTS = {"camera": 0, "view": 0, "modality": 1}
TINY = SwinLayout(8, (1, 2, 2), (1, 2, 4), window=3)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_non_local_block_attends_by_products_over_n():
    block = NonLocal(6).eval()
    nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 6, 3, 4)
    theta, phi, g = (layer(x).flatten(2)[:, 0] for layer in (block.theta, block.phi, block.g))  # [2, 12]
    weights = theta[:, :, None] * phi[:, None, :] / 12  # [2, 12, 12]
    attended = (weights @ g[:, :, None]).transpose(1, 2).reshape(2, 1, 3, 4)
    close(block(x), x + block.W(attended))


def test_gem_is_the_mean_of_powers():
    x = torch.randn(2, 5, 3)
    expected = torch.zeros(2, 3)
    for b in range(2):
        for d in range(3):
            expected[b, d] = (sum(max(float(v), 1e-6) ** 2.5 for v in x[b, :, d]) / 5) ** (1 / 2.5)
    close(GeM(2.5, trained=True)(x), expected)


def test_ibn_normalises_the_first_half_by_image():
    ibn = IBN(6).eval()
    x = torch.randn(2, 6, 4, 5) * 3 + 1
    y = ibn(x)
    for b in range(2):
        for c in range(3):
            values = x[b, c]
            close(y[b, c], (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt())
    close(y[:, 3:], x[:, 3:] / math.sqrt(1 + 1e-5))  # statistics are still 0 and 1


def test_the_semantic_weight_scales_and_shifts_channels():
    semantic = Semantic(4, 0.3)
    x = torch.randn(2, 3, 3, 4)
    s = torch.tensor([0.3, 0.7])
    for c in range(4):
        scale = ((semantic.scale.weight[c] * s).sum() + semantic.scale.bias[c]).item()
        shift = ((semantic.shift.weight[c] * s).sum() + semantic.shift.bias[c]).item()
        close(semantic(x)[..., c], x[..., c] * math.log1p(math.exp(scale)) + shift)


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_merged_patches_are_ordered_as_unfold_does(size):
    merge = PatchMerging(3)
    x = torch.randn(2, *size, 3)
    padded = F.pad(x, (0, 0, 0, size[1] % 2, 0, size[0] % 2)).permute(0, 3, 1, 2)
    rows, columns = padded.shape[2] // 2, padded.shape[3] // 2
    unfolded = F.unfold(padded, 2, stride=2).transpose(1, 2)  # channel, row, column
    expected = merge.reduction(merge.norm(unfolded)).reshape(2, rows, columns, 6)
    close(merge(x), expected)


def test_the_attention_pool_is_multi_head_attention_of_the_mean():
    pool = AttentionPool(6, 128, 10)
    x = torch.randn(2, 128, 2, 3)
    tokens = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    expected, _ = F.multi_head_attention_forward(
        tokens[:1], tokens, tokens, 128, 2, None,
        torch.cat([layer.bias for layer in (pool.q_proj, pool.k_proj, pool.v_proj)]),
        None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias, use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
        need_weights=False,
    )  # fmt: skip
    close(pool(x), expected[0])


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size", [(5, 4), (2, 2)])
def test_window_attention_position_by_position(shift, size):
    """Each position attends to those of its window; after a shift only to those that are neighbours of the map."""
    window, heads = 3, 2
    attention = WindowAttention(4, heads, window, shift, 0.0).eval()
    x = torch.randn(1, *size, 4)
    rows, columns = (math.ceil(n / window) * window for n in size)
    padded = torch.zeros(rows, columns, 4)
    padded[: size[0], : size[1]] = x[0]
    q, k, v = attention.qkv(padded).reshape(rows, columns, 3, heads, 2).unbind(2)
    table = attention.relative_position_bias_table
    expected = torch.zeros(*size, 4)
    for i in range(size[0]):
        for j in range(size[1]):
            # Positions in the shifted map, where a window has 3 x 3 of them.
            row, column = (i - shift) % rows, (j - shift) % columns
            scores, values = [], []
            for other_row in range(row // window * window, row // window * window + window):
                for other_column in range(column // window * window, column // window * window + window):
                    a, b = (other_row + shift) % rows, (other_column + shift) % columns
                    wraps = (a - i != other_row - row) or (b - j != other_column - column)
                    index = (row - other_row + window - 1) * (2 * window - 1) + column - other_column + window - 1
                    score = (q[i, j] * k[a, b]).sum(-1) / math.sqrt(2) + table[index] - (100.0 if wraps else 0.0)
                    scores.append(score)
                    values.append(v[a, b])
            weights = torch.stack(scores).softmax(0)  # [9, heads]
            expected[i, j] = attention.proj((weights[:, :, None] * torch.stack(values)).sum(0).flatten())
    close(attention(x)[0], expected)


def test_shifted_windows_mask_both_ends():
    mask = shift_mask(2, 1, 3, 1, torch.device("cpu"))
    assert mask.shape == (2, 9, 9)
    assert mask[0, 0].tolist() == [0, 0, -100, 0, 0, -100, 0, 0, -100]  # the last column comes from the other end
    assert mask[1, 0].tolist() == [0, 0, -100, 0, 0, -100, -100, -100, -100]


def test_a_gate_weighs_channels_by_their_means():
    gate = Gate(16)
    x = torch.randn(2, 16, 3, 2)
    means = x.mean((2, 3))
    hidden = (means @ gate.fc1.weight[:, :, 0, 0].T + gate.fc1.bias).clamp(min=0)
    weights = 1 / (1 + torch.exp(-(hidden @ gate.fc2.weight[:, :, 0, 0].T + gate.fc2.bias)))
    close(gate(x), x * weights[:, :, None, None])


def test_the_two_max_pools_of_a_resnet():
    for max_pool, padding, ceil in (("padded", 1, False), ("ceil", 0, True)):
        net = build_backbone(Model(backbone="resnet18", max_pool=max_pool), (36, 20), COUNTS).eval().net
        outputs = []
        net.layer1[0].conv1.register_forward_pre_hook(lambda module, inputs, outputs=outputs: outputs.append(inputs[0]))
        images = torch.randn(1, 3, 36, 20)
        net(images)
        close(outputs[0], nn.MaxPool2d(3, 2, padding, ceil_mode=ceil)(F.relu(net.bn1(net.conv1(images)))))


@pytest.mark.parametrize("name", [*OSNETS, *RESNETS, *SOLIDER_SWINS, *CLIP_RESNETS])
def test_every_network_of_ours_has_numbered_layers(name):
    with torch.device("meta"):
        backbone = build_backbone(Model(backbone=name, drop_path=0.0), (64, 32), COUNTS)
    names = [key for key, _ in backbone.named_parameters()]
    assert set(backbone.layers) == set(names)
    assert backbone.layers[names[0]] == 0
    assert sorted(set(backbone.layers.values())) == list(range(backbone.depth + 1))
    assert backbone.embedding_width == sum(backbone.widths)


@pytest.mark.parametrize(
    ("name", "settings", "width"),
    [
        ("osnet_ain_x0_25", {}, 512),
        ("resnet50_ibn_nl", {"pooling": "gem"}, 2048),
        ("clip_rn50", {}, 3072),
        ("solider_swin_tiny", {"drop_path": 0.2, "dropout": 0.1, "attention_dropout": 0.1}, 32),
    ],
)
def test_every_family_trains(name, settings, width, monkeypatch):
    monkeypatch.setitem(solider.SOLIDER_SWINS, "solider_swin_tiny", TINY)
    model = TransReID(Model(backbone=name, **settings), (64, 32), 3, COUNTS).train()
    outputs = model(torch.randn(4, 3, 64, 32), {})
    sum(F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])) for logits in outputs.logits).backward()
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    if name != "solider_swin_tiny":  # the statistics of BatchNorm follow the batch
        assert all(int(b) == 1 for key, b in model.named_buffers() if key.endswith("num_batches_tracked"))
    assert model.eval().embed(torch.randn(2, 3, 64, 32), {}).shape == (2, width)


def test_a_swin_exports_with_any_number_of_images(monkeypatch):
    """Maps that a window does not divide, smaller ones, and shifted windows."""
    monkeypatch.setitem(solider.SOLIDER_SWINS, "solider_swin_tiny", TINY)
    backbone = build_backbone(Model(backbone="solider_swin_tiny"), (43, 30), COUNTS).eval()

    class Images(nn.Module):
        def forward(self, images):
            return backbone(images, {})[0]

    module = Images()
    module.backbone = backbone
    program = torch.export.export(
        module, (torch.randn(2, 3, 43, 30),), dynamic_shapes=({0: torch.export.Dim("images")},)
    )
    images = torch.randn(5, 3, 43, 30)
    close(program.module()(images), module(images))


def test_options_that_a_network_does_not_have_are_refused():
    for settings in ({"semantic_weight": 0.5}, {"last_stride": 2}, {"pooling": "gem"}, {"sie": ("camera",)}):
        with pytest.raises(ConfigError, match="cannot be set"):
            build_backbone(Model(backbone="osnet_x0_25", **settings), (64, 32), COUNTS)
    with pytest.raises(ConfigError, match="use mean, max or gem"):
        build_backbone(Model(backbone="resnet18", pooling="token-gem"), (64, 32), COUNTS)
    with pytest.raises(ConfigError, match=r"gem_power needs model\.pooling gem"):
        build_backbone(Model(backbone="resnet18", gem_power=2.0), (64, 32), COUNTS)
    with pytest.raises(ConfigError, match="too small for clip_rn50"):
        build_backbone(Model(backbone="clip_rn50"), (12, 32), COUNTS)


@pytest.mark.parametrize("size", [(256, 128), (100, 60), (33, 47)])
def test_the_grid_of_a_clip_resnet(size):
    backbone = build_backbone(Model(backbone="clip_rn50"), size, COUNTS).eval()
    shapes = []
    backbone.layer4.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[2:])))
    with torch.inference_mode():
        backbone(torch.randn(1, 3, *size), {})
    assert shapes == [clip_grid(size)]


def test_summaries_show_stages(monkeypatch):
    monkeypatch.setitem(solider.SOLIDER_SWINS, "solider_swin_tiny", TINY)
    for name, titles in (
        ("osnet_x0_25", ["stem", "stage 1", "stage 3", "global feature"]),
        ("solider_swin_tiny", ["patches", "stage 1", "merged patches 1", "stage 3", "final norm"]),
        ("resnet18", ["stem, convolution 1", "stage 4", "pooled feature"]),
    ):
        run = Run(model=Model(backbone=name)).changed(preprocessing={"size": (64, 32)})
        shown = [step.name for step in summarize(run).steps]
        assert [title for title in titles if title not in shown] == []


def test_published_weights_are_listed(capsys):
    rows = resight.list_models()
    assert len({row.name for row in rows}) == len(rows) > 50
    ours = {*OSNETS, *RESNETS, *SOLIDER_SWINS, *CLIP_RESNETS}
    import timm

    for row in rows:
        assert row.backbone in ours or timm.is_model(row.backbone), row.name
        assert row.source.startswith("https://")
        assert row.file.startswith("https://")
        assert row.convert.startswith(f"resight convert FILE --out models/{row.name}")
        assert (row.mean_ap is None and row.rank1 is None) == (row.tested_on is None), row.name
    assert main(["models", "list", "--find", "OSNet_x0_25", "--details"]) == 0
    out = capsys.readouterr().out
    assert "torchreid_osnet_x0_25_market1501" in out
    assert "mAP 75.0, R1 91.2" in out
    assert "resnet50" not in out
    assert list_models("no such model") == ()
    assert main(["models", "list", "--find", "no such model"]) == 0
    assert main(["models", "download"]) == 2


def test_convert_commands_of_the_list_parse():
    from resight.cli.convert import Convert
    from resight.cli.parsing import parse

    for row in list_models():
        parse(Convert, row.convert.split()[2:], "resight convert")
