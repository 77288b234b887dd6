"""A model's calibration against the pairs of its own embeddings."""

import json

import numpy as np
import pytest
from conftest import picture, varied_model
from PIL import Image

import resight
from resight.cli import main
from resight.data.catalog import read_dataset
from resight.errors import ConfigError, EvaluationError
from resight.evaluation.calibrate import calibrate
from resight.models.calibration import read_calibration

RATE = 0.05


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return varied_model(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve identities in Market-1501's layout, whose pictures differ by their colours."""
    root = tmp_path_factory.mktemp("data") / "market"
    for identity in range(12):
        for folder, cameras in (("bounding_box_train", (1, 2)), ("query", (1, 2)), ("bounding_box_test", (1, 2, 3))):
            for camera in cameras:
                noise = 10 * camera + len(folder)
                picture(root / folder / f"{identity:04d}_c{camera}s1_{noise:06d}_00.jpg", identity, noise)
    return root


@pytest.fixture
def split(root):
    return read_dataset("market1501", root)


def pairs_of(embedder, split):
    """Similarities of all pairs of one identity under two cameras, and of different identities."""
    query, gallery = (embedder.embed(table).astype(float) for table in (split.query, split.gallery))
    same, different = [], []
    for i, first in enumerate(split.query):
        for j, second in enumerate(split.gallery):
            if first.identity != second.identity:
                different.append(query[i] @ gallery[j])
            elif first.camera != second.camera:
                same.append(query[i] @ gallery[j])
    return np.array(same), np.array(different)


def test_threshold_and_rates_are_those_of_the_pairs(model, split):
    embedder = resight.load(model, "cpu", precision="fp32")
    calibration = calibrate(embedder, split, RATE, store=False).calibration
    same, different = pairs_of(embedder, split)
    assert (calibration.same, calibration.different) == (len(same), len(different))
    assert (different >= calibration.threshold).mean() <= RATE
    assert (different >= calibration.threshold - 1e-3).mean() > RATE - 2 / len(different)  # no higher than necessary
    assert calibration.true_match_rate == pytest.approx((same >= calibration.threshold).mean(), abs=1 / len(same))
    assert (calibration.false_match_rate, calibration.dataset) == (RATE, split.name)


def test_probabilities_order_the_pairs_as_they_are(model, split):
    embedder = resight.load(model, "cpu", precision="fp32")
    result = calibrate(embedder, split, RATE, store=False)
    same, different = pairs_of(embedder, split)
    assert (result.calibration.same, result.calibration.different) == (len(same), len(different))
    for method in ("logistic", "isotonic"):
        grid = result.calibration.of(np.linspace(-1, 1, 101), method=method)
        assert (np.diff(grid) >= 0).all()
        assert 0 < grid[0] < grid[-1] < 1
        assert (
            result.calibration.of(same, method=method).mean() > result.calibration.of(different, method=method).mean()
        )
    # Both kinds are weighted alike: the mean over the two means is the prior of 1/2.
    p = result.calibration.of(same).mean(), result.calibration.of(different).mean()
    assert np.mean(p) == pytest.approx(0.5, abs=0.03)
    assert set(result.checked) == {"logistic", "isotonic"}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_calibration_holds_in_every_precision(model, split, precision):
    exact = calibrate(resight.load(model, "cpu", precision="fp32"), split, RATE, store=False).calibration
    embedder = resight.load(model, "cpu", precision=precision)
    calibration = calibrate(embedder, split, RATE, store=False).calibration
    assert embedder.compute.precision == precision
    assert calibration.embedding_id == exact.embedding_id == embedder.embedding_id
    assert calibration.threshold == pytest.approx(exact.threshold, abs=0.01)
    same, _ = pairs_of(embedder, split)
    assert np.abs(calibration.of(same, method="logistic") - exact.of(same, method="logistic")).mean() < 0.1


def test_a_calibration_is_refused_by_other_embeddings(model, split, tmp_path):
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    assert resight.load(folder, "cpu").calibration_for_use() is None
    result = calibrate(resight.load(folder, "cpu"), split, RATE, store=False)
    assert result.file is None
    assert resight.load(folder, "cpu").calibration_for_use() is None
    assert calibrate(folder, split, RATE).file == folder / "calibration.json"
    for accepted in ({}, {"precision": "bf16"}, {"precision": "fp32"}, {"batch_size": 3}):
        assert resight.load(folder, "cpu", **accepted).calibration_for_use() == result.calibration
    for other in ({"flip": True}, {"fusion": "mean"}, {"unknown": "off"}):
        with pytest.raises(ConfigError, match=r"the model's calibration is of embeddings .*resight calibrate"):
            resight.load(folder, "cpu", **other).calibration_for_use()


def test_rates_that_cannot_be_measured_are_refused(model, split):
    embedder = resight.load(model, "cpu")
    for rate in (0.0, 1.0, 2.0, -0.1):
        with pytest.raises(ConfigError, match="must lie between 0 and 1"):
            calibrate(embedder, split, rate)
    with pytest.raises(EvaluationError, match="cannot be measured with"):
        calibrate(embedder, split, 1e-9)


def test_the_command_writes_the_calibration_beside_the_model(model, split, root, tmp_path, capsys):
    import shutil

    folder, curve = tmp_path / "m", tmp_path / "curve.png"
    shutil.copytree(model, folder)
    options = ["--dataset", "market1501", "--root", str(root), "--device", "cpu", "--false-match-rate", str(RATE)]
    command = ["calibrate", str(folder), *options, "--quiet"]
    assert main([*command, "--precision", "bf16", "--flip", "on", "--plot", str(curve)]) == 0
    assert "same-identity pairs" in capsys.readouterr().out
    stored = read_calibration(folder)
    embedder = resight.load(folder, "cpu", precision="bf16", flip=True)
    assert stored == calibrate(embedder, split, RATE, store=False).calibration
    assert embedder.calibration_for_use() == stored
    assert Image.open(curve).size == (600, 600)
    assert main([*command, "--json"]) == 0
    stored = json.loads(read_calibration(folder).model_dump_json())
    assert json.loads(capsys.readouterr().out).items() >= stored.items()
    assert main([*command[:-3], "--false-match-rate", "2"]) == 2
    assert "must lie between 0 and 1" in capsys.readouterr().err
