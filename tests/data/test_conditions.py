"""The conditions of the hard synthetic set: what they do to pixels, and the file that records them."""

import csv

import numpy as np
import pytest

from resight.data.synthetic import synthetic
from resight.data.synthetic.conditions import CONDITIONS, fade

HARD = synthetic.Plan(train=2, test=1, cameras=2, shots=1, hard=True)


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("modality", ["rgb", "nir", "tir"])
def test_what_fades_is_mixed_with_the_ground_pixel_by_pixel(name, modality):
    rng = np.random.default_rng(0)
    pixels, ground = rng.random((4, 3, 3)), rng.random((4, 3, 3))
    amount = CONDITIONS[name].fade.get(modality, 0.0)
    faded = fade(pixels, ground, CONDITIONS[name], modality)
    for place in np.ndindex(pixels.shape):
        assert faded[place] == pytest.approx(pixels[place] + amount * (ground[place] - pixels[place]))


def test_some_conditions_fade_the_object():
    assert any(condition.fade for condition in CONDITIONS.values())


def test_every_picture_has_a_row_with_its_name_and_condition(tmp_path):
    synthetic.write(tmp_path / "hard", HARD)
    with (tmp_path / "hard" / synthetic.CONDITIONS_FILE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [
        f"{identity:06d}_cam{camera}_0_00.jpg" for identity in (1, 2, 3) for camera in (1, 2)
    ]
    assert {row["condition"] for row in rows} <= set(CONDITIONS)
    pictures = {path.name for path in (tmp_path / "hard").rglob("*.jpg")}
    assert pictures == {row["file"] for row in rows}
