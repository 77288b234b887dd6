"""Boxes of a frame, as a tracker hands them over."""

import numpy as np
import pytest
from conftest import small_model
from numpy.testing import assert_allclose, assert_array_equal

import resight
from resight.errors import PictureError


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
