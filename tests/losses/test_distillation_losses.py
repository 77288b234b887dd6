"""The losses against a teacher's embeddings, against their formulas by loops."""

import math

import pytest
import torch

from resight.config.distillation import Distillation
from resight.losses.distillation import distance_loss, distillation_loss, similarity_loss


def batch(size=6, width=5, wide=7):
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(size, d, generator=generator, dtype=torch.float64) for d in (width, wide, wide))


def unit(rows):
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.tolist()]


def centered(rows):
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return unit(torch.tensor([[x - m for x, m in zip(row, mean, strict=True)] for row in rows], dtype=torch.float64))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def relative(rows):
    """The distances of all pairs i < j, over their mean (Park et al. 2019, equations 4 and 5)."""
    n = len(rows)
    distance = {(i, j): math.dist(rows[i], rows[j]) for i in range(n) for j in range(i)}
    mean = sum(distance.values()) / len(distance)
    return {pair: value / mean for pair, value in distance.items()}


def test_each_loss_is_its_formula():
    student, projected, teacher = batch()
    s, p, t = unit(student), unit(projected), unit(teacher)
    n = len(s)
    embedding = sum(1 - dot(a, b) for a, b in zip(centered(p), centered(t), strict=True)) / n
    of_student, of_teacher = relative(s), relative(t)
    distance = sum(huber(of_student[pair] - of_teacher[pair]) for pair in of_student) / len(of_student)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    c, d = centered(s), centered(t)
    similarity = sum((dot(c[i], c[j]) - dot(d[i], d[j])) ** 2 for i, j in pairs) / len(pairs)
    settings = Distillation(embedding_weight=2, distance_weight=3, similarity_weight=0.5)
    loss = distillation_loss(student, projected, teacher, settings)
    assert loss.embedding.item() == pytest.approx(embedding, abs=1e-6)
    assert loss.distance.item() == pytest.approx(distance, abs=1e-6)
    assert loss.similarity.item() == pytest.approx(similarity, abs=1e-6)
    assert loss.total.item() == pytest.approx(2 * embedding + 3 * distance + 0.5 * similarity, abs=1e-5)
    names = ["distillation", "distillation_embedding", "distillation_distance", "distillation_similarity"]
    assert list(loss.figures) == names
    assert loss.figures["distillation"] is loss.total


def test_a_direction_that_all_embeddings_share_is_left_out():
    """Else a student that gives one vector for all images would agree with a teacher whose embeddings are close."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(8, 6, generator=generator)
    teacher = torch.nn.functional.normalize(spread * 0.01 + 5)
    assert (teacher @ teacher.T).min() > 0.999
    constant = torch.ones(8, 6) + 1e-3 * torch.randn(8, 6, generator=generator)
    settings = Distillation(similarity_weight=1.0)
    ignorant = distillation_loss(constant, constant, teacher, settings)
    informed = distillation_loss(spread, spread, teacher, settings)
    assert ignorant.embedding > 0.5
    assert informed.embedding < 0.2
    assert informed.similarity < 0.2 * ignorant.similarity


def test_the_distance_loss_uses_both_parts_of_the_huber_loss():
    student, teacher = torch.tensor([[0.0], [0.01], [1.0]]), torch.tensor([[0.0], [1.0], [1.01]])
    of_student, of_teacher = (relative(rows.tolist()) for rows in (student, teacher))
    differences = [of_student[pair] - of_teacher[pair] for pair in of_student]
    assert min(map(abs, differences)) < 1 < max(map(abs, differences))
    expected = sum(map(huber, differences)) / 3
    assert distance_loss(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 4), torch.randn(5, 6)
    for loss in (distance_loss, similarity_loss):
        x = student.clone().requires_grad_()
        loss(x, teacher).backward()
        step = 1e-2
        for row, column in ((0, 0), (3, 2)):
            plus, minus = student.clone(), student.clone()
            plus[row, column] += step
            minus[row, column] -= step
            slope = (loss(plus, teacher) - loss(minus, teacher)).item() / (2 * step)
            assert x.grad[row, column].item() == pytest.approx(slope, rel=0.02, abs=1e-3), loss


def test_gradients_stay_finite_where_embeddings_are_equal():
    student = torch.ones(4, 3).requires_grad_()
    teacher = torch.eye(4)
    loss = distillation_loss(student, student @ torch.ones(3, 4), teacher, Distillation(similarity_weight=1.0))
    loss.total.backward()
    assert student.grad.isfinite().all()


def test_a_student_that_agrees_has_no_loss():
    _, _, teacher = batch()
    loss = distillation_loss(2 * teacher, 3 * teacher, teacher, Distillation(similarity_weight=1.0))
    assert abs(loss.total.item()) < 1e-4
    rotated, _ = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))
    loss = distillation_loss(teacher @ rotated, teacher @ rotated, teacher, Distillation(similarity_weight=1.0))
    assert abs(loss.distance.item() + loss.similarity.item()) < 1e-4  # relations do not depend on the axes
    assert loss.embedding.item() > 0.1
