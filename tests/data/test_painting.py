"""The painted data set, pinned: shapes and traits to the digit, and finished images by figures with a small tolerance.

A published figure on the synthetic data set is comparable only as long as every image of it stays what it is.
"""

import zlib
from io import BytesIO
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image, ImageDraw

from resight.data.synthetic import synthetic
from resight.data.synthetic.painting import Material, Pose, Traits, draw_traits, paint

# CRC-32 of rounded numbers, by kind of object and load; of traits; of cameras. Another value is another data set.
PAINTED = {
    (True, "none"): 3285121648, (True, "left"): 2545040232, (True, "right"): 1427641337, (True, "top"): 2873596433,
    (False, "none"): 4260538844, (False, "left"): 1323704223, (False, "right"): 3722575085, (False, "top"): 432145717,
}  # fmt: skip
TRAITS = 1172431074
CAMERAS = 4152517015
# Mean of each channel, deviation, two centres of mass and two sharpnesses of finished images.
SIGHTINGS = [
    {
        "rgb": [135.02, 100.67, 117.57, 46.08, 59.17, 57.97, 5.85, 5.1],
        "nir": [97.65, 97.65, 97.65, 49.89, 50.89, 47.49, 8.24, 7.51],
        "tir": [81.83, 81.83, 81.83, 26.05, 41.14, 40.32, 6.62, 6.72],
    },
    {
        "rgb": [98.34, 85.47, 117.27, 34.93, 52.33, 50.2, 6.0, 4.58],
        "nir": [79.48, 79.48, 79.48, 31.95, 39.79, 39.1, 8.91, 6.85],
        "tir": [92.55, 92.55, 92.55, 35.96, 48.67, 46.31, 7.12, 6.85],
    },
    {
        "rgb": [34.76, 55.03, 66.31, 13.55, 24.77, 24.67, 4.47, 3.96],
        "nir": [65.62, 65.62, 65.62, 29.38, 35.13, 33.43, 8.23, 7.13],
        "tir": [76.34, 76.34, 76.34, 30.79, 39.23, 38.58, 6.56, 6.69],
    },
    {
        "rgb": [92.81, 74.26, 76.51, 25.65, 40.69, 39.52, 4.75, 4.91],
        "nir": [97.8, 97.8, 97.8, 33.68, 46.42, 50.47, 7.99, 7.51],
        "tir": [67.65, 67.65, 67.65, 24.75, 32.07, 33.89, 6.58, 6.84],
    },
    {
        "rgb": [136.61, 132.94, 126.53, 45.82, 69.08, 63.47, 5.95, 4.9],
        "nir": [90.93, 90.93, 90.93, 48.51, 44.55, 43.53, 10.56, 7.94],
        "tir": [127.79, 127.79, 127.79, 39.68, 68.91, 64.12, 6.99, 7.16],
    },
    {
        "rgb": [69.8, 72.23, 71.76, 25.44, 35.07, 38.82, 4.52, 4.82],
        "nir": [72.01, 72.01, 72.01, 28.29, 37.44, 32.21, 7.05, 7.58],
        "tir": [74.75, 74.75, 74.75, 31.32, 35.24, 37.54, 6.94, 7.4],
    },
]

STRAIGHT = Pose(0.1, 0.2, 0.75, 0.7, 0.6, False)
MIRRORED = Pose(0.1, 0.2, 0.75, 0.7, 0.6, True)


class Recorder:
    """Records what is drawn instead of drawing it, so that nothing depends on Pillow's rounding."""

    def __init__(self, width=128, height=256):
        self.im = SimpleNamespace(size=(width, height))
        self.calls = []

    def rounded_rectangle(self, corners, radius, fill):
        self.calls.append(("box", *(round(float(x), 3) + 0.0 for x in (*corners, radius)), *fill))

    def ellipse(self, corners, fill):
        self.calls.append(("disc", *(round(float(x), 3) + 0.0 for x in corners), *fill))


def digest(x):
    return zlib.crc32(repr(x).encode())


def traits_of(vehicle, load="none", lights=0, stripes=0, upright=False):
    names = ("body cabin window wheel" if vehicle else "torso legs hair skin shoes").split()
    names += ["stripe", "load", "light"]
    parts = {name: Material((n / 10, 0.5, 1 - n / 10), n / 9, (n / 8) ** 2) for n, name in enumerate(names)}
    return Traits(vehicle, (0.9, 1.05), parts, stripes, upright, load, lights)


def painted_calls(traits, pose=STRAIGHT, modality="rgb"):
    recorder = Recorder()
    paint(recorder, traits, pose, modality)
    return recorder.calls


def test_a_material_has_a_tone_of_8_bits_in_each_modality():
    material = Material((0.2, 0.5, 1.0), 0.3, 0.7)
    assert material.tone("rgb") == (51, 128, 255)
    assert material.tone("nir") == (76, 76, 76)  # 255 x 0.3 = 76.5, to even
    assert material.tone("tir") == (178, 178, 178)


def test_a_part_lies_where_its_fractions_say():
    """Hand-computed: the object is 0.75 x 0.9 wide about its middle, 0.7 x 1.05 tall and stands on its lower edge."""
    calls = painted_calls(traits_of(True))
    width, height = 0.75 * 0.9, 0.7 * 1.05
    x, y = 0.1 + 0.375 - width / 2, 0.9 - height
    corners = [128 * (x + 0.06 * width), 256 * (y + 0.86 * height), 128 * (x + 0.24 * width), 256 * (y + height)]
    assert calls[0][0] == "box"
    assert_allclose(calls[0][1:5], corners, atol=1e-3)
    assert calls[0][5:] == (2.56, *traits_of(True).parts["wheel"].tone("rgb"))
    mirrored = painted_calls(traits_of(True), MIRRORED)[0]
    right = 2 * (0.1 + 0.375) * 128  # the mirror axis is the object's middle
    assert_allclose([mirrored[1], mirrored[3]], [right - corners[2], right - corners[0]], atol=2e-3)
    assert mirrored[2:5:2] == calls[0][2:5:2]


@pytest.mark.parametrize(("vehicle", "boxes", "discs"), [(True, 7, 0), (False, 8, 4)])
def test_a_load_is_one_more_box(vehicle, boxes, discs):
    for load in ("none", "left", "right", "top"):
        kinds = [call[0] for call in painted_calls(traits_of(vehicle, load, lights=1))]
        assert (kinds.count("box"), kinds.count("disc")) == (boxes + (load != "none"), discs)


@pytest.mark.parametrize("load", ["none", "left", "right", "top"])
@pytest.mark.parametrize("vehicle", [True, False])
def test_every_shape_is_where_it_was(vehicle, load):
    calls = [
        painted_calls(traits_of(vehicle, load, lights, stripes, upright), pose, modality)
        for lights, (stripes, upright), (pose, modality) in product(
            (0, 1, 2), ((0, False), (3, False), (2, True)), ((STRAIGHT, "rgb"), (MIRRORED, "nir"))
        )
    ]
    assert digest(calls) == PAINTED[vehicle, load]


@pytest.mark.parametrize("upright", [True, False])
def test_stripes_share_their_area_evenly(upright):
    traits = traits_of(True, stripes=4, upright=upright)
    fill = traits.parts["stripe"].tone("rgb")
    stripes = np.array([call[1:5] for call in painted_calls(traits) if call[-3:] == fill and call[5] == 0])
    assert len(stripes) == 4
    body = np.array(painted_calls(traits)[4][1:5])  # from 0 to 1 and 0.56 to 0.92 of the object
    size = (body[2:] - body[:2]) / [1, 0.36]
    area = np.array([0.04, 0.06 + 0.56 - 0.56, 0.92, 0.26])  # left and top in the body's box, width and height
    axis = 0 if upright else 1
    begins, ends = stripes[:, axis], stripes[:, axis + 2]
    length = area[2 + axis] * size[axis]
    first = body[axis] + area[axis] * size[axis]
    assert_allclose(begins, first + (np.arange(4) + 0.3) / 4 * length, atol=2e-3)
    assert_allclose(ends, first + (np.arange(4) + 0.7) / 4 * length, atol=2e-3)
    across = 1 - axis
    assert_allclose(stripes[:, across], body[across] + area[across] * size[across], atol=2e-3)
    assert_allclose(stripes[:, across + 2] - stripes[:, across], area[2 + across] * size[across], atol=2e-3)


def rounded(traits):
    parts = {
        name: [round(float(x), 6) for x in (*part.colour, part.nir, part.heat)] for name, part in traits.parts.items()
    }
    build = [round(x, 6) for x in traits.build]
    return traits.vehicle, build, parts, traits.stripes, traits.upright, traits.load, traits.lights


def test_traits_follow_from_the_seed():
    assert digest([rounded(draw_traits(np.random.default_rng(seed))) for seed in range(60)]) == TRAITS


def test_traits_are_within_their_ranges():
    drawn = [draw_traits(np.random.default_rng(seed)) for seed in range(600)]
    assert 0.33 < np.mean([traits.vehicle for traits in drawn]) < 0.47
    assert {traits.stripes for traits in drawn} == {0, 2, 3, 5}
    assert {traits.lights for traits in drawn} == {0, 1, 2}
    assert {traits.load for traits in drawn} == {"none", "left", "right", "top"}
    build = np.array([traits.build for traits in drawn])
    assert_allclose([build.min(0), build.max(0)], [[0.75, 0.85], [1.2, 1.08]], atol=0.01)
    for traits in drawn:
        main = traits.parts["body" if traits.vehicle else "torso"]
        assert traits.parts["stripe"].nir == 1 - round(main.nir)  # the contrast that near-infrared shows
        assert all(0 <= x <= 1 for part in traits.parts.values() for x in (*part.colour, part.nir, part.heat))
    same = [t.parts["stripe"].colour == t.parts["body" if t.vehicle else "torso"].colour for t in drawn]
    assert 0.43 < np.mean(same) < 0.57


def camera_of(occluded=0.0, blur=0.0, gain=1.0, ground=0.5):
    return synthetic.Camera(np.full((128, 64, 5), ground), np.full(5, gain), 0.8, 0.9, blur, occluded)


def test_a_camera_is_drawn_within_its_ranges():
    drawn = [synthetic._draw_camera(np.random.default_rng(seed)) for seed in range(150)]
    scalars = np.array([(c.scale, c.turned, c.blur, c.occluded) for c in drawn])
    assert_allclose([scalars.min(0), scalars.max(0)], [[0.7, 0.7, 0, 0.1], [0.95, 1, 1.2, 0.4]], atol=0.03)
    gain = np.array([c.gain for c in drawn])
    assert gain.shape == (150, 5)
    assert 0.55 * 0.7 < gain.min() < 0.43
    assert 1.3 < gain.max() < 1.15 * 1.2
    assert drawn[0].ground.shape == (128, 64, 5)
    ground = np.array([c.ground for c in drawn[:40]])
    assert_allclose([ground.min(), ground.max()], [0.05, 0.85], atol=0.1)  # bicubic overshoots 0.15 to 0.75
    assert_allclose(ground[0] * 255, np.round(ground[0] * 255), atol=1e-9)
    scalars = [[round(float(x), 6) for x in (*c.gain, c.scale, c.turned, c.blur, c.occluded)] for c in drawn[:40]]
    assert digest(scalars) == CAMERAS


@pytest.mark.parametrize("seed", range(4))
def test_a_background_is_a_coarse_grid_resized(seed):
    """The smallest grid is 3 x 2 and the largest 8 x 4."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(3, 9), rng.integers(2, 5)
    coarse = np.random.default_rng(seed)
    assert (coarse.integers(3, 9), coarse.integers(2, 5)) == (rows, columns)
    grid = coarse.uniform(0.15, 0.75, (rows, columns, 5))
    ground = synthetic._draw_camera(np.random.default_rng(seed)).ground
    for channel in (0, 4):
        plane = Image.fromarray((255 * grid[..., channel]).astype(np.uint8))
        expected = np.asarray(plane.resize((64, 128), Image.Resampling.BICUBIC)).astype(int)
        assert abs(ground[..., channel] * 255 - expected).max() <= 1.001


def figures_of(image):
    """A few numbers that change with the place, the size, the tone and the sharpness of what is shown."""
    x = np.asarray(image, float)
    grey = x.mean(2)
    down, across = (np.arange(n) / n for n in grey.shape)
    return [
        *x.mean((0, 1)), grey.std(), (grey.mean(1) * down).mean(), (grey.mean(0) * across).mean(),
        abs(np.diff(grey, axis=0)).mean(), abs(np.diff(grey, axis=1)).mean(),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_a_sighting_is_what_it_was(seed):
    camera = synthetic._draw_camera(np.random.default_rng((7, seed)))
    traits = draw_traits(np.random.default_rng((8, seed)))
    images = synthetic._take(traits, camera, np.random.default_rng((9, seed)))
    assert list(images) == ["rgb", "nir", "tir"]
    for modality, image in images.items():
        assert image.size == (64, 128)
        assert_allclose(figures_of(image), SIGHTINGS[seed][modality], atol=0.06, err_msg=modality)


def test_noise_and_light_of_an_empty_sighting(monkeypatch):
    """Light varies by 15 % to both sides except in thermal; noise has a deviation of 0.02; grey modalities are grey."""
    monkeypatch.setattr(synthetic, "paint", lambda *_: None)
    light = []
    for seed in range(40):
        images = synthetic._take(draw_traits(np.random.default_rng(0)), camera_of(), np.random.default_rng(seed))
        values = {modality: np.asarray(image) / 255 for modality, image in images.items()}
        assert_allclose(values["tir"].mean(), 0.498 - 0.002, atol=0.003)
        assert_allclose(values["rgb"].std((0, 1)), 0.02, atol=0.001)
        assert np.ptp(values["rgb"], axis=2).any()
        assert not np.ptp(values["nir"], axis=2).any()
        light.append(values["rgb"].mean() / values["tir"].mean())
        assert_allclose(values["nir"].mean() / values["tir"].mean(), light[-1], atol=0.004)
    assert_allclose([min(light), max(light)], [0.85, 1.15], atol=0.04)


def test_poses_stay_in_the_image(monkeypatch):
    poses = []
    monkeypatch.setattr(synthetic, "paint", lambda draw, traits, pose, modality: poses.append(pose))
    for seed in range(120):
        before = len(poses)
        synthetic._take(draw_traits(np.random.default_rng(0)), camera_of(), np.random.default_rng(seed))
        assert poses[before] == poses[before + 1] == poses[before + 2]  # the modalities are registered
    width, height = (np.array([getattr(pose, name) for pose in poses[::3]]) for name in ("width", "height"))
    left, top = (np.array([getattr(pose, name) for pose in poses[::3]]) for name in ("left", "top"))
    assert_allclose([width.min(), width.max()], [0.9 * 0.78, 0.9 * 0.98], atol=0.01)
    assert_allclose([height.min(), height.max()], [0.8 * 0.92, 0.8 * 1.05], atol=0.01)
    assert_allclose([left.min(), (left + width).max()], [-0.05, 1.05], atol=0.02)
    assert_allclose([top.min(), (top + height).max()], [0, 1], atol=0.02)
    swing = np.array([pose.swing for pose in poses[::3]])
    assert_allclose([swing.min(), swing.max()], [-1, 1], atol=0.06)
    assert 0.35 < np.mean([pose.mirrored for pose in poses[::3]]) < 0.65


@pytest.mark.parametrize(("modality", "grey"), [("rgb", 51), ("nir", 102), ("tir", 204)])
@pytest.mark.parametrize("upright", [True, False])
def test_an_obstacle_is_a_bar_across_the_image(modality, grey, upright):
    image = Image.new("RGB", (128, 256))
    synthetic._paint_bar(ImageDraw.Draw(image), 0.25, 0.125, np.array([0.2, 0.4, 0.8]), upright, modality)
    shown = np.asarray(image)
    expected = np.zeros((256, 128, 3), np.uint8)
    if upright:
        expected[:, 32:49] = grey  # Pillow draws the last column, too
    else:
        expected[round(256 * 0.525) : int(256 * 0.5875) + 1] = grey
    assert abs((shown != expected).any(2).sum(0 if upright else 1)).max() <= 128
    assert (shown != expected).any(2).mean() < 0.01
    assert set(np.unique(shown)) == {0, grey}


def test_obstacles_are_as_frequent_as_the_camera_says(monkeypatch):
    bars = []
    monkeypatch.setattr(synthetic, "paint", lambda *_: None)
    monkeypatch.setattr(synthetic, "_paint_bar", lambda draw, *bar: bars.append(bar))
    for seed in range(120):
        synthetic._take(draw_traits(np.random.default_rng(0)), camera_of(0.3), np.random.default_rng(seed))
    assert 0.2 < len(bars) / 360 < 0.4
    at, size = (np.array([bar[n] for bar in bars]) for n in (0, 1))
    look = np.array([bar[2] for bar in bars])
    assert_allclose([at.min(), at.max()], [0, 0.8], atol=0.1)
    assert_allclose([size.min(), size.max()], [0.1, 0.3], atol=0.04)
    assert_allclose([look.min(), look.max()], [0.1, 0.6], atol=0.05)
    assert 0.3 < np.mean([bar[3] for bar in bars]) < 0.7
    assert [bar[4] for bar in bars[:3]] == ["rgb", "nir", "tir"]


def test_the_default_plan_and_the_names_of_its_files(tmp_path):
    plan = synthetic.Plan()
    assert (plan.train, plan.test, plan.cameras, plan.shots, plan.seed) == (120, 32, 4, 2, 0)
    counted = []
    synthetic.write(
        tmp_path / "p", synthetic.Plan(train=1, test=1, cameras=2, shots=2), lambda *count: counted.append(count)
    )
    assert counted == [(1, 2), (2, 2)]
    names = [f"000001_cam{camera}_0_0{shot}.jpg" for camera in (1, 2) for shot in (0, 1)]
    for folder in ("RGB", "NI", "TI"):
        assert sorted(path.name for path in (tmp_path / "p" / "train_171" / folder).iterdir()) == names
        tested = sorted(path.name for path in (tmp_path / "p" / "test" / folder).iterdir())
        assert tested == [name.replace("000001", "000002") for name in names]
    traits = draw_traits(np.random.default_rng((0, 1, 1)))
    camera = synthetic._draw_camera(np.random.default_rng((0, 2, 0)))
    expected = synthetic._take(traits, camera, np.random.default_rng((0, 3, 1, 0, 1)))
    for modality, folder in (("rgb", "RGB"), ("nir", "NI"), ("tir", "TI")):
        encoded = BytesIO()
        expected[modality].save(encoded, "JPEG", quality=92)
        assert (tmp_path / "p" / "test" / folder / "000002_cam1_0_01.jpg").read_bytes() == encoded.getvalue()
    assert synthetic.read(tmp_path / "p").notes == ("painted by resight; it shows no real person",)
