"""One model at hand: pictures of any form, labels known or not, a tracker's boxes."""

import numpy as np
import pytest
import torch
from conftest import picture, small_model
from numpy.testing import assert_allclose
from PIL import Image
from torch.nn import functional as F

import resight
from resight.config.sections import Model, Preprocessing
from resight.data.augment.augment import normalize
from resight.data.image import decode, resize
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError, ConfigError, PictureError
from resight.models.blocks import fold_and_cast_weights
from resight.models.checkpoint import ModelCard, fingerprint_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("model") / "m"
    return small_model(at, modalities=("rgb", "tir"), sie=("camera", "modality"), jpm=True)


@pytest.fixture(scope="module")
def model(folder):
    return resight.load(folder, "cpu", "fp32")


@pytest.fixture
def paths(tmp_path):
    return [picture(tmp_path / f"{n}.png", n, size=(30 + n, 70)) for n in range(5)]


def naive(model, path, camera, modality):
    """One picture by itself; the label's number, or -1."""
    x = resize(decode(path), (64, 32), "bilinear")[None]
    x = normalize(x, model.card.preprocessing.mean, model.card.preprocessing.std)
    with torch.no_grad():
        return F.normalize(
            model.model.embed(x, {"camera": torch.tensor([camera]), "modality": torch.tensor([modality])})
        )[0]


def test_pictures_of_any_form_give_the_same(model, paths):
    expected = naive(model, paths[1], 0, 0).numpy()
    image = Image.open(paths[1]).convert("RGB")
    array = np.array(image)
    forms = [paths[1], str(paths[1]), paths[1].read_bytes(), image, array, torch.from_numpy(array).permute(2, 0, 1)]
    for form in forms:
        found = model.embed(form, camera="c1")
        assert (found.shape, found.dtype) == ((1, model.width), np.float32)
        assert_allclose(found[0], expected, atol=1e-5)
    assert_allclose(model.embed(forms, camera="c1"), np.repeat(expected[None], 6, 0), atol=1e-5)


def test_each_picture_has_its_own_labels(model, paths):
    found = model.embed(paths, camera=["c1", "c2", None, "c9", "c2"], modality=["rgb", "tir", "tir", "rgb", None])
    for row, path, camera, modality in zip(found, paths, (0, 1, -1, -1, 1), (0, 1, 1, 0, -1), strict=True):
        assert_allclose(row, naive(model, path, camera, modality), atol=1e-5)
    assert model.embed([]).shape == (0, model.width)


def test_what_is_not_known_is_the_mean_or_nothing(folder, paths):
    mean, off = resight.load(folder, "cpu", "fp32"), resight.load(folder, "cpu", "fp32", unknown="off")
    told = [m.embed(paths, camera="c2") for m in (mean, off)]
    assert_allclose(told[0], told[1], atol=1e-6)
    without = off.embed(paths)
    assert abs(without - mean.embed(paths)).max() > 1e-3
    off.model.backbone.sie.table.data.zero_()
    assert_allclose(off.embed(paths, camera="c1"), without, atol=1e-5)


def test_side_information_can_be_left_out_in_training_at_random():
    from resight.models.sie import SIE

    torch.manual_seed(0)
    side_info = SIE({"camera": 3}, 4, 1.0, dropout=0.3)
    labels = {"camera": torch.arange(3000) % 3}
    found = side_info.train()(labels)[:, 0]
    mean = side_info.table.mean(0)
    hidden = (found - mean).abs().amax(1) < 1e-6
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(found[~hidden], side_info.table[labels["camera"]][~hidden])
    torch.testing.assert_close(side_info.eval()(labels)[:, 0], side_info.table[labels["camera"]])


def test_mirror_images_and_bf16(folder, model, paths):
    flipped = [np.array(Image.open(p).convert("RGB"))[:, ::-1] for p in paths]
    both = F.normalize(torch.from_numpy(model.embed(paths) + model.embed(flipped))).numpy()
    assert_allclose(
        resight.load(folder, "cpu", "fp32", flip=True).embed(paths), both, atol=2e-3
    )  # resized after, not before
    low = resight.load(folder, "cpu", "bf16").embed(paths)
    assert (low * model.embed(paths)).sum(1).min() > 0.999


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch14_dinov2", "resnet50"])
def test_weights_in_sixteen_bits_give_what_autocast_gives(backbone, tmp_path):
    """With layer scales taken into them, where there are some."""
    settings = {} if backbone == "resnet50" else {"jpm": True, "sie": ("camera",)}
    preprocessing = Preprocessing(size=(64, 32) if backbone != "vit_small_patch14_dinov2" else (56, 28))
    torch.manual_seed(0)
    card = ModelCard(
        model=Model(backbone=backbone, **settings),
        preprocessing=preprocessing,
        vocabulary=Vocabulary(("a",), ("c", "d")),
    )
    network = card.build().eval()
    for name, value in network.named_parameters():
        if name.endswith("gamma"):
            value.data.normal_(1, 0.3)
    x, labels = torch.randn(3, 3, *preprocessing.size), torch.tensor([0, 1, -1])
    side_info = {"camera": labels, "view": -torch.ones_like(labels), "modality": torch.zeros_like(labels)}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = network.embed(x, side_info)
        fold_and_cast_weights(network.backbone, torch.bfloat16)
        assert_allclose(network.embed(x, side_info), expected, atol=1e-6)
    assert not [name for name, _ in network.named_parameters() if name.endswith("gamma")]


@pytest.mark.slow
def test_compiled_it_gives_the_same(folder, paths):
    """A batch of 3 is filled up to 4."""
    compiled = resight.load(folder, "cpu", "bf16", compile=True)
    plain = resight.load(folder, "cpu", "fp32").embed(paths[:3], camera=["c1", None, "c2"])
    assert (compiled.embed(paths[:3], camera=["c1", None, "c2"]) * plain).sum(1).min() > 0.999


def test_more_pictures_than_a_batch_and_a_device_without_memory(folder, paths, monkeypatch):
    model = resight.load(folder, "cpu", "fp32")
    many = [paths[n % 5] for n in range(70)]
    expected = model.embed(paths)[np.arange(70) % 5]
    assert_allclose(model.embed(many), expected, atol=1e-5)
    real = model.model.embed

    def small(x, side_info):
        if len(x) > 9:
            raise torch.OutOfMemoryError("no more")
        return real(x, side_info)

    monkeypatch.setattr(model, "_network", small)
    assert_allclose(model.embed(many), expected, atol=1e-5)
    assert model._batch <= 9
    assert_allclose(model.embed(many), expected, atol=1e-5)


def test_what_is_no_picture_is_named(model, tmp_path):
    (tmp_path / "x.jpg").write_text("no")
    for bad, says in (
        (tmp_path / "x.jpg", "x.jpg is no picture"),
        (np.zeros((4, 4)), "uint8 .h, w, 3. in RGB, not float64"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "uint8 .3, h, w. in RGB"),
        (b"", "is empty"),
    ):
        with pytest.raises(PictureError, match=says):
            model.embed(bad)
    fine = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ConfigError, match="no modality 'nir', only rgb, tir"):
        model.embed(fine, modality="nir")
    with pytest.raises(ConfigError, match="2 labels of camera are given for 1 pictures"):
        model.embed([fine], camera=["c1", "c2"])


def test_a_fingerprint_is_of_weights_and_card(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint_of(copy) == fingerprint_of(folder) == resight.load(folder).fingerprint
    card = copy / "config.json"
    card.write_text(card.read_text().replace("bilinear", "bicubic"))
    assert fingerprint_of(copy) != fingerprint_of(folder)
    with pytest.raises(CheckpointError, match="is no model folder"):
        resight.load(tmp_path)


def test_boxes_of_a_frame(model):
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    boxes = np.array([[10.2, 5.0, 40.9, 80.5], [-20, -20, 30, 95], [200, 10, 240, 50], [50, 50, 50, 60]])
    features = resight.TrackerFeatures(model, camera="c2")
    found = features(frame, boxes)
    rgb = frame[..., ::-1]
    assert_allclose(found[:2], model.embed([rgb[5:81, 10:41], rgb[0:90, 0:30]], camera="c2"), atol=1e-5)
    assert not found[2:].any()
    assert features(frame, np.zeros((0, 4))).shape == (0, model.width)
    assert features(frame, []).shape == (0, model.width)
    assert_allclose(resight.TrackerFeatures(model, "c2", bgr=False)(rgb, boxes), found, atol=1e-6)
    with pytest.raises(PictureError, match="finite numbers"):
        features(frame, np.array([[0, 0, np.nan, 1]]))
    with pytest.raises(PictureError, match="a frame must be"):
        features(frame[..., 0], boxes)
