"""Fusion of modalities: recomputed naively, and what is promised of absent modalities."""

import pytest
import torch
from torch.nn import functional as F

from resight.errors import ConfigError
from resight.models.fusion import CrossModalAttention, Fusion
from resight.models.heads import Head, ModalityHead, ModalityNeck

WIDTH, TOKENS, MODALITIES = 16, 5, 3
ROWS = torch.tensor([[0, 1, 2], [3, -1, 4], [-1, 5, -1], [-1, -1, 6]])
KINDS = ("mean", "gate", "attention")


def fusion(kind: str, parts: int = 0) -> Fusion:
    """A fusion whose weights are all random: as it is made, gate and attention are the mean."""
    torch.manual_seed(1)
    module = Fusion(kind, [WIDTH] * (1 + parts), WIDTH, MODALITIES)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def images(parts: int = 0) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    features = [torch.randn(7, WIDTH, generator=generator) for _ in range(1 + parts)]
    return features, torch.randn(7, TOKENS, WIDTH, generator=generator)


def test_the_mean_is_over_the_modalities_that_are_present():
    features, tokens = images()
    fused = fusion("mean")(features, tokens, ROWS)
    f = features[0]
    expected = torch.stack([(f[0] + f[1] + f[2]) / 3, (f[3] + f[4]) / 2, f[5], f[6]])
    torch.testing.assert_close(fused.features[0], expected)
    torch.testing.assert_close(fused.weights[1], torch.tensor([0.5, 0.0, 0.5]))


def test_concatenation_is_in_the_order_of_the_modalities():
    features, tokens = images(parts=1)
    fused = fusion("concat", parts=1)(features, tokens, ROWS)
    absent = torch.zeros(WIDTH)
    for branch, feature in zip(fused.features, features, strict=True):
        assert torch.equal(branch[0], torch.cat([feature[0], feature[1], feature[2]]))
        assert torch.equal(branch[1], torch.cat([feature[3], absent, feature[4]]))
        assert torch.equal(branch[2], torch.cat([absent, feature[5], absent]))


def test_a_gate_weighs_as_its_layers_say():
    features, tokens = images()
    module = fusion("gate")
    fused = module(features, tokens, ROWS)
    gate = module.gate
    for sighting, row in enumerate(ROWS.tolist()):
        logits, vectors = [], []
        for modality, image in enumerate(row):
            if image >= 0:
                token = gate.token_norm(tokens[image, 1:].mean(0))
                hidden = F.gelu(gate.hidden(torch.cat([gate.norm(features[0][image]), token])))
                logits.append(gate.logit(hidden)[modality])
                vectors.append(features[0][image])
        weights = torch.stack(logits).softmax(0)
        expected = sum(w * v for w, v in zip(weights, vectors, strict=True))
        torch.testing.assert_close(fused.features[0][sighting], expected, rtol=1e-5, atol=1e-6)


def naive_attention(module: CrossModalAttention, feature, tokens, row, modality) -> torch.Tensor:
    """What one modality of one sighting learns from the others, head by head."""
    image = row[modality]
    query = module.query(module.query_norm(feature[image])) + module.modality[modality]
    keys, values = [module.null_key], [torch.zeros_like(module.null_key)]
    for other, other_image in enumerate(row):
        if other != modality and other_image >= 0:
            key, value = module.key_value(module.token_norm(tokens[other_image])).chunk(2, -1)
            keys += list(key + module.modality[other])
            values += list(value)
    heads = []
    size = len(query) // 4
    for head in range(4):
        part = slice(head * size, (head + 1) * size)
        scores = torch.stack([key[part] @ query[part] for key in keys]) / size**0.5
        heads.append(sum(w * value[part] for w, value in zip(scores.softmax(0), values, strict=True)))
    learned = module.out(torch.cat(heads))
    return learned + module.mlp(module.mlp_norm(feature[image] + learned))


def test_attention_is_over_the_tokens_of_the_other_modalities():
    features, tokens = images()
    module = fusion("attention").attention
    learned = module(features[0], tokens, ROWS)
    for sighting, modality in ((0, 0), (0, 2), (1, 0), (1, 2)):
        expected = naive_attention(module, features[0], tokens, ROWS[sighting].tolist(), modality)
        torch.testing.assert_close(learned[sighting, modality], expected, rtol=1e-4, atol=1e-5)
    assert not learned[2, 1].any()  # no other modality: exactly 0
    assert not learned[3, 2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_modality_is_the_image_itself(kind):
    features, tokens = images(parts=2)
    fused = fusion(kind, parts=2)(features, tokens, ROWS)
    for branch, feature in zip(fused.features, features, strict=True):
        assert torch.equal(branch[2], feature[5])
        assert torch.equal(branch[3], feature[6])
    assert torch.equal(fused.weights[2], torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_other_sightings_and_absent_images_change_nothing(kind):
    """Index 0 stands in for absent images in the tensors: its values must not matter."""
    features, tokens = images()
    module = fusion(kind)
    before = module(features, tokens, ROWS)
    features[0][0] += 100
    tokens[0] -= 100
    after = module(features, tokens, ROWS)
    torch.testing.assert_close(before.features[0][1:], after.features[0][1:])
    assert not torch.allclose(before.features[0][0], after.features[0][0])


@pytest.mark.parametrize("kind", ["gate", "attention"])
def test_they_start_as_the_mean(kind):
    features, tokens = images()
    torch.manual_seed(0)
    fused = Fusion(kind, [WIDTH], WIDTH, MODALITIES)(features, tokens, ROWS)
    mean = Fusion("mean", [WIDTH], WIDTH, MODALITIES)(features, tokens, ROWS)
    torch.testing.assert_close(fused.features[0], mean.features[0])
    torch.testing.assert_close(fused.weights, mean.weights)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_reach_every_image_and_weight(kind):
    features, tokens = images()
    module = fusion(kind)
    inputs = [features[0].requires_grad_(), tokens.requires_grad_()]
    module(features, tokens, ROWS).features[0].square().sum().backward()
    assert features[0].grad.isfinite().all()
    assert (features[0].grad.abs().sum(1) > 0).all()
    if kind == "attention":
        assert (tokens.grad[:5].abs().sum((1, 2)) > 0).all()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert inputs


def test_attention_without_tokens_is_refused():
    with pytest.raises(ConfigError, match="needs a backbone with tokens"):
        Fusion("attention", [WIDTH], None, MODALITIES)
    assert Fusion("gate", [WIDTH], None, MODALITIES)([torch.randn(7, WIDTH)], None, ROWS).weights.shape == (4, 3)


def test_each_modality_is_normalized_by_its_own_statistics():
    neck = ModalityNeck(WIDTH, MODALITIES)
    torch.nn.init.normal_(neck.weight)
    norms = [torch.nn.BatchNorm1d(WIDTH) for _ in range(MODALITIES)]
    for number, norm in enumerate(norms):
        norm.weight.data.copy_(neck.weight[number])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        features = torch.randn(9, WIDTH, generator=generator) * 3 + 5
        modality = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])
        normalized = neck(features, modality)
        for number, norm in enumerate(norms):
            mine = modality == number
            torch.testing.assert_close(normalized[mine], norm(features[mine]))
    neck.eval()
    known = torch.stack([norms[number].eval()(features) for number in range(MODALITIES)], 1)  # [9, M, D]
    torch.testing.assert_close(neck(features, modality), known[torch.arange(9), modality])
    torch.testing.assert_close(neck(features, torch.full((9,), -1)), known.mean(1))  # an unknown modality
    torch.testing.assert_close(neck.of_sightings(features[:, None].expand(-1, MODALITIES, -1)), known)


def test_a_modality_with_one_image_in_a_batch_has_the_running_statistics():
    neck = ModalityNeck(WIDTH, MODALITIES)
    features = torch.randn(3, WIDTH) + 7
    before = neck.running_mean.clone()
    normalized = neck(features, torch.tensor([0, 0, 2]))
    torch.testing.assert_close(normalized[2], features[2] / (1 + 1e-5) ** 0.5)
    assert torch.equal(neck.running_mean[1:], before[1:])
    assert not torch.equal(neck.running_mean[0], before[0])


def test_with_a_head_for_each_modality_images_have_the_logits_of_their_own():
    torch.manual_seed(0)
    heads = [Head("arcface", WIDTH, 5, 30.0, 0.5) for _ in range(MODALITIES)]
    head, rows = ModalityHead(heads), torch.randn(4, WIDTH)
    identity, modality = torch.tensor([0, 4, 2, 2]), torch.tensor([2, 0, 2, -1])
    logits = head(rows, identity, modality)
    for n in range(3):
        one = slice(n, n + 1)
        torch.testing.assert_close(logits[one], heads[modality[n]](rows[one], identity[one]))
    assert not logits[3].any()  # the modality is unknown
    logits.sum().backward()
    assert [bool(h.weight.grad.any()) for h in heads] == [True, False, True]
    assert head(rows, None, modality)[1].tolist() == heads[0](rows[1:2], None)[0].tolist()
