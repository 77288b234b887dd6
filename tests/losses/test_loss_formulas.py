"""The losses' formulas as the papers write them, number by number, in every branch."""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional as F

from resight.config.sections import Loss
from resight.losses.center import CenterLoss
from resight.losses.margins import MARGINS, arcface, circle, cosface
from resight.losses.objective import objective
from resight.losses.triplet import batch_hard_triplet, distances
from resight.models.heads import BNNeck, Head

COSINES = [[-1.0, -0.95, -0.2], [0.9, 0.999, 0.1], [0.4, -0.3, -0.5], [0.2, -0.96, 0.7]]
IDENTITY = [0, 1, 2, 1]


def naive(name, cosine, target, s, m):
    """One logit, in float64."""
    if name == "arcface":
        if not target:
            return s * cosine
        angle = math.acos(cosine)
        return s * (math.cos(angle + m) if angle < math.pi - m else cosine - m * math.sin(m))
    if name == "circle":
        if target:
            return s * max(0.0, 1 + m - cosine) * (cosine - (1 - m))
        return s * max(0.0, cosine + m) * (cosine - m)
    return s * (cosine - m if target else cosine)


@pytest.mark.parametrize(("scale", "margin"), [(30.0, 0.5), (16.0, 0.25), (1.0, 1.2), (2.0, 0.0)])
@pytest.mark.parametrize("name", MARGINS)
def test_every_logit_is_the_papers(name, scale, margin):
    cosine = torch.tensor(COSINES, dtype=torch.float64)
    logits = MARGINS[name](cosine, torch.tensor(IDENTITY), scale, margin)
    expected = [
        [naive(name, c, column == target, scale, margin) for column, c in enumerate(row)]
        for row, target in zip(COSINES, IDENTITY, strict=True)
    ]
    assert_allclose(logits, expected, rtol=1e-9, atol=2e-6 * scale)  # the root is at least 1e-6


def test_arcface_beyond_pi_minus_the_margin_still_falls():
    """cos(theta + m) would rise again; the logit of an opposite feature must not be above that of a better one."""
    margin = 0.5
    cosine = torch.linspace(-1, 1, 401, dtype=torch.float64)[:, None]
    logits = arcface(cosine, torch.zeros(401, dtype=torch.int64), 1.0, margin)[:, 0]
    assert (logits.diff() > 0).all()
    assert_allclose(logits[0], -1 - margin * math.sin(margin), atol=1e-9)
    border = -math.cos(margin)
    just = torch.tensor([[border - 1e-6], [border + 1e-6]], dtype=torch.float64)
    below, above = arcface(just, torch.tensor([0, 0]), 1.0, margin)[:, 0].tolist()
    assert_allclose(below, border - margin * math.sin(margin), atol=1e-5)
    assert_allclose(above, -1.0, atol=1e-5)


def test_gradients_of_the_margins_by_hand():
    cosine = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    for function, expected in (
        (arcface, [2 * math.sin(math.acos(0.3) + 0.5) / math.sin(math.acos(0.3)), 2.0]),
        (cosface, [2.0, 2.0]),
        (circle, [2 * (1.5 - 0.3), 2 * (-0.2 + 0.5)]),  # the weights are constants
    ):
        (gradient,) = torch.autograd.grad(function(cosine, torch.tensor([0]), 2.0, 0.5).sum(), cosine)
        assert_allclose(gradient[0], expected, rtol=1e-6)


def test_only_two_names_share_a_formula():
    assert list(MARGINS) == ["arcface", "cosface", "am-softmax", "circle"]
    assert MARGINS["am-softmax"] is MARGINS["cosface"]


@pytest.mark.parametrize("name", MARGINS)
def test_a_head_gives_scaled_cosines_without_an_identity(name):
    head = Head(name, 4, 3, scale=7.0, margin=0.4)
    features = torch.randn(5, 4)
    plain = 7 * F.cosine_similarity(features[:, None], head.weight[None], dim=2)
    assert_allclose(head(features, None).detach(), plain.detach(), rtol=1e-4, atol=1e-5)
    identity = torch.tensor([0, 1, 2, 0, 1])
    cosine = (plain / 7).detach()
    assert_allclose(head(features, identity).detach(), MARGINS[name](cosine, identity, 7.0, 0.4), rtol=1e-3, atol=1e-3)


def test_heads_and_necks_begin_as_the_reference():
    torch.manual_seed(0)
    plain, margin = Head("softmax", 256, 300, 30.0, 0.5), Head("arcface", 256, 300, 30.0, 0.5)
    assert_allclose(plain.weight.std().item(), 0.001, rtol=0.02)
    assert_allclose(margin.weight.abs().max().item(), math.sqrt(6 / (256 + 300)), rtol=1e-3)
    assert (plain.weight.shape, [name for name, _ in plain.named_parameters()]) == ((300, 256), ["weight"])
    neck = BNNeck(256)
    assert (neck.weight.requires_grad, neck.bias.requires_grad) == (True, False)
    assert (neck.eps, neck.momentum, neck.num_features) == (1e-5, 0.1, 256)


def test_distances_have_a_lower_bound_with_a_finite_gradient():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    found = distances(x, x)
    assert_allclose(found.detach(), [[1e-6, 5], [5, 1e-6]], rtol=1e-5)
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert distances(torch.zeros(3, 2), torch.zeros(5, 2)).shape == (3, 5)


def test_triplet_by_hand():
    """On a line: identity 0 at 0 and 3, identity 1 at 1 and 9; the nearest other is 1, 2, 1 and 6 away."""
    x, y = torch.tensor([[0.0], [3.0], [1.0], [9.0]]), torch.tensor([0, 0, 1, 1])
    differences = [3 - 1, 3 - 2, 8 - 1, 8 - 6]
    assert_allclose(batch_hard_triplet(x, y), sum(math.log(1 + math.exp(d)) for d in differences) / 4, rtol=1e-6)
    assert_allclose(batch_hard_triplet(x, y, margin=0.5), (sum(differences) + 2) / 4, rtol=1e-6)
    assert_allclose(batch_hard_triplet(x, y, margin=-1.5), (0.5 + 0 + 5.5 + 0.5) / 4, rtol=1e-6)
    group = torch.tensor([0, 0, 0, 1])  # the last row has no positive but itself, and no negative
    alone = batch_hard_triplet(x, y, margin=0.5, group=group)
    assert_allclose(alone, ((3 - 1 + 0.5) + (3 - 2 + 0.5) + 0 + 0) / 4, rtol=1e-5)


def test_center_loss_by_hand():
    center = CenterLoss(2, 2)
    assert center.centers.shape == (2, 2)
    center.centers.data.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    features = torch.tensor([[3.0, 4.0], [1.0, 3.0]], requires_grad=True)
    loss = center(features, torch.tensor([0, 1]))
    assert loss.item() == (25 + 4) / 2
    loss.backward()
    assert features.grad is not None
    assert features.grad.tolist() == [[3, 4], [0, 2]]
    assert center.centers.grad is not None
    center.rescale_gradient(0.25)
    assert center.centers.grad.tolist() == [[-12, -16], [0, -8]]
    CenterLoss(2, 2).rescale_gradient(0.25)  # without a gradient there is nothing to divide


def test_the_total_is_the_weighted_sum():
    torch.manual_seed(0)
    y, center = torch.tensor([0, 0, 1, 1]), CenterLoss(2, 3)
    settings = Loss(id_weight=0.7, triplet_weight=1.9, center_weight=0.3, triplet_margin=0.2, label_smoothing=0.1)
    features, logits = [torch.randn(4, 3) for _ in range(3)], [torch.randn(4, 2) for _ in range(3)]
    loss = objective(features, logits, y, settings, center)

    def entropy(x):
        logarithm = x.double().log_softmax(1)
        right = -logarithm[torch.arange(4), y]
        return float((0.9 * right - 0.1 * logarithm.mean(1)).mean())

    each = [entropy(x) for x in logits]
    assert_allclose(loss.id, 0.5 * each[0] + 0.25 * (each[1] + each[2]), rtol=1e-5)
    hard = [float(batch_hard_triplet(x, y, 0.2)) for x in features]
    assert_allclose(loss.triplet, 0.5 * hard[0] + 0.25 * (hard[1] + hard[2]), rtol=1e-5)
    assert_allclose(loss.center.detach(), center(features[0], y).detach(), rtol=1e-6)
    expected = 0.7 * loss.id + 1.9 * loss.triplet + 0.3 * loss.center
    assert_allclose(loss.total.detach(), expected.detach(), rtol=1e-6)
    assert objective(features, logits, y, settings).center == 0
    alone = objective(features[:1], logits[:1], y, settings)
    assert_allclose([alone.id, alone.triplet], [each[0], hard[0]], rtol=1e-5)


def test_groups_are_used_only_where_they_are_configured():
    x, y, group = torch.randn(8, 3), torch.arange(8) // 4, torch.arange(8) % 2
    logits = [torch.randn(8, 2)]
    assert_allclose(objective([x], logits, y, Loss(), modality=group).triplet, batch_hard_triplet(x, y))
    within = objective([x], logits, y, Loss(triplet_within="modality"), modality=group)
    assert_allclose(within.triplet, batch_hard_triplet(x, y, group=group))
