"""What a user hands in: one row per image, batches of whole sightings, and the fusion of modalities, by naive loops."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from resight.data.sightings import MODALITIES, Sighting, SightingTable
from resight.errors import ConfigError
from resight.inference.inputs import UNKNOWN, Inputs, as_inputs, fuse

TWO = Sighting({"rgb": Path("a.png"), "tir": Path("b.png")}, camera="c1", view="left")
COUNTS = st.lists(st.integers(1, 5), max_size=12)


def inputs_of(counts) -> Inputs:
    """Sightings of so many images each."""
    sighting = [n for n, count in enumerate(counts) for _ in range(count)]
    blank: list[str | None] = [None] * len(sighting)
    return Inputs(list(range(len(sighting))), np.array(sighting, np.int64), blank, blank, blank, len(counts))


def naive_batches(counts, batch_size):
    """Sightings are added to a batch until the next one does not fit."""
    batches, current = [], []
    for count in counts:
        if current and sum(current) + count > batch_size:
            batches.append(sum(current))
            current = []
        current.append(count)
    return [*batches, sum(current)] if current else batches


@given(COUNTS, st.integers(1, 12))
def test_batches_are_of_whole_sightings(counts, batch_size):
    slices = list(inputs_of(counts).batches(batch_size))
    assert [part.stop - part.start for part in slices] == naive_batches(counts, batch_size)
    rows = [row for part in slices for row in range(part.start, part.stop)]
    assert rows == list(range(sum(counts)))
    ends = {0, *np.cumsum(counts).tolist()}
    for part in slices:
        assert {part.start, part.stop} <= ends
        assert part.stop - part.start <= batch_size or part.stop - part.start in counts


@given(st.data())
def test_fusion_is_what_a_loop_gives(data):
    size, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    present = data.draw(st.lists(st.sets(st.integers(0, size - 1), min_size=1), max_size=6))
    sighting = np.array([n for n, names in enumerate(present) for _ in names], np.int64)
    modality = np.array([m for names in present for m in sorted(names)], np.int64)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = rng.normal(size=(len(sighting), width)).astype(np.float32) + 0.1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for how in ("concat", "mean"):
        fused = fuse(rows, sighting, modality, len(present), size, how)
        assert fused.dtype == np.float32
        expected = np.zeros((len(present), size * width if how == "concat" else width))
        for row, n, m in zip(rows, sighting, modality, strict=True):
            if how == "concat":
                expected[n, m * width : (m + 1) * width] = row
            else:
                expected[n] += row
        for n in range(len(present)):
            expected[n] /= max(np.sqrt((expected[n] ** 2).sum()), 1e-12)
        assert_allclose(fused, expected, atol=1e-4 if how == "mean" else 1e-6)


def test_rows_that_cancel_out_are_not_a_number_of_nothing():
    fused = fuse(np.array([[1, 0], [-1, 0]], np.float32), np.zeros(2, np.int64), np.arange(2), 1, 2, "mean")
    assert_array_equal(fused, [[0, 0]])


def test_an_unknown_modality_has_no_place_in_a_concatenation():
    rows, sighting, modality = np.eye(2, dtype=np.float32), np.arange(2), np.array([0, UNKNOWN])
    with pytest.raises(ConfigError, match="are concatenated: name each picture's modality"):
        fuse(rows, sighting, modality, 2, 3, "concat")
    assert_array_equal(fuse(rows, sighting, modality, 2, 3, "mean"), rows)
    assert_array_equal(fuse(rows, sighting, modality, 2, 1, "concat"), rows)  # one modality has one place


@pytest.mark.parametrize("images", [TWO, [TWO], (TWO,), SightingTable.of([TWO]), dict(TWO.images)])
def test_every_form_of_a_sighting_is_the_same(images):
    inputs = as_inputs(images, "c1" if isinstance(images, dict) else None, "left", None, MODALITIES)
    assert inputs.count == 1
    assert inputs.images == [Path("a.png"), Path("b.png")]
    assert inputs.sighting.tolist() == [0, 0]
    assert (inputs.modality, inputs.camera, inputs.view) == (["rgb", "tir"], ["c1"] * 2, ["left"] * 2)


def test_pictures_and_sightings_in_one_list():
    images = ["x.png", TWO, {"nir": "y.png"}]
    inputs = as_inputs(images, ["c9", None, "c2"], None, ["tir", None, None], MODALITIES)
    assert inputs.images == ["x.png", Path("a.png"), Path("b.png"), "y.png"]
    assert inputs.sighting.tolist() == [0, 1, 1, 2]
    assert inputs.modality == ["tir", "rgb", "tir", "nir"]
    assert inputs.camera == ["c9", "c1", "c1", "c2"]
    assert inputs.view == [None, "left", "left", None]
    assert inputs.count == 3


def test_labels_given_come_before_those_of_a_sighting():
    assert as_inputs([TWO, TWO], ["c7", None], "right", None, MODALITIES).camera == ["c7", "c7", "c1", "c1"]
    assert as_inputs(TWO, None, "right", None, MODALITIES).view == ["right", "right"]


@pytest.mark.parametrize(
    ("modalities", "default"),
    [(("rgb",), "rgb"), (("nir", "rgb"), "rgb"), (("tir",), "tir"), (("nir", "tir"), None)],
)
def test_the_modality_of_a_picture_that_names_none(modalities, default):
    assert as_inputs("x.png", None, None, None, modalities).modality == [default]
    assert as_inputs(["x.png"], None, None, [None], modalities).modality == [default]


def test_numbers_are_places_in_the_names_of_the_model():
    inputs = as_inputs(["a"] * 4, ["c2", None, "other", "c1"], ["v", "w", None, "v"], "rgb", ("rgb", "tir"))
    numbers = inputs.numbers(("c1", "c2"), ("v",), ("rgb", "tir"))
    assert {kind: x.tolist() for kind, x in numbers.items()} == {
        "camera": [1, UNKNOWN, UNKNOWN, 0],
        "view": [0, UNKNOWN, UNKNOWN, 0],
        "modality": [0] * 4,
    }
    assert all(x.dtype == np.int64 for x in numbers.values())


def test_nothing_is_no_row():
    for nothing in ([], (), SightingTable()):
        inputs = as_inputs(nothing, None, None, None, ("rgb",))
        assert (inputs.count, inputs.images, len(inputs.sighting)) == (0, [], 0)
        assert list(inputs.batches(4)) == []
        assert fuse(np.zeros((0, 3), np.float32), inputs.sighting, inputs.sighting, 0, 1, "mean").shape == (0, 3)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (["a"], {"camera": ["c1", "c2"]}, "2 labels of camera are given for 1 pictures"),
        (["a", "b"], {"view": ["v"]}, "1 labels of view are given for 2 pictures"),
        ([TWO], {"modality": ["rgb", "tir"]}, "2 labels of modality are given for 1 pictures"),
        ([TWO], {"modality": "rgb"}, "a sighting names the modality of each of its pictures"),
        ([TWO, Sighting({})], {}, "sighting 1 has no picture"),
        ({}, {}, "sighting 0 has no picture"),
        ("a", {"modality": "xray"}, "the model knows no modality 'xray', only rgb, tir"),
        ({"nir": "a"}, {}, "the model knows no modality 'nir', only rgb, tir"),
        (["a", "b"], {"modality": ["rgb", "nir"]}, "the model knows no modality 'nir', only rgb, tir"),
    ],
)
def test_what_does_not_fit_is_one_sentence(images, options, message):
    given_labels = {"camera": None, "view": None, "modality": None, **options}
    with pytest.raises(ConfigError, match=message) as error:
        as_inputs(images, modalities=("rgb", "tir"), **given_labels)
    assert "\n" not in str(error.value)
