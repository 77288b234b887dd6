"""Two pictures: their similarity, and what the calibration says of it."""

import json
import math

import numpy as np
import pytest
from conftest import picture, small_model

import resight
from resight.cli import main
from resight.errors import ConfigError
from resight.evaluation.calibrate import write_calibration
from resight.inference.similarity import similarity
from resight.retrieval.calibration import Calibration


@pytest.fixture
def folder(tmp_path):
    return small_model(tmp_path / "model")


@pytest.fixture
def paths(tmp_path):
    return [picture(tmp_path / f"{n}.png", n) for n in range(2)]


def calibration_of(embedding_id, threshold=0.5) -> Calibration:
    """The probability is 0.1 at a similarity of -1 and 0.9 at 1, on a straight line."""
    return Calibration(
        slope=1, offset=0, similarity=(-1.0, 1.0), probability=(0.1, 0.9), threshold=threshold, false_match_rate=0.1,
        true_match_rate=1, dataset="x", embedding_id=embedding_id, same=1, different=1,
    )  # fmt: skip


def test_the_inner_product_of_two_embeddings(folder, paths):
    embedder = resight.load(folder, "cpu", "fp32")
    a, b = embedder.embed(paths[0], camera="c1")[0], embedder.embed(paths[1], camera="c2")[0]
    result = similarity(embedder, *paths, cameras=("c1", "c2"))
    assert result.similarity == pytest.approx(float(np.dot(a, b)), abs=1e-5)
    assert (result.probability, result.known) == (None, None)
    assert similarity(embedder, paths[0], paths[0]).similarity == pytest.approx(1, abs=1e-6)
    assert similarity(embedder, {"rgb": paths[0]}, paths[1]) == similarity(embedder, *paths)


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_a_calibration_gives_probability_and_threshold(folder, paths, prior):
    embedding_id = resight.load(folder, "cpu", "fp32").embedding_id
    value = similarity(resight.load(folder, "cpu", "fp32"), *paths).similarity
    for threshold, known in ((value - 0.01, True), (value + 0.01, False)):
        write_calibration(folder, calibration_of(embedding_id, threshold))
        result = similarity(resight.load(folder, "cpu", "fp32"), *paths, prior=prior)
        even = 0.5 + 0.4 * value
        odds = even / (1 - even) * prior / (1 - prior)
        assert result.probability == pytest.approx(odds / (1 + odds), abs=1e-5)
        assert result.known is known


def test_a_calibration_of_other_embeddings_is_refused(folder, paths):
    write_calibration(folder, calibration_of(resight.load(folder, "cpu", "fp32", flip=True).embedding_id))
    with pytest.raises(ConfigError, match="run resight calibrate with the same settings"):
        similarity(resight.load(folder, "cpu", "fp32"), *paths)
    assert similarity(resight.load(folder, "cpu", "fp32", flip=True), *paths).probability is not None


@pytest.mark.parametrize("prior", [0.0, 1.0, -1.0, math.nan])
def test_a_prior_is_a_probability(folder, paths, prior):
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        similarity(resight.load(folder, "cpu", "fp32"), *paths, prior=prior)


def test_the_command_line(folder, paths, capsys):
    arguments = ["similarity", *map(str, paths), "--model", str(folder), "--device", "cpu", "--precision", "fp32"]
    expected = similarity(resight.load(folder, "cpu", "fp32"), *paths).similarity
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"similarity {expected:.4f}\n"
    assert main([*arguments, "--cameras", "c1", "c2", "--flip", "on", "--json"]) == 0
    flipped = similarity(resight.load(folder, "cpu", "fp32", flip=True), *paths, cameras=("c1", "c2"))
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"similarity": pytest.approx(flipped.similarity), "probability": None, "known": None}
    write_calibration(folder, calibration_of(resight.load(folder, "cpu", "fp32").embedding_id, threshold=-1))
    assert main(arguments) == 0
    percent = 100 * (0.5 + 0.4 * expected)
    words = f"probability of the same identity {percent:.1f} %; the similarity is at or above the threshold"
    assert words in capsys.readouterr().out
    assert main([*arguments, "--flip", "on"]) == 2
    assert "run resight calibrate" in capsys.readouterr().err.replace("\n", " ")
    assert main([*arguments[:2], "no.png", *arguments[3:]]) == 2
    assert "no.png cannot be read" in capsys.readouterr().err
