"""Losses against golden numbers and against naive loops."""

import golden_cases
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional as F

from resight.config.sections import Loss
from resight.losses.center import CenterLoss
from resight.losses.cross_modal import cross_modal_contrast
from resight.losses.margins import MARGINS, arcface
from resight.losses.objective import objective
from resight.losses.triplet import batch_hard_triplet
from resight.models.heads import Head

HEADS = {"arcface": "arcface", "cosface": "cosface", "am-softmax": "amsoftmax", "circle": "circle"}


@pytest.fixture(scope="module")
def golden():
    with np.load(golden_cases.GOLDEN / "losses.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def features(golden):
    return golden["features"].clone().requires_grad_()


def check(loss, features, golden, name):
    loss.backward()
    assert_allclose(loss.item(), golden[name], rtol=1e-5)
    assert_allclose(features.grad, golden[f"{name}_grad"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("triplet_soft", {}),
        ("triplet_margin0.3", {"margin": 0.3}),
        ("triplet_soft_normalized", {"normalize": True}),
    ],
)
def test_golden_triplet(golden, features, name, options):
    check(batch_hard_triplet(features, golden["labels"], **options), features, golden, name)


@pytest.mark.parametrize("ours", HEADS)
def test_golden_margin_head(golden, features, ours):
    weight, labels, name = golden["weight"], golden["labels"], HEADS[ours]
    head = Head(ours, weight.shape[1], len(weight), scale=30.0, margin=0.5)
    head.weight.data.copy_(weight)
    logits = head(features, labels)
    assert_allclose(logits.detach(), golden[f"{name}_logits"], rtol=1e-4, atol=1e-4)
    check(F.cross_entropy(logits, labels), features, golden, f"{name}_ce")


@pytest.mark.parametrize(("name", "smoothing"), [("softmax_ce", 0.0), ("softmax_ce_smooth0.1", 0.1)])
def test_golden_id_loss(golden, features, name, smoothing):
    settings = Loss(triplet_weight=0, label_smoothing=smoothing)
    logits = F.linear(features, golden["weight"])
    check(objective([features], [logits], golden["labels"], settings).total, features, golden, name)


def test_golden_center(golden, features):
    center = CenterLoss(*golden["centers"].shape)
    center.centers.data.copy_(golden["centers"])
    check(center(features, golden["labels"]), features, golden, "center")


def test_triplet_equals_a_loop():
    x, y = torch.randn(12, 5), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    terms = []
    for i in range(12):
        d = [float((x[i] - x[j]).norm()) for j in range(12)]
        positive = max(d[j] for j in range(12) if y[j] == y[i])
        negative = min(d[j] for j in range(12) if y[j] != y[i])
        terms.append(np.log1p(np.exp(positive - negative)))
    assert_allclose(batch_hard_triplet(x, y).item(), np.mean(terms), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"margin": 0.3}, {"normalize": True}])
def test_triplet_within_a_group_equals_a_loop(options):
    x, y, group = torch.randn(12, 5), torch.arange(12) // 4, torch.arange(12) % 2
    z = x / x.norm(dim=1, keepdim=True) if "normalize" in options else x
    terms = []
    for i in range(12):
        rows = [j for j in range(12) if group[j] == group[i]]
        positive = max(float((z[i] - z[j]).norm()) for j in rows if y[j] == y[i])
        negative = min(float((z[i] - z[j]).norm()) for j in rows if y[j] != y[i])
        hinge = max(0.0, positive - negative + options.get("margin", 0.0))
        terms.append(hinge if "margin" in options else np.log1p(np.exp(positive - negative)))
    assert_allclose(batch_hard_triplet(x, y, group=group, **options).item(), np.mean(terms), rtol=1e-5)
    settings = Loss(
        triplet_within="modality", triplet_margin=options.get("margin"), triplet_normalize="normalize" in options
    )
    loss = objective([x], [torch.randn(12, 3)], y, settings, modality=group)
    assert_allclose(loss.triplet.item(), np.mean(terms), rtol=1e-5)
    whole = objective([x], [torch.randn(12, 3)], y, settings.model_copy(update={"triplet_within": "batch"}))
    assert whole.triplet.item() > loss.triplet.item()  # the hardest rows of the batch are at least as hard


def test_triplet_stays_in_float32_under_autocast():
    x = torch.randn(8, 16) * 300  # squared norms beyond float16
    y = torch.arange(4).repeat_interleave(2)
    with torch.autocast("cpu", torch.bfloat16):
        under = batch_hard_triplet(x, y)
    assert under.dtype == torch.float32
    assert_allclose(under.item(), batch_hard_triplet(x, y).item(), rtol=1e-6)


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_margins_are_finite_at_the_ends(name, value):
    cosine = torch.full((2, 3), value, requires_grad=True)
    logits = MARGINS[name](cosine, torch.tensor([0, 1]), 30.0, 0.5)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.isfinite().all()
    assert cosine.grad is not None
    assert cosine.grad.isfinite().all()


def test_arcface_adds_the_margin_to_the_angle():
    angle = torch.tensor([[0.3, 1.0], [2.0, 0.7]])
    logits = arcface(angle.cos(), torch.tensor([0, 1]), 30.0, 0.5)
    assert_allclose(logits, 30 * torch.tensor([[0.8, 1.0], [2.0, 1.2]]).cos(), rtol=1e-4, atol=1e-4)


def test_parts_weigh_half():
    y = torch.tensor([0, 0, 1, 1])
    features, logits = [torch.randn(4, 3) for _ in range(5)], [torch.randn(4, 2) for _ in range(5)]
    loss = objective(features, logits, y, Loss())
    each = [F.cross_entropy(x, y) for x in logits]
    assert_allclose(loss.id, 0.5 * each[0] + 0.5 * sum(each[1:]) / 4, rtol=1e-6)
    hard = [batch_hard_triplet(f, y) for f in features]
    assert_allclose(loss.triplet, 0.5 * hard[0] + 0.5 * sum(hard[1:]) / 4, rtol=1e-6)
    assert_allclose(loss.total, loss.id + loss.triplet, rtol=1e-6)


def test_center_loss_is_added_and_its_weight_slows_only_the_features():
    y = torch.tensor([0, 0, 1, 1])
    center, settings = CenterLoss(2, 3), Loss(center_weight=0.01)
    features = torch.randn(4, 3, requires_grad=True)
    with_center = objective([features], [torch.randn(4, 2)], y, settings, center)
    parts = with_center.id + with_center.triplet + 0.01 * with_center.center
    assert_allclose(with_center.total.item(), parts.item(), rtol=1e-5)
    with_center.total.backward()
    center.rescale_gradient(0.01)
    plain = CenterLoss(2, 3)
    plain.centers.data.copy_(center.centers.data)
    plain(features.detach(), y).backward()
    assert_allclose(center.centers.grad, plain.centers.grad, rtol=1e-4)


def test_cross_modal_contrast_equals_a_loop():
    x = torch.randn(10, 6) + 20  # a large mean in common, which the loss takes away
    y = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 3, 3])
    modality = torch.tensor([0, 1, 0, 1, 0, 2, 2, 1, 0, 0])  # identity 3 has one modality: its rows are no anchors
    z = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    z = (z / z.norm(dim=1, keepdim=True)).double()
    terms = []
    for i in range(10):
        others = [j for j in range(10) if modality[j] != modality[i]]
        total = sum(np.exp(float(z[i] @ z[j]) / 0.2) for j in others)
        positives = [j for j in others if y[j] == y[i]]
        if positives:
            terms.append(np.mean([-np.log(np.exp(float(z[i] @ z[j]) / 0.2) / total) for j in positives]))
    assert len(terms) == 8
    assert_allclose(cross_modal_contrast(x, y, modality, 0.2).item(), np.mean(terms), rtol=1e-5)
    settings = Loss(id_weight=0, triplet_weight=0, cross_modal_weight=0.7, cross_modal_temperature=0.2)
    logits = [torch.randn(10, 4)] * 2
    loss = objective([x, x], logits, y, settings, modality=modality)
    assert_allclose(loss.cross_modal.item(), np.mean(terms), rtol=1e-5)
    assert_allclose(loss.total.item(), 0.7 * np.mean(terms), rtol=1e-5)
    assert objective([x], logits[:1], y, settings).total == 0, "fused features have no modality"
    assert objective([x], logits[:1], y, Loss(), modality=modality).cross_modal == 0


def test_cross_modal_contrast_without_anchors_and_with_large_features():
    x = torch.randn(6, 4, requires_grad=True)
    y = torch.arange(6) // 2
    nothing = cross_modal_contrast(x, y, torch.zeros(6, dtype=torch.int64), 0.1)
    nothing.backward()
    assert nothing == 0
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(6, 4))
    large, modality = torch.randn(6, 4) * 1e5, torch.arange(6) % 2
    with torch.autocast("cpu", torch.bfloat16):
        under = cross_modal_contrast(large, y, modality, 0.1)
    assert under.dtype == torch.float32
    assert_allclose(under.item(), cross_modal_contrast(large, y, modality, 0.1).item(), rtol=1e-6)


def test_cross_modal_contrast_is_small_where_identities_agree_across_modalities():
    y, modality = torch.arange(8) // 2, torch.arange(8) % 2
    centres = torch.eye(8)[y]
    assert cross_modal_contrast(centres, y, modality, 0.1) < 1e-3
    swapped = torch.eye(8)[(y + modality) % 4]  # what one modality shows is another identity in the other
    assert cross_modal_contrast(swapped, y, modality, 0.1) > 5
