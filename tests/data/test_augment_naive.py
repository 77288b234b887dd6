"""Augmentation and sampling, recomputed with loops from the same draws, and their bounds over many seeds."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from resight.config.sections import Augmentation
from resight.data.augment.augment import _noise, augment, boxes, erase, flip_and_crop, normalize
from resight.data.augment.colour import apply_curves, draw, draw_curves, recolour
from resight.data.augment.policy import apply_policies, draw_policies
from resight.data.sampler import PKSampler
from resight.data.vocabulary import Vocabulary, label_numbers

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_box(areas, ratios, size, position):
    """The first try that fits: top, left, height and width."""
    height, width = size
    for area, ratio in zip(areas, ratios, strict=True):
        tall, wide = (round(math.sqrt(float(x))) for x in (area * ratio, area / ratio))
        if tall < height and wide < width:
            return [int(position[0] * (height - tall + 1)), int(position[1] * (width - wide + 1)), tall, wide]
    return [0, 0, 0, 0]


@pytest.mark.parametrize("size", [(24, 12), (9, 40), (5, 5)])
@pytest.mark.parametrize("probability", [0.0, 0.6, 1.0])
def test_boxes_are_the_first_try_that_fits(size, probability):
    count, generator = 200, seeded(3)
    found = boxes(count, *size, probability, seeded(3))
    area = torch.empty(count, 100).uniform_(0.02, 1 / 3, generator=generator) * size[0] * size[1]
    ratio = torch.empty(count, 100).uniform_(math.log(0.3), math.log(1 / 0.3), generator=generator).exp()
    position, applies = torch.rand(2, count, generator=generator), torch.rand(count, generator=generator)
    for n in range(count):
        expected = naive_box(area[n], ratio[n], size, position[:, n])
        assert found[n].tolist() == (expected if applies[n] < probability else [0, 0, 0, 0])


def test_a_box_where_none_fits_is_empty():
    """In one pixel of height every box is as tall as the image, and an erased box must leave a row."""
    assert not boxes(50, 1, 400, 1.0, seeded()).any()
    assert not boxes(50, 400, 1, 1.0, seeded()).any()


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_inside_and_reach_every_edge(seed):
    top, left, tall, wide = boxes(3000, 20, 10, 1.0, seeded(seed)).T
    assert (tall < 20).all()
    assert (wide < 10).all()
    assert (top + tall).max() == 20
    assert (left + wide).max() == 10
    assert (top.min(), left.min()) == (0, 0)
    area = tall * wide / 200
    assert 0.01 <= area.min() < 0.02
    assert 0.33 < area.max() < 0.4


def naive_augment(images, flip, offset, pad, box, noise):
    """uint8 [R, 3, H, W], one pixel after another; normalized by 0.5."""
    count, _, height, width = images.shape
    out, used = np.zeros(images.shape, np.float64), 0
    for n in range(count):
        for y in range(height):
            for x in range(width):
                row, column = y + offset[n][0] - pad, x + offset[n][1] - pad
                if 0 <= row < height and 0 <= column < width:
                    out[n, :, y, x] = images[n, :, row, width - 1 - column if flip[n] else column]
        out[n] = out[n] / 255 / 0.5 - 1
        top, left, tall, wide = box[n]
        for c in range(3):
            for y in range(top, top + tall):
                for x in range(left, left + wide):
                    out[n, c, y, x] = noise[used]
                    used += 1
    return out


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("pad", [0, 3])
def test_an_augmented_batch_by_a_loop_over_pixels(together, pad):
    """The draws are flips, offsets, boxes, then noise, one of each for a sighting or for an image."""
    images = torch.randint(0, 256, (5, 2, 3, 12, 8), dtype=torch.uint8, generator=seeded(1))
    settings = Augmentation(flip=0.5, pad=pad, erase=0.7, share_draws=together)
    found = augment(images, settings, HALF, HALF, seeded(2))
    assert found.shape == images.shape
    generator = seeded(2)
    draws = 5 if together else 10
    flip = torch.rand(draws, generator=generator) < 0.5
    offset = torch.randint(0, 2 * pad + 1, (draws, 2), generator=generator)
    box = boxes(draws, 12, 8, 0.7, generator)
    repeated = [t.repeat_interleave(10 // draws, 0).tolist() for t in (flip, offset, box)]
    size = sum(3 * tall * wide for _, _, tall, wide in repeated[2])
    noise = torch.randn(size, generator=generator).tolist()
    expected = naive_augment(images.flatten(0, 1).numpy(), repeated[0], repeated[1], pad, repeated[2], noise)
    assert_allclose(found.flatten(0, 1), expected, atol=1e-5)
    assert any(map(any, repeated[2]))


@pytest.mark.parametrize("part", [slice(0, 2), slice(1, 4), slice(4, 5)])
@pytest.mark.parametrize(
    "changes", [{}, {"jitter": 0.3}, {"grey": 0.5}, {"grey_patch": 0.9}, {"augmix": 0.5}, {"tone": 0.5}]
)
def test_a_part_of_a_batch_with_each_change_alone(part, changes):
    images = torch.randint(0, 256, (5, 2, 3, 16, 8), dtype=torch.uint8, generator=seeded(1))
    settings = Augmentation(pad=1, erase=0.8, **changes)
    whole = augment(images, settings, MEAN, STD, seeded(4))
    found = augment(images[part], settings, MEAN, STD, seeded(4), (part, 5))
    assert torch.equal(found, whole[part])
    plain = augment(images, settings.model_copy(update=dict.fromkeys(changes, 0.0)), MEAN, STD, seeded(4))
    assert torch.equal(whole, plain) == (not changes)


def test_flips_of_probability_0_and_1():
    images = torch.randint(0, 256, (20, 1, 3, 4, 6), dtype=torch.uint8)
    for flip, expected in ((0.0, images), (1.0, images.flip(-1))):
        settings = Augmentation(flip=flip, pad=0, erase=0)
        found = augment(images, settings, MEAN, STD, seeded())
        assert torch.equal(found, normalize(expected[:, 0], MEAN, STD)[:, None])
    settings = Augmentation(flip=0.25, pad=0, erase=0)
    images = images.expand(20, 100, -1, -1, -1)
    found = augment(images, settings.model_copy(update={"share_draws": False}), HALF, HALF, seeded())
    plain = normalize(images.flatten(0, 1), HALF, HALF)
    assert (found.flatten(0, 1) != plain).flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("offset", [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (1, 3)])
def test_crops_at_the_ends_of_the_padding(offset):
    image = torch.arange(1, 1 + 3 * 6 * 5, dtype=torch.uint8).view(1, 3, 6, 5)
    found = flip_and_crop(image, torch.tensor([False]), torch.tensor([offset]), 2)
    padded = torch.zeros(3, 10, 9, dtype=torch.uint8)
    padded[:, 2:8, 2:7] = image[0]
    assert torch.equal(found[0], padded[:, offset[0] : offset[0] + 6, offset[1] : offset[1] + 5])


def test_offsets_reach_both_ends_of_the_padding():
    images = torch.full((400, 1, 3, 3, 3), 255, dtype=torch.uint8)
    found = augment(images, Augmentation(flip=0, pad=2, erase=0), HALF, HALF, seeded())[:, 0, 0] > 0  # [400, 3, 3]
    assert found[:, 0].any(1).logical_not().any()  # rows above
    patterns = {tuple(rows) for rows in found.any(2).tolist()}
    assert patterns == {
        (False, False, True), (False, True, True), (True, True, True), (True, True, False), (True, False, False),
    }  # fmt: skip


def test_normalization_by_hand():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    assert_allclose(normalize(images, MEAN, STD).flatten(), expected, rtol=1e-5)
    assert normalize(images, MEAN, STD).dtype == torch.float32


def test_noise_is_counted_and_used_box_after_box():
    box = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0], [1, 0, 1, 2]])
    assert _noise(box) == 3 * (6 + 0 + 2)
    assert _noise(box[:0]) == 0
    noise = torch.arange(1.0, 25.0)
    erased = erase(torch.zeros(3, 3, 3, 4), box, noise)
    assert torch.equal(erased[0, :, 0:2, 1:4].flatten(), noise[:18])
    assert torch.equal(erased[2, :, 1:2, 0:2].flatten(), noise[18:])
    assert (erased != 0).flatten(1).sum(1).tolist() == [18, 0, 6]


def test_colours_are_drawn_as_stated():
    """Factors, then grey, then the patches; each only where it is on."""
    settings = Augmentation(jitter=0.2, grey=0.3, grey_patch=0.6)
    drawn, generator = draw(300, 30, 16, settings, seeded(5)), seeded(5)
    factors = torch.rand(300, 3, generator=generator)
    assert_allclose(drawn["factors"], 1 + 0.2 * (2 * factors - 1), rtol=1e-6)
    assert torch.equal(drawn["grey"], torch.rand(300, generator=generator) < 0.3)
    side = torch.rand(300, generator=generator)
    position, applies = torch.rand(2, 300, generator=generator), torch.rand(300, generator=generator)
    for n in range(300):
        length = math.sqrt(0.02 + 0.38 * float(side[n]))
        tall, wide = int(length * 30), int(length * 16)
        top, left = int(position[0, n] * (31 - tall)), int(position[1, n] * (17 - wide))
        assert drawn["patch"][n].tolist() == ([top, left, tall, wide] if applies[n] < 0.6 else [0] * 4)
    off = draw(4, 30, 16, Augmentation(), seeded())
    assert off["factors"].tolist() == [[1.0] * 3] * 4
    assert not off["grey"].any()
    assert not off["patch"].any()
    assert off["patch"].shape == (4, 4)


def naive_jitter(image, brightness, contrast, saturation):
    """float64 [3, H, W], pixel by pixel."""

    def grey(x):
        return np.round(0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2])

    x = np.clip(image * brightness, 0, 255)
    x = np.clip(contrast * x + (1 - contrast) * grey(x).mean(), 0, 255)
    return np.round(np.clip(saturation * x + (1 - saturation) * grey(x), 0, 255))


@pytest.mark.parametrize(
    "factor", [(1.4, 1.0, 1.0), (0.6, 1.0, 1.0), (1.0, 1.5, 1.0), (1.0, 0.4, 1.0), (1.0, 1.0, 1.7), (1.2, 0.8, 0.3)]
)
def test_jitter_by_its_formula(factor):
    image = torch.randint(0, 256, (1, 3, 7, 5), dtype=torch.uint8, generator=seeded(1))
    expected = naive_jitter(image[0].numpy().astype(float), *factor)
    nothing = torch.zeros(1, 4, dtype=torch.int64)
    found = recolour(image.clone(), torch.tensor([factor]), torch.tensor([False]), nothing)
    assert abs(found[0].numpy() - expected).max() <= 1  # float32 rounds at halves the other way


def test_grey_after_jitter_and_a_patch_only_where_the_rest_is_not_grey():
    image = torch.randint(0, 256, (3, 3, 6, 5), dtype=torch.uint8, generator=seeded(2))
    patch = torch.tensor([[1, 2, 3, 2], [1, 2, 3, 2], [0, 0, 0, 0]])
    found = recolour(image.clone(), torch.ones(3, 3), torch.tensor([True, False, False]), patch)
    grey = (0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]).round().to(torch.uint8)
    assert torch.equal(found[0], grey[0].expand(3, -1, -1))
    inside = torch.zeros(6, 5, dtype=torch.bool)
    inside[1:4, 2:4] = True
    assert torch.equal(found[1], torch.where(inside, grey[1], image[1]))
    assert torch.equal(found[2], image[2])


def test_policies_are_drawn_as_stated():
    settings = Augmentation(autoaugment=0.6, augmix=0.3)
    drawn, generator = draw_policies(2000, settings, seeded(1)), seeded(1)
    auto, mix = (torch.rand(2000, generator=generator) < p for p in (0.6, 0.3))
    assert torch.equal(drawn[:, 0], torch.where(mix, 2, torch.where(auto, 1, 0)))  # AugMix instead
    assert torch.equal(drawn[:, 1], torch.randint(2**31, (2000,), generator=generator))
    only = draw_policies(50, Augmentation(augmix=1.0), seeded(1))
    assert only[:, 0].tolist() == [2] * 50
    images = torch.randint(0, 256, (6, 3, 16, 8), dtype=torch.uint8)
    none = torch.stack([torch.zeros(6, dtype=torch.int64), torch.arange(6)], 1)
    assert torch.equal(apply_policies(images.clone(), none), images)


def naive_epoch(identity, p, k, seed, number):
    """The batches by plain lists, from the same generator."""
    rng = np.random.default_rng((seed, number))
    groups = {}
    for i in sorted(set(identity)):
        rows = [row for row, other in enumerate(identity) if other == i]
        if len(rows) < k:
            rows += rng.choice(rows, k - len(rows)).tolist()
        rows = rng.permutation(rows).tolist()
        groups[i] = []
        while len(rows) >= k:
            groups[i].append(rows[:k])
            rows = rows[k:]
    batches = []
    while sum(map(bool, groups.values())) >= p:
        left = [i for i, remaining in groups.items() if remaining]
        batches.append([])
        for i in rng.choice(left, p, replace=False).tolist():
            batches[-1] += groups[i].pop()
    return batches


@pytest.mark.parametrize(("p", "k"), [(2, 2), (3, 4), (5, 3)])
def test_the_sampler_by_a_loop(p, k):
    sizes = [1, 2, 3, 4, 5, 8, 9, 12]
    identity = [i * 3 for i, n in enumerate(sizes) for _ in range(n)]
    np.random.default_rng(0).shuffle(identity)
    for number in (1, 2):
        assert PKSampler(identity, p, k, 7).epoch(number) == naive_epoch(identity, p, k, 7, number)


def test_as_many_identities_as_a_batch_has():
    sampler = PKSampler([0, 0, 1, 1, 1, 1], 2, 2, 0)
    (batch,) = sampler.epoch(1)
    assert sorted(batch)[:2] == [0, 1]
    assert len(batch) == 4
    short = PKSampler([0, 1], 2, 3, 0).epoch(1)  # every identity is repeated
    assert [sorted(set(rows)) for rows in (short[0][:3], short[0][3:])] in ([[0], [1]], [[1], [0]])


def test_every_identity_is_drawn_once_where_all_have_one_group():
    identity = [i for i in range(12) for _ in range(4)]
    batches = PKSampler(identity, 4, 4, 0).epoch(5)
    assert len(batches) == 3
    assert sorted(row for batch in batches for row in batch) == list(range(48))


def test_numbers_of_labels():
    known = ("a", "b", "c")
    numbers = label_numbers(["c", None, "x", "a"], known)
    assert numbers.tolist() == [2, -1, -1, 0]
    assert numbers.dtype == torch.int64
    assert label_numbers([], known).tolist() == []
    assert Vocabulary(("x",), ("1", "2"), ("front",), ("rgb", "nir", "tir")).counts == {
        "camera": 2, "view": 1, "modality": 3,
    }  # fmt: skip


def test_curves_of_levels_by_loops():
    curves, generator = draw_curves(400, 0.6, seeded(3)), seeded(3)
    knots = torch.randint(0, 256, (400, 3, 6), generator=generator)
    changed, is_grey = torch.rand(2, 400, generator=generator)
    for n in range(400):
        for channel in range(3):
            levels = knots[n, 0 if is_grey[n] < 0.5 else channel].tolist()
            expected = np.interp(np.arange(256) / 51, range(6), levels) if changed[n] < 0.6 else np.arange(256)
            assert np.abs(curves[n, channel].numpy() - expected).max() <= 0.501
    assert (changed < 0.6).float().mean() == pytest.approx(0.6, abs=0.06)
    images = torch.randint(0, 256, (400, 3, 4, 5), dtype=torch.uint8, generator=seeded(4))
    found = apply_curves(images, curves)
    for n, channel, row, column in ((0, 0, 0, 0), (17, 1, 3, 4), (399, 2, 1, 2), (250, 0, 2, 0)):
        level = int(images[n, channel, row, column])
        assert found[n, channel, row, column] == curves[n, channel, level]
    images = images[:, :1].expand(-1, 3, -1, -1)
    stays_grey = (apply_curves(images, curves) == apply_curves(images, curves)[:, :1]).flatten(1).all(1)
    assert torch.equal(stays_grey, (is_grey < 0.5) | (changed >= 0.6))


def test_modalities_of_a_sighting_have_curves_of_their_own():
    image = torch.randint(0, 256, (30, 1, 3, 8, 8), dtype=torch.uint8, generator=seeded(6))
    images = image.expand(-1, 2, -1, -1, -1)
    settings = Augmentation(flip=0.5, pad=0, erase=0, tone=1.0)
    found = augment(images, settings, HALF, HALF, seeded(7))
    assert not (found[:, 0] == found[:, 1]).flatten(1).all(1).any()
