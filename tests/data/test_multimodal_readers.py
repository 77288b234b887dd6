"""Readers of published data sets with several modalities, over layouts that the test paints."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from resight import read_dataset
from resight.cli import main
from resight.data.decode import decode_array
from resight.data.readers.rgbnt100 import split_wide
from resight.errors import DatasetError
from resight.evaluation.labels import encode_labels
from resight.retrieval.junk import matching, rule_of
from resight.retrieval.protocols import find

PARTS = ("bounding_box_train", "query", "bounding_box_test")


@pytest.fixture
def wide(tmp_path):
    """RGBNT100's layout: two identities in training, two others in the test set, 768 pixels wide."""
    rng = np.random.default_rng(0)
    for part, identities in zip(PARTS, ((1, 2), (3,), (3, 4)), strict=True):
        folder = tmp_path / "rgbir" / part
        folder.mkdir(parents=True)
        for identity in identities:
            for camera in (1, 2):
                pixels = rng.integers(0, 255, (16, 768, 3), dtype=np.uint8)
                pixels[:, 256:] = pixels[:, 256:, :1]  # nir and tir are grey
                Image.fromarray(pixels).save(folder / f"{identity:04d}_c{camera:04d}_006.png")
    return tmp_path


def test_rgbnt100_is_split_into_the_pixels_of_its_wide_pictures(wide, tmp_path):
    counts = []
    assert split_wide(wide, tmp_path / "new", counts.append) == 10
    assert counts == list(range(1, 11))
    split = read_dataset("rgbnt100", tmp_path / "new")
    assert (len(split.train), len(split.query), len(split.gallery)) == (4, 2, 4)
    assert split.protocol == "market"
    for sighting in split.train:
        assert list(sighting.images) == ["rgb", "nir", "tir"]
        name = sighting.images["rgb"].name
        pixels = decode_array(wide / "rgbir" / "bounding_box_train" / name)
        for n, path in enumerate(sighting.images.values()):
            np.testing.assert_array_equal(decode_array(path), pixels[:, 256 * n : 256 * (n + 1)])
        assert sighting.identity == name[:4]
        assert sighting.camera == f"rgbnt100:{name[6:10]}"


def test_wide_pictures_of_another_width_are_refused(wide, tmp_path):
    picture(wide / "rgbir" / "query" / "0009_c0001_001.jpg", size=(700, 16))
    with pytest.raises(
        DatasetError, match=r"0009_c0001_001\.jpg is 700 pixels wide, and a picture of RGBNT100 has 768"
    ):
        split_wide(wide, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_wide_pictures_are_not_read_as_one_modality(wide, tmp_path, capsys):
    with pytest.raises(DatasetError, match=r"in one picture: split the pictures once, with resight data split /"):
        read_dataset("rgbnt100", wide)
    assert main(["data", "split", str(wide), str(tmp_path / "new"), "--quiet"]) == 0
    assert capsys.readouterr().out == f"10 pictures split into rgb, nir and tir in {tmp_path / 'new'}\n"
    assert main(["data", "inspect", "rgbnt100", str(tmp_path / "new"), "--check"]) == 0
    assert main(["data", "split", str(wide), str(tmp_path / "new")]) == 2
    assert "new exists already; choose another name" in capsys.readouterr().err


def test_wmveid863_reads_camera_and_scene_from_the_name(tmp_path):
    root = tmp_path / "WMVEID863"
    for part, identity in (("train", "0001"), ("query", "0200"), ("test", "0200")):
        for modality in ("vis", "ni", "th"):
            for name in ("0001_n1_v3_001.jpg", "0001_n0_v2_002.jpg"):
                picture(root / part / identity / modality / name)
    for folder in (root, tmp_path):
        split = read_dataset("wmveid863", folder)
        assert [(s.identity, s.camera, s.scene) for s in split.train] == [
            ("0001", "wmveid863:2", "0"), ("0001", "wmveid863:3", "1")
        ]  # fmt: skip
        assert split.query.modalities == split.gallery.modalities == ("rgb", "nir", "tir")
        assert split.query[0].images["nir"] == root / "query" / "0200" / "ni" / "0001_n0_v2_002.jpg"
    (root / "test" / "0200" / "th" / "0001_n1_v3_001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 sightings .*th lacks 0001_n1_v3_001\.jpg"):
        read_dataset("wmveid863", root)
    picture(root / "train" / "0001" / "vis" / "holiday.jpg")
    picture(root / "train" / "0001" / "ni" / "holiday.jpg")
    picture(root / "train" / "0001" / "th" / "holiday.jpg")
    with pytest.raises(DatasetError, match=r"holiday\.jpg is not named as in WMVeID863"):
        read_dataset("wmveid863", root)


def test_msvr310_leaves_out_the_same_vehicle_in_the_same_scene(tmp_path):
    for part, names in zip(
        PARTS, (["0001_s001_v0_000"], ["0019_s012_v0_000"], ["0019_s012_v3_000", "0019_s013_v0_000"]), strict=True
    ):
        for name in names:
            for modality in ("vis", "ni", "th"):
                folder = "query3" if part == "query" else part
                picture(tmp_path / folder / name[:4] / modality / f"{name}.jpg")
    split = read_dataset("msvr310", tmp_path)
    query, gallery = encode_labels(split.query, split.gallery)
    (_, matches), _ = matching(query, gallery, rule_of(find(split.protocol).rule, 0))
    names = [split.gallery[int(row)].images["rgb"].name for row in matches]
    assert names == ["0019_s013_v0_000.jpg"]
