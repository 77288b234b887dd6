"""Decoding, sampling and augmentation against plain versions of themselves."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from resight.config.sections import Augmentation
from resight.data.augment.augment import (
    _erase_scatter,
    _flip_and_crop_each,
    _flip_and_crop_gather,
    augment,
    boxes,
    erase,
    flip_and_crop,
    normalize,
)
from resight.data.augment.colour import draw, recolour
from resight.data.augment.policy import apply_policies, draw_policies
from resight.data.image import corrupt, decode, resize
from resight.data.loader import Loader
from resight.data.sampler import PKSampler
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError, DatasetError, PictureError


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_decodes_as_pillow_does(tmp_path, suffix):
    path = picture(tmp_path / f"a{suffix}")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(path).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_decodes_every_mode_to_three_channels(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    Image.new("RGB", (8, 6), (200, 30, 60)).convert(mode).save(path)
    assert decode(path).shape == (3, 6, 8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizes_as_pillow_does(tmp_path, interpolation):
    path = picture(tmp_path / "a.png", size=(61, 120))
    with Image.open(path) as image:
        plain = image.resize((64, 128), Image.Resampling[interpolation.upper()])
    found = resize(decode(path), (128, 64), interpolation).permute(1, 2, 0).numpy().astype(int)
    assert abs(found - np.asarray(plain).astype(int)).max() <= 1


def broken(folder: Path) -> dict[str, Path]:
    whole = picture(folder / "whole.jpg", size=(64, 128)).read_bytes()
    png = io.BytesIO()
    Image.open(io.BytesIO(whole)).save(png, "PNG")
    files = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"this is no picture at all",
        "cut-png": png.getvalue()[:200],
    }
    for name, content in files.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return {name: folder / f"{name}.jpg" for name in files}


@pytest.mark.parametrize(
    ("kind", "says"),
    [("empty", "is empty"), ("cut", "is cut short"), ("text", "is no picture"), ("cut-png", "is cut short")],
)
def test_names_a_corrupt_picture(tmp_path, kind, says):
    path = broken(tmp_path)[kind]
    with pytest.raises(PictureError, match=says) as raised:
        decode(path)
    assert str(path) in str(raised.value)


def test_finds_every_corrupt_picture(tmp_path):
    files = [*broken(tmp_path).values(), tmp_path / "missing.jpg", tmp_path / "whole.jpg"]
    assert [path for path, _ in corrupt(files)] == files[:-1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(2, 4), st.integers(2, 4), st.integers(0, 99))
def test_sampler_deals_p_by_k(sizes, p, k, seed):
    identity = [i for i, n in enumerate(sizes) for _ in range(n)]
    if len(sizes) < p:
        with pytest.raises(ConfigError, match=rf"batches of {p} x {k} .* are not possible.*{len(sizes)} identities"):
            PKSampler(identity, p, k, seed)
        return
    sampler = PKSampler(identity, p, k, seed)
    batches = sampler.epoch(1)
    assert batches == PKSampler(identity, p, k, seed).epoch(1)
    uses = Counter(row for batch in batches for row in batch)
    for batch in batches:
        assert len(batch) == p * k
        of = [identity[row] for row in batch]
        assert len(set(of)) == p
        assert all(len(set(of[i : i + k])) == 1 for i in range(0, p * k, k))
    for row, n in uses.items():
        assert n == 1 or sizes[identity[row]] < k  # only too small an identity is drawn twice


def test_sampler_differs_by_epoch_and_seed():
    identity = [i for i in range(8) for _ in range(8)]
    sampler = PKSampler(identity, 4, 4, 0)
    assert sampler.epoch(1) != sampler.epoch(2)
    assert sampler.epoch(1) != PKSampler(identity, 4, 4, 1).epoch(1)


def test_flip_and_crop_equals_pillow():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (6, 3, 10, 7), dtype=np.uint8))
    flip = torch.tensor([True, False] * 3)
    offset = torch.from_numpy(rng.integers(0, 5, (6, 2)))
    found = flip_and_crop(images, flip, offset, 2)
    for i in range(6):
        image = Image.fromarray(images[i].permute(1, 2, 0).numpy())
        image = ImageOps.mirror(image) if flip[i] else image
        top, left = offset[i].tolist()
        plain = ImageOps.expand(image, 2).crop((left, top, left + 7, top + 10))
        assert np.array_equal(found[i].permute(1, 2, 0).numpy(), np.asarray(plain))


def test_normalise_equals_the_formula():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalize(images, mean, std), plain, rtol=1e-5, atol=1e-5)


def test_boxes_have_the_wanted_area_aspect_and_place():
    box = boxes(4000, 256, 128, 0.5, torch.Generator().manual_seed(0)).double()
    some = box[box[:, 2] > 0]
    assert 0.46 < len(some) / len(box) < 0.54
    area = some[:, 2] * some[:, 3] / (256 * 128)
    assert area.min() > 0.018
    assert area.max() < 0.345
    aspect = some[:, 2] / some[:, 3]
    assert aspect.min() > 0.28
    assert aspect.max() < 3.6
    assert (some[:, 0] + some[:, 2]).max() <= 256
    assert (some[:, 1] + some[:, 3]).max() <= 128


def test_erase_fills_just_the_box():
    images = torch.zeros(2, 3, 6, 5)
    box = torch.tensor([[1, 2, 3, 2], [0, 0, 0, 0]])
    noise = torch.randn(int(3 * box[:, 2:].prod(1).sum()), generator=torch.Generator().manual_seed(0))
    found = erase(images, box, noise)
    inside = torch.zeros(6, 5, dtype=torch.bool)
    inside[1:4, 2:4] = True
    assert (found[0, :, inside] != 0).all()
    assert (found[0, :, ~inside] == 0).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize("together", [True, False])
def test_modalities_are_moved_together_or_apart(together):
    picture_ = torch.randint(0, 256, (1, 1, 3, 16, 12), dtype=torch.uint8)
    same = picture_.expand(8, 3, -1, -1, -1)
    options = Augmentation(erase=0, pad=4, share_draws=together)
    found = augment(same, options, (0.5,) * 3, (0.5,) * 3, torch.Generator().manual_seed(0))
    assert all(torch.equal(s[0], s[1]) and torch.equal(s[0], s[2]) for s in found) == together
    assert not torch.equal(found[0], found[1])


def test_without_augmentation_only_normalises():
    images = torch.randint(0, 256, (2, 2, 3, 8, 6), dtype=torch.uint8)
    options = Augmentation(flip=0, pad=0, erase=0)
    found = augment(images, options, (0.5,) * 3, (0.5,) * 3, torch.Generator().manual_seed(0))
    assert torch.equal(found, normalize(images.flatten(0, 1), (0.5,) * 3, (0.5,) * 3).unflatten(0, (2, 2)))


def test_batch_keeps_an_absent_modality_absent(tmp_path):
    a, b = picture(tmp_path / "a.png", 1), picture(tmp_path / "b.png", 2)
    table = SightingTable.of(
        [Sighting({"rgb": a, "tir": b}, identity="x"), Sighting({"tir": b}, identity="y", camera="q")]
    )
    loader = Loader(table, Vocabulary(("x",), ("c",), (), ("rgb", "tir")), (64, 32), "bilinear")
    batch = next(iter(loader.batches([[0, 1]])))
    assert batch.present.tolist() == [[True, True], [False, True]]
    assert not batch.images[1, 0].any()
    assert batch.identity.tolist() == [0, -1]  # y was never seen in training, nor camera q
    assert batch.camera.tolist() == [-1, -1]
    assert batch.side_info()["modality"].tolist() == [0, 1, 1]


@pytest.mark.parametrize("pad", [0, 3])
def test_the_batched_kernels_of_a_gpu_give_the_same_pixels(pad):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 24, 12), dtype=torch.uint8)
    flip, offset = torch.rand(20) < 0.5, torch.randint(0, 2 * pad + 1, (20, 2))
    each = _flip_and_crop_each(images, flip, offset, pad)
    assert torch.equal(each, _flip_and_crop_gather(images, flip, offset, pad))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    scale = torch.tensor(std).mul(255).reciprocal().view(1, 3, 1, 1)
    normal = normalize(each, mean, std)
    assert torch.equal(normal, each * scale - (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1))
    box = boxes(20, 24, 12, 0.7, generator)
    noise = torch.randn(int(3 * box[:, 2:].prod(1).sum()), generator=torch.Generator().manual_seed(1))
    together = _erase_scatter(normal, box, noise)
    assert torch.equal(erase(normal.clone(), box, noise), together)
    assert not torch.equal(together, normal)


def test_colours_are_changed_as_pillow_does():
    pixels = torch.randint(0, 256, (1, 3, 9, 7), dtype=torch.uint8)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    off = {"factors": torch.ones(1, 3), "grey": torch.tensor([False]), "patch": torch.zeros(1, 4, dtype=torch.int64)}
    for n, kind in enumerate((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)):
        factors = torch.ones(1, 3)
        factors[0, n] = 1.3
        found = recolour(pixels.clone(), **{**off, "factors": factors})[0]
        expected = torch.from_numpy(np.array(kind(image).enhance(1.3))).permute(2, 0, 1)
        assert (found.int() - expected.int()).abs().max() <= 2  # Pillow cuts where we round
    grey = recolour(pixels.clone(), **{**off, "grey": torch.tensor([True])})[0]
    assert (grey.int() - torch.from_numpy(np.array(image.convert("L"))).int()).abs().max() <= 1
    assert torch.equal(recolour(pixels.clone(), **off), pixels)
    box = recolour(pixels.clone(), **{**off, "patch": torch.tensor([[2, 1, 4, 3]])})[0]
    assert torch.equal(box[:, 2:6, 1:4], grey[:, 2:6, 1:4])
    box[:, 2:6, 1:4] = pixels[0, :, 2:6, 1:4]
    assert torch.equal(box, pixels[0])


def test_colour_draws_follow_their_settings():
    count, size = 4000, (40, 20)
    settings = Augmentation(jitter=0.2, grey=0.1, grey_patch=0.5)
    drawn = draw(count, *size, settings, torch.Generator().manual_seed(0))
    assert 0.8 <= drawn["factors"].min() < 0.81
    assert 1.19 < drawn["factors"].max() <= 1.2
    assert drawn["grey"].float().mean() == pytest.approx(0.1, abs=0.02)
    top, left, tall, wide = drawn["patch"][drawn["patch"][:, 2] > 0].T
    assert len(top) / count == pytest.approx(0.5, abs=0.03)
    assert (top + tall).max() <= size[0]
    assert (left + wide).max() <= size[1]
    area = (tall * wide).float() / (size[0] * size[1])
    assert area.max() <= 0.4
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    draw(count, *size, Augmentation(), generator)
    assert torch.equal(generator.get_state(), before)  # what is off draws nothing


@pytest.mark.parametrize("together", [True, False])
def test_a_share_of_a_batch_is_drawn_as_in_the_whole(together):
    images = torch.randint(0, 256, (9, 2, 3, 24, 12), dtype=torch.uint8)
    colours = {"jitter": 0.3, "grey": 0.3, "grey_patch": 0.5, "autoaugment": 0.4, "augmix": 0.2}
    settings = Augmentation(pad=2, erase=0.8, **colours, share_draws=together)

    def drawn(part):
        generator = torch.Generator().manual_seed(5)
        return augment(images[part], settings, (0.5,) * 3, (0.5,) * 3, generator, (part, 9))

    whole = augment(images, settings, (0.5,) * 3, (0.5,) * 3, torch.Generator().manual_seed(5))
    assert torch.equal(torch.cat([drawn(slice(0, 4)), drawn(slice(4, 9))]), whole)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


def table_of(folder, count=7):
    """Sightings that lack one modality or the other."""
    rows = []
    for n in range(count):
        images = {m: picture(folder / f"{n}{m}.jpg", n, size=(40, 90)) for m in ("rgb", "tir") if n % 3 != len(m) % 2}
        rows.append(Sighting(images or {"rgb": picture(folder / f"{n}.png", n)}, identity=str(n)))
    return SightingTable.of(rows)


def test_packed_pictures_equal_decoded_ones(tmp_path, cached):
    table = table_of(tmp_path)
    plain, packed = (Loader(table, Vocabulary.of(table), (64, 32), "bicubic") for _ in range(2))
    reported = []
    packed.pack(reported.append)
    assert reported == list(range(1, len(packed.files) + 1))
    rows = [[0, 1, 2], [6, 3, 3], [5, 4]]
    for a, b in zip(plain.batches(rows), packed.batches(rows), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))
    again = Loader(table, Vocabulary.of(table), (64, 32), "bicubic")
    again.pack(lambda done: pytest.fail("packed a second time"))
    (file,) = cached.glob("*.u8")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_changed_picture_size_or_filter_is_packed_again(tmp_path, cached):
    table = table_of(tmp_path)
    for n, (size, how) in enumerate([((64, 32), "bicubic"), ((32, 32), "bicubic"), ((64, 32), "bilinear")], start=1):
        Loader(table, Vocabulary.of(table), size, how).pack()
        assert len(list(cached.glob("*.u8"))) == n
    picture(tmp_path / "0rgb.jpg", 99, size=(50, 50))
    loader = Loader(table, Vocabulary.of(table), (64, 32), "bicubic")
    loader.pack()
    assert len(list(cached.glob("*.u8"))) == 4
    fresh = next(iter(Loader(table, Vocabulary.of(table), (64, 32), "bicubic").batches([[0]])))
    assert torch.equal(next(iter(loader.batches([[0]]))).images, fresh.images)


def test_a_corrupt_picture_leaves_no_partial_cache(tmp_path, cached):
    table = table_of(tmp_path)
    loader = Loader(table, Vocabulary.of(table), (64, 32), "bicubic")
    loader.files[4].write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(PictureError, match=loader.files[4].name):
        loader.pack()
    assert not list(cached.glob("*.u8"))
    assert not list(cached.glob("*.partial"))


def test_processes_that_pack_at_once_pack_once(tmp_path, cached):
    from concurrent.futures import ThreadPoolExecutor

    table = table_of(tmp_path)
    loaders = [Loader(table, Vocabulary.of(table), (64, 32), "bicubic") for _ in range(4)]
    reported = []
    with ThreadPoolExecutor(4) as pool:  # locks are between open files, so threads stand for processes
        list(pool.map(lambda loader: loader.pack(reported.append), loaders))
    assert len(reported) == len(loaders[0].files)
    assert all(torch.equal(loader.packed, loaders[0].packed) for loader in loaders)


def test_cleaning_removes_what_was_packed(tmp_path, cached, capsys):
    from resight.cli import main

    table = table_of(tmp_path)
    Loader(table, Vocabulary.of(table), (64, 32), "bicubic").pack()
    assert main(["data", "clean"]) == 0
    assert f"1 packed training sets removed from {cached}" in capsys.readouterr().out
    assert not list(cached.iterdir())


def test_a_sighting_without_a_known_modality_is_refused(tmp_path):
    table = SightingTable.of([Sighting({"tir": picture(tmp_path / "a.png")})])
    with pytest.raises(DatasetError, match="sighting 0 has only tir, and the model was trained on rgb"):
        Loader(table, Vocabulary(), (64, 32), "bilinear")


def test_policies_change_some_pictures_and_no_other_draw():
    images = torch.randint(0, 256, (40, 3, 24, 12), dtype=torch.uint8)
    for name in ("autoaugment", "augmix"):
        settings = Augmentation(**{name: 0.5})
        drawn = draw_policies(40, settings, torch.Generator().manual_seed(0))
        before = torch.get_rng_state()
        once, again = (apply_policies(images.clone(), drawn) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(once, again)  # a seed each: wherever it is drawn, it is the same
        changed = (once != images).flatten(1).any(1)
        assert not changed[drawn[:, 0] == 0].any()
        assert 8 <= changed.sum() <= 32
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert not draw_policies(40, Augmentation(), generator).any()
    assert torch.equal(generator.get_state(), before)
