"""The drawing of an explanation: brightness follows the weights, and pairs have numbers and lines."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from resight.inference.explain import Explanation
from resight.inference.similarity import Similarity
from resight.report.explanation import draw_explanation, light


def test_the_heaviest_patch_keeps_its_brightness_and_others_are_darker():
    white = np.full((40, 20, 3), 200, np.uint8)
    weights = np.array([[0.25, 0.0], [1.0, -1.0]], np.float32)
    lit = light(white, weights)
    assert lit.shape == white.shape
    assert lit[-1, 0, 0] == 200
    assert lit[-1, -1, 0] == 60, "a negative weight counts as none"
    assert lit[0, 0, 0] == pytest.approx(200 * (0.3 + 0.7 * 0.5), abs=12), "brightness follows the square root"
    assert (light(white, np.zeros((2, 2), np.float32)) == 60).all()


def test_a_drawing_has_both_pictures_and_the_pairs(tmp_path):
    files = [picture(tmp_path / name, n) for n, name in enumerate(("a.jpg", "b.jpg"))]
    attention = (np.full((4, 2), 1 / 8, np.float32), np.full((4, 2), 1 / 8, np.float32))
    empty = Explanation(Similarity(0.5, 0.75, True), attention, np.full((8, 8), -1, np.float32))
    draw_explanation(empty, *files, tmp_path / "none.png")
    pairs = Explanation(Similarity(0.5, 0.75, True), attention, np.eye(8, dtype=np.float32))
    draw_explanation(pairs, *files, tmp_path / "new" / "pairs.png")
    images = [np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("none.png", "new/pairs.png")]
    assert images[0].shape == images[1].shape
    orange = [(np.abs(image.astype(int) - (0xE6, 0x9F, 0x00)).sum(-1) < 12).sum() for image in images]
    assert orange[0] < 20 < orange[1], "the first pair has a line and two dots"
