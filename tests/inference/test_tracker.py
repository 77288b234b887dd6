"""Boxes of a frame, as a tracker hands them over."""

import numpy as np
import pytest
from conftest import small_model
from inference_helpers import card_of, short_embedder
from numpy.testing import assert_allclose, assert_array_equal

import resight
from resight import TrackerFeatures
from resight.errors import ConfigError, PictureError


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return resight.load(small_model(tmp_path_factory.mktemp("model") / "m"), "cpu", "fp32")


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


BOXES = np.array([[10.2, 5.0, 40.9, 80.5], [-20, -20, 30, 95], [200, 10, 240, 50], [50, 50, 50, 60]])


def test_a_row_for_each_box(embedder, frame):
    features = resight.TrackerFeatures(embedder, camera="c2")(frame, BOXES)
    rgb = frame[..., ::-1]
    assert_allclose(features[:2], embedder.embed([rgb[5:81, 10:41], rgb[0:90, 0:30]], camera="c2"), atol=1e-5)
    assert features.dtype == np.float32
    assert not features[2:].any()
    assert_array_equal(resight.TrackerFeatures(embedder, "c2", bgr=False)(rgb, BOXES), features)
    other = resight.TrackerFeatures(embedder, camera="c1")(frame, BOXES)
    assert_allclose(other[:2], embedder.embed([rgb[5:81, 10:41], rgb[0:90, 0:30]], camera="c1"), atol=1e-5)
    assert abs(other - features).max() > 1e-3  # the camera's side information


def test_no_boxes(embedder, frame):
    features = resight.TrackerFeatures(embedder)
    for nothing in (np.zeros((0, 4)), np.zeros((0, 6)), []):
        assert features(frame, nothing).shape == (0, embedder.width)
    assert not features(frame, BOXES[2:]).any()


def test_columns_after_the_box_are_left_alone(embedder, frame):
    features = resight.TrackerFeatures(embedder)
    scored = np.concatenate([BOXES, np.full((4, 2), np.nan)], axis=1)
    assert_array_equal(features(frame, scored), features(frame, BOXES))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, np.nan, 1]], "finite numbers"),
        ([[0, 0, np.inf, 1]], "finite numbers"),
        ([[0, 0, 5]], "finite numbers"),
        ([1, 2, 3, 4], "finite numbers"),
    ],
)
def test_boxes_of_another_form(embedder, frame, boxes, message):
    with pytest.raises(PictureError, match=message):
        resight.TrackerFeatures(embedder)(frame, np.array(boxes))


def test_frames_of_another_form(embedder, frame):
    for bad in (frame[..., 0], frame.astype(np.float32), frame[..., :2]):
        with pytest.raises(PictureError, match="a frame must be"):
            resight.TrackerFeatures(embedder)(bad, BOXES)


def test_registered_frames_are_cut_alike_and_embedded_as_sightings():
    embedder = short_embedder(card_of(modalities=("rgb", "tir"), sie=("modality",), fusion="gate"))
    rng = np.random.default_rng(0)
    frames = {name: rng.integers(0, 256, (90, 120, 3), dtype=np.uint8) for name in ("rgb", "tir")}
    boxes = np.array([[10, 20, 50, 80], [200, 0, 220, 50], [60.5, -5, 130, 40]])
    features = TrackerFeatures(embedder, bgr=False)(frames, boxes)
    parts = [(slice(20, 80), slice(10, 50)), (slice(0, 40), slice(60, 120))]
    expected = embedder.embed([{name: frame[part] for name, frame in frames.items()} for part in parts])
    assert_allclose(features[[0, 2]], expected, atol=1e-6)
    assert not features[1].any()
    alone = TrackerFeatures(embedder, bgr=False)({"tir": frames["tir"]}, boxes[:1])
    assert_allclose(alone, embedder.embed(frames["tir"][parts[0]], modality="tir"), atol=1e-6)


def test_frames_that_are_not_registered_are_refused():
    embedder = short_embedder(card_of(modalities=("rgb", "tir"), sie=("modality",), fusion="gate"))
    features = TrackerFeatures(embedder)
    frame, box = np.zeros((90, 120, 3), np.uint8), np.array([[0, 0, 10, 10]])
    with pytest.raises(PictureError, match="registered frames must have one size: rgb 120 x 90, tir 60 x 90"):
        features({"rgb": frame, "tir": frame[:, :60]}, box)
    with pytest.raises(PictureError, match="the tir frame must be uint8"):
        features({"rgb": frame, "tir": frame.astype(np.uint16)}, box)
    with pytest.raises(PictureError, match="there is no frame"):
        features({}, box)
    with pytest.raises(ConfigError, match="knows no modality 'nir'"):
        features({"nir": frame}, box)
