"""Missing modalities in evaluation: the matrix of subsets, calibrations of subsets, and what is embedded for them."""

import numpy as np
import pytest
import torch
from conftest import small_model, varied_model
from numpy.testing import assert_allclose
from PIL import Image

import resight
from resight.config.evaluation import Evaluation
from resight.data.sightings import Sighting, SightingTable, Split
from resight.data.subsets import all_subsets, reduce_to, subset_name
from resight.data.synthetic import synthetic
from resight.errors import EvaluationError
from resight.evaluation import calibrate as calibrating
from resight.evaluation.calibrate import calibrate
from resight.evaluation.evaluate import evaluate
from resight.evaluation.matrix import evaluate_matrix, matrix_size, modality_weights
from resight.inference.load import load
from resight.report.heat_map import modality_heat_map
from resight.retrieval.calibration import Calibration, SubsetCurve

MODALITIES = ("rgb", "nir", "tir")


@pytest.fixture(scope="module")
def split(painted) -> Split:
    return synthetic.read(painted)


@pytest.fixture
def _few_pairs_are_enough(monkeypatch):
    monkeypatch.setattr(calibrating, "_MIN_PAIRS", 30)  # the small set has 32


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    folder = varied_model(
        tmp_path_factory.mktemp("gate") / "m", modalities=MODALITIES, fusion="gate", sie=("modality",)
    )
    return load(folder, "cpu", "fp32")


def test_subsets_are_named_in_the_models_order():
    assert all_subsets(MODALITIES) == ["rgb", "nir", "tir", "rgb+nir", "rgb+tir", "nir+tir", "rgb+nir+tir"]
    assert subset_name({"tir", "rgb"}, MODALITIES) == "rgb+tir"
    assert len(all_subsets(tuple("abcdefgh"))) == 255


def test_a_reduced_table_has_only_complete_sightings_and_their_images(split):
    first, second = split.query[0], split.query[1]
    lacking = Sighting({"rgb": first.images["rgb"]}, identity="x")
    reduced = reduce_to(SightingTable.of([first, lacking, second]), "rgb+tir")
    assert [set(sighting.images) for sighting in reduced] == [{"rgb", "tir"}] * 2
    assert [sighting.identity for sighting in reduced] == [first.identity, second.identity]


def test_every_cell_is_an_evaluation_of_its_subsets(gate, split):
    matrix = evaluate_matrix(gate, split)
    assert matrix.subsets == tuple(all_subsets(MODALITIES))
    assert matrix_size(gate, split) == 7 * split.tested
    for query, gallery in (("tir", "rgb"), ("rgb+nir", "nir+tir"), ("rgb+nir+tir", "rgb+nir+tir")):
        reduced = Split("x", SightingTable(), reduce_to(split.query, query), reduce_to(split.gallery, gallery))
        expected = evaluate(gate, reduced, Evaluation()).summary()
        cell = matrix.subsets.index(query), matrix.subsets.index(gallery)
        assert matrix.mean_ap[cell] == pytest.approx(expected["mAP"], abs=1e-6)
        assert matrix.rank1[cell] == pytest.approx(expected["R1"], abs=1e-6)
    missing = matrix.mean_ap.diagonal()[:6].mean(), matrix.rank1.diagonal()[:6].mean()
    assert matrix.missing == pytest.approx(missing)
    assert matrix.rows()[2]["query"] == "tir"
    assert matrix.rows("R1")[2]["rgb"] == matrix.rank1[2, 0]


def test_weights_are_those_of_the_fusion_and_0_for_what_is_missing(gate, split):
    table = reduce_to(split.query.take([0, 1, 2]), "rgb+tir")
    weights = modality_weights(gate, table)
    assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert not weights[:, 1].any()
    matrix = evaluate_matrix(gate, split)
    assert matrix.cost.keys() == set(matrix.subsets)
    assert matrix.cost["rgb+tir"].flops == 2 * matrix.cost["tir"].flops
    assert all(cost.images_per_second > 1 for cost in matrix.cost.values())
    assert_allclose(matrix.weights["tir"], [0, 0, 1])
    full = modality_weights(gate, split.query)
    assert_allclose(matrix.weights["rgb+nir+tir"], full.mean(0), rtol=1e-4)
    assert full.std(0).max() > 1e-3  # they depend on the images


@pytest.mark.parametrize("fusion", [None, "concat"])
def test_concatenations_of_subsets_that_share_nothing_cannot_be_compared(fusion, split, tmp_path):
    model = load(small_model(tmp_path / "m", modalities=MODALITIES, fusion=fusion, sie=("modality",)), "cpu", "fp32")
    matrix = evaluate_matrix(model, split)
    shares = [[bool(set(q.split("+")) & set(g.split("+"))) for g in matrix.subsets] for q in matrix.subsets]
    assert np.array_equal(~np.isnan(matrix.mean_ap), np.array(shares))
    assert (matrix.weights == {}) == (fusion is None)
    mean = load(tmp_path / "m", "cpu", "fp32", fusion="mean")
    assert not np.isnan(evaluate_matrix(mean, split).mean_ap).any()


def test_one_modality_has_no_matrix(split, tmp_path):
    model = load(small_model(tmp_path / "m"), "cpu", "fp32")
    with pytest.raises(EvaluationError, match="the model knows one modality, rgb"):
        evaluate_matrix(model, split)


def test_the_heat_map_shows_high_cells_brighter(gate, split, tmp_path):
    matrix = evaluate_matrix(gate, split)
    matrix.mean_ap[:] = 0.0
    matrix.mean_ap[0] = 1.0
    matrix.mean_ap[1, 1] = np.nan
    modality_heat_map(matrix, tmp_path / "new" / "map.png")
    pixels = np.asarray(Image.open(tmp_path / "new" / "map.png").convert("RGB")).astype(int)
    yellow = (abs(pixels - [253, 231, 36]).sum(2) < 12).sum()  # the high end of viridis
    purple = (abs(pixels - [68, 1, 84]).sum(2) < 12).sum()  # its low end
    assert 3 < purple / yellow < 7  # 41 cells to 7


@pytest.mark.usefixtures("_few_pairs_are_enough")
def test_a_calibration_has_curves_for_pairs_of_subsets(gate, split):
    calibrated = calibrate(gate, split, false_match_rate=0.05)
    calibration = calibrated.calibration
    assert {(c.query, c.gallery) for c in calibration.subsets} == {
        (q, g) for q in all_subsets(MODALITIES) for g in all_subsets(MODALITIES)
    }
    assert calibrated.checked_subsets.keys() == {(c.query, c.gallery) for c in calibration.subsets}
    curve = calibration.between("tir", "rgb")
    assert isinstance(curve, SubsetCurve)
    reduced = Split("x", SightingTable(), reduce_to(split.query, "tir"), reduce_to(split.gallery, "rgb"))
    result = evaluate(gate, reduced)
    similarity = result.query.vectors @ result.gallery.vectors.T
    different = result.query_labels.identity[:, None] != result.gallery_labels.identity
    assert (similarity[different] >= curve.threshold).mean() == pytest.approx(curve.false_match_rate, abs=0.01)
    assert curve.different == different.sum()
    again = Calibration.model_validate_json(calibration.model_dump_json())
    assert again.between("tir", "rgb") == curve


@pytest.mark.usefixtures("_few_pairs_are_enough")
def test_subsets_are_compared_as_sets_and_others_have_the_common_curve(gate, split):
    calibration = calibrate(gate, split, false_match_rate=0.05).calibration
    assert calibration.between("tir+rgb", "nir+rgb") == calibration.between("rgb+tir", "rgb+nir")
    for query, gallery in ((None, "rgb"), ("rgb", None), ("depth", "rgb")):
        assert calibration.between(query, gallery) is calibration


@pytest.mark.usefixtures("_few_pairs_are_enough")
def test_too_few_pairs_leave_subsets_out(gate, split):
    sightings = list(split.query)
    lacking = [Sighting({"rgb": s.images["rgb"]}, s.identity, s.camera) for s in sightings[3:]]
    table = SightingTable.of([*sightings[:3], *lacking])
    calibration = calibrate(gate, Split("x", SightingTable(), table, table), false_match_rate=0.05).calibration
    assert ("rgb", "rgb") in {(c.query, c.gallery) for c in calibration.subsets}
    assert ("tir", "tir") not in {(c.query, c.gallery) for c in calibration.subsets}


@pytest.mark.usefixtures("_few_pairs_are_enough")
def test_an_answer_has_the_probability_of_its_modalities(gate, split, tmp_path):
    calibration = calibrate(gate, split, false_match_rate=0.05).calibration
    gate.calibration = calibration
    with resight.create_gallery(f"exact:{tmp_path / 'g'}", gate) as gallery:
        gallery.ingest(reduce_to(split.gallery, "rgb+nir"))
        query = reduce_to(split.query, "tir")[0]
        answer = gallery.search(query, k=1)[0][0]
        curve = calibration.between("tir", "rgb+nir")
        assert answer.probability == pytest.approx(float(curve.of(np.array([answer.similarity]))[0]))
        assert answer.known == (answer.similarity >= curve.threshold)
        assert answer.probability != pytest.approx(float(calibration.of(np.array([answer.similarity]))[0]), abs=1e-9)
    gate.calibration = None


def test_torch_draws_are_left_alone(gate, split):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluate_matrix(gate, split)
    assert torch.equal(before, torch.get_rng_state())
