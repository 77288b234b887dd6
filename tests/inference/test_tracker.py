"""Boxes of a frame, as a tracker hands them over."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
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
REGIONS = [(slice(5, 81), slice(10, 41)), (slice(0, 90), slice(0, 30)), (slice(10, 50), slice(119, 120)),
           (slice(50, 60), slice(50, 51))]  # fmt: skip
"""The pixels of each box of BOXES: the third is outside, the fourth has no width."""


def test_a_row_for_each_box(embedder, frame):
    features = resight.TrackerFeatures(embedder, camera="c2")(frame, BOXES)
    rgb = frame[..., ::-1]
    assert_allclose(features, embedder.embed([rgb[region] for region in REGIONS], camera="c2"), atol=1e-5)
    assert features.dtype == np.float32
    assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert_array_equal(resight.TrackerFeatures(embedder, "c2", bgr=False)(rgb, BOXES), features)
    other = resight.TrackerFeatures(embedder, camera="c1")(frame, BOXES)
    assert_allclose(other, embedder.embed([rgb[region] for region in REGIONS], camera="c1"), atol=1e-5)
    assert abs(other - features).max() > 1e-3  # the camera's side information


def test_no_boxes(embedder, frame):
    features = resight.TrackerFeatures(embedder)
    for nothing in (np.zeros((0, 4)), np.zeros((0, 6)), []):
        assert features(frame, nothing).shape == (0, embedder.width)


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
    parts = [(slice(20, 80), slice(10, 50)), (slice(0, 50), slice(119, 120)), (slice(0, 40), slice(60, 120))]
    expected = embedder.embed([{name: frame[part] for name, frame in frames.items()} for part in parts])
    assert_allclose(features, expected, atol=1e-6)
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


OUTSIDE = [
    [-30, 5, -10, 40], [130, 5, 150, 40], [5, -40, 30, -1], [5, 90, 30, 140], [-9, -9, -1, -1], [500, 500, 600, 600],
    [30, 60, 10, 80], [30, 60, 40, 20], [120, 90, 120, 90], [0, 0, 0, 0], [1e9, 1e9, 1e9, 1e9],
]  # fmt: skip


@pytest.mark.parametrize("box", OUTSIDE)
def test_a_box_without_pixels_takes_the_nearest(embedder, frame, box):
    """By a loop: of all columns (and rows) of the frame, those nearest to the box."""

    def nearest(low, high, size):
        low, high = int(np.floor(low)), int(np.ceil(high))
        inside = [n for n in range(size) if low <= n < high]
        return inside or [min(range(size), key=lambda n: abs(n - low))]

    rows, columns = nearest(box[1], box[3], 90), nearest(box[0], box[2], 120)
    crop = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, ::-1]
    features = TrackerFeatures(embedder)(frame, [box])
    assert_allclose(features, embedder.embed([crop]), atol=1e-5)
    assert np.linalg.norm(features[0]) == pytest.approx(1, abs=1e-5)


class RoboflowCaller:
    """Asks for embeddings as roboflow's trackers ask their `reid` models."""

    def __init__(self, model):
        self.model = model

    def update(self, detections, frame):
        return self.model.extract_embeddings(detections, frame, batch_size=2)


@dataclass
class Detections:
    xyxy: np.ndarray
    data: dict[str, Any]


def test_detections_of_roboflow(embedder, frame):
    expected = TrackerFeatures(embedder)(frame, BOXES)
    for bgr in (True, False):  # the frame of a hook is BGR, whatever a plain call takes
        detections = Detections(BOXES, {"class_name": np.array(list("abcd"))})
        features = RoboflowCaller(TrackerFeatures(embedder, bgr=bgr)).update(detections, frame)
        assert_allclose(features, expected, atol=1e-5)
        assert detections.data["embedding"] is features
        assert list(detections.data["class_name"]) == list("abcd")
    none = Detections(np.zeros((0, 4)), {})
    assert TrackerFeatures(embedder).extract_embeddings(none, frame).shape == (0, embedder.width)
    assert none.data["embedding"].shape == (0, embedder.width)
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, not 0"):
        TrackerFeatures(embedder).extract_embeddings(none, frame, batch_size=0)


def test_the_batch_size_is_an_upper_bound(embedder, frame):
    counts = []

    class Counting:
        width = 4

        def embed(self, images, camera):
            counts.append(len(images))
            return np.ones((len(images), 4), np.float32)

    many = Detections(np.tile(BOXES, (3, 1)), {})
    assert TrackerFeatures(Counting()).extract_embeddings(many, frame, batch_size=5).shape == (12, 4)
    assert counts == [5, 5, 2]


def test_detections_of_supervision(embedder, frame):
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    detections = sv.Detections(xyxy=BOXES.astype(np.float32), class_id=np.arange(4), tracker_id=np.arange(4))
    features = RoboflowCaller(TrackerFeatures(embedder)).update(detections, frame)
    assert_array_equal(detections.data["embedding"], features)
    assert_allclose(features, TrackerFeatures(embedder)(frame, BOXES), atol=1e-5)
    selected = detections[np.array([True, False, True, False])]
    assert_array_equal(selected.data["embedding"], features[[0, 2]])
    merged = sv.Detections.merge([selected, detections[[1]]])
    assert_array_equal(merged.data["embedding"], features[[0, 2, 1]])
    assert sv.Detections.empty().data.get("embedding") is None


class BoxMOTCaller:
    """Asks for features as BoxMOT's trackers ask their backends: boxes first, then the frame."""

    def __init__(self, model):
        self.model = model

    def update(self, detections, image):
        features = self.model.get_features(detections[:, :4], image)
        assert features.shape[0] == len(detections)
        return features


def test_boxes_of_boxmot(embedder, frame):
    rows = np.concatenate([BOXES, np.full((4, 2), 0.5)], axis=1)  # score and class
    expected = TrackerFeatures(embedder)(frame, BOXES)
    assert_array_equal(BoxMOTCaller(TrackerFeatures(embedder)).update(rows, frame), expected)
    assert_array_equal(BoxMOTCaller(TrackerFeatures(embedder, bgr=False)).update(rows, frame), expected)
    assert BoxMOTCaller(TrackerFeatures(embedder)).update(np.zeros((0, 6)), frame).shape == (0, embedder.width)


class EncoderCaller:
    """Asks as BoxMOT's pipeline does: several frames in RGB [3, H, W], and tensors back."""

    def __init__(self, encoder):
        assert isinstance(encoder.embedding_dim, int)
        assert encoder.requirements.masks is False
        self.encoder = encoder

    def run(self, frames, detections):
        embeddings = self.encoder.encode(frames, detections)
        for rows, found in zip(embeddings, detections, strict=True):
            assert rows.dtype == torch.float32
            assert rows.shape == (len(found.geometry.values), self.encoder.embedding_dim)
        return embeddings


def found(boxes, is_obb=False):
    geometry = SimpleNamespace(values=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return SimpleNamespace(geometry=geometry, is_obb=is_obb, scores=torch.ones(len(boxes)))


def test_frames_of_an_encoder(embedder, frame):
    rgb = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1).contiguous()
    frames = [SimpleNamespace(image=rgb, sample_id="0"), SimpleNamespace(image=255 - rgb, sample_id="1")]
    encoder = TrackerFeatures(embedder)
    embeddings = EncoderCaller(encoder).run(frames, [found(BOXES), found([])])
    assert_allclose(embeddings[0], encoder(frame, BOXES), atol=1e-5)
    _, second = EncoderCaller(encoder).run(frames, [found([]), found(BOXES)])
    assert_allclose(second, encoder(255 - frame, BOXES), atol=1e-5)
    plain = encoder.encode([frame], [BOXES])[0]
    assert_array_equal(plain, encoder(frame, BOXES))
    assert encoder.encode([], []) == []
    with pytest.raises(PictureError, match="2 frames and 1 detections are given"):
        encoder.encode(frames, [found(BOXES)])
    with pytest.raises(PictureError, match="boxes must not be rotated"):
        encoder.encode(frames[:1], [found(BOXES, is_obb=True)])
    with pytest.raises(PictureError, match="a frame must be uint8"):
        encoder.encode([SimpleNamespace(image=rgb.float())], [found(BOXES)])


def test_a_plain_callable_on_rgb(embedder, frame):
    def track(frames, features_of):
        return [features_of(image, BOXES) for image in frames]

    rgb = frame[..., ::-1]
    (features,) = track([rgb], TrackerFeatures(embedder, bgr=False))
    assert_allclose(features, embedder.embed([rgb[region] for region in REGIONS]), atol=1e-5)
