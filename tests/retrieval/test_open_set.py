"""Verification, non-mated queries, calibration and intervals against plain writings of their definitions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from resight.errors import EvaluationError
from resight.retrieval.bootstrap import difference, interval
from resight.retrieval.calibration import Calibration, calibrate, reliability
from resight.retrieval.junk import RULES
from resight.retrieval.labels import Labels
from resight.retrieval.open_set import BINS, Pairs, open_set
from resight.retrieval.scores import InnerProducts


def case(seed=0, queries=30, size=200, identities=12, non_mated=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities + 1, 16))
    who = [rng.integers(0, identities, n) for n in (queries, size)]
    who[0][:non_mated] = identities
    x = [centres[ids] + 0.9 * rng.standard_normal((len(ids), 16)) for ids in who]
    x = [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in x]
    labels = [Labels.of(identity=ids, camera=rng.integers(0, 3, len(ids))) for ids in who]
    return x[0], x[1], *labels


def naive_pairs(query, gallery, q, g):
    same, different = [], []
    for i in range(len(query)):
        for j in range(len(gallery)):
            score = float(query[i] @ gallery[j])
            if q.identity[i] != g.identity[j]:
                different.append(score)
            elif q["camera"][i] != g["camera"][j]:
                same.append(score)
    return np.array(same), np.array(different)


def test_verification_equals_all_pairs():
    query, gallery, q, g = case()
    found = open_set(InnerProducts(query, gallery), q, g, RULES["same-camera"]).pairs
    same, different = naive_pairs(query, gallery, q, g)
    assert (found.same.sum(), found.different.sum()) == (len(same), len(different))
    for far in (1e-1, 1e-2, 1e-3):
        threshold, tar = found.at_far(far)
        assert (different >= threshold).mean() <= far
        assert (different >= threshold - 1e-4).mean() > far - 2 / len(different)  # and no higher than it must be
        assert_allclose(tar, (same >= threshold).mean(), atol=1e-9)
    for point in found.curve():
        assert_allclose(point["FAR"], (different >= point["threshold"]).mean(), atol=1e-9)
        assert_allclose(point["FNMR"], (same < point["threshold"]).mean(), atol=1e-9)
    threshold, error = found.equal_error()
    assert_allclose(error, ((different >= threshold).mean() + (same < threshold).mean()) / 2, atol=1e-9)
    grid = np.linspace(-1, 1, 4001)
    gaps = [abs((different >= t).mean() - (same < t).mean()) for t in grid]
    assert abs((different >= threshold).mean() - (same < threshold).mean()) <= min(gaps) + 1e-3


@pytest.mark.parametrize("count", [0, 10])
def test_non_mated_queries_by_a_loop(count):
    query, gallery, q, g = case(non_mated=count)
    measured = open_set(InnerProducts(query, gallery), q, g, RULES["none"]).non_mated
    assert measured.left_out == (count == 0)
    known, unknown = [], []
    for i in range(len(query)):
        scores = np.float32(query[i].astype(float) @ gallery.astype(float).T)
        match = g.identity == q.identity[i]
        if match.any():
            known.append(scores[match].max() if scores[match].max() > scores[~match].max() else -np.inf)
        if count == 0 or not match.any():
            unknown.append(scores[~match].max())
    for rate in (0.0, 0.1, 0.5):
        threshold, identified = measured.at_fpir(rate)
        assert (np.array(unknown) >= threshold).mean() <= rate
        assert (np.array(unknown) >= threshold - 1e-5).mean() > rate - 1 / len(unknown)
        assert_allclose(identified, (np.array(known) >= threshold).mean())


def test_unknown_identities_take_no_part():
    query, gallery, q, g = case()
    hidden = Labels.of(identity=np.where(np.arange(200) < 50, -1, g.identity), camera=g["camera"])
    remaining = Labels.of(identity=g.identity[50:], camera=g["camera"][50:])
    a = open_set(InnerProducts(query, gallery), q, hidden, RULES["none"])
    b = open_set(InnerProducts(query, gallery[50:]), q, remaining, RULES["none"])
    assert a.summary() == b.summary()


def test_no_pair_of_one_identity():
    query, gallery, q, _ = case()
    others = Labels.of(identity=np.full(200, 99))
    with pytest.raises(EvaluationError, match="need pairs of one identity"):
        open_set(InnerProducts(query, gallery), q, others, RULES["none"])


def known_pairs(seed=0, count=400_000):
    """Pairs whose probability of one identity is known: log odds = 12 s - 5 at a prior of 1/2."""
    rng = np.random.default_rng(seed)
    s = rng.uniform(-0.5, 1, count)
    same = rng.random(count) < 1 / (1 + np.exp(-(12 * s - 5)))
    counts = [np.bincount(((s[m] + 1) * BINS / 2).astype(int), minlength=BINS) for m in (same, ~same)]
    return Pairs(*counts), same.mean()


def test_calibration_finds_the_true_curve():
    pairs, share = known_pairs()
    found = calibrate(pairs, 1e-2, "made up")
    # The kinds are weighted alike, so the odds are over the share's own.
    offset = -5 - np.log(share / (1 - share))
    assert_allclose([found.slope, found.offset], [12, offset], rtol=0.02)
    s = np.linspace(-0.2, 0.9, 12)
    true = 1 / (1 + np.exp(-(12 * s + offset)))
    assert_allclose(found.of(s, method="logistic"), true, atol=0.02)
    assert_allclose(found.of(s), true, atol=0.06)
    assert (np.diff(found.of(np.linspace(-1, 1, 500))) >= 0).all()
    fresh, _ = known_pairs(1)
    for method in ("logistic", "isotonic"):
        curve, error = reliability(found, fresh, method)
        assert error < 0.01
        filled = ~np.isnan(curve[:, 0])
        assert_allclose(curve[filled, 0], curve[filled, 1], atol=0.06)


def test_a_prior_moves_the_odds():
    found = calibrate(known_pairs()[0], 1e-2, "made up")
    p, rare = found.of(np.array([0.6])), found.of(np.array([0.6]), prior=0.01)
    assert_allclose(rare / (1 - rare), p / (1 - p) * 0.01 / 0.99)


def test_the_threshold_lets_the_wanted_share_pass():
    pairs, _ = known_pairs()
    found = calibrate(pairs, 1e-3, "made up")
    over = int((found.threshold + 1) * BINS / 2 + 0.5)
    assert pairs.different[over:].sum() / pairs.different.sum() <= 1e-3
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_too_few_pairs_for_a_false_match_rate():
    counts = np.zeros(BINS, np.int64)
    counts[[5, 9]] = 50
    with pytest.raises(EvaluationError, match=r"cannot be measured with 100 pairs.*1000 at least"):
        calibrate(Pairs(counts, counts), 1e-3, "few")


def test_intervals_draw_identities():
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(40), 10)
    values = np.repeat(rng.random(40), 10)  # queries of one identity agree: 40 facts, not 400
    found = interval(values, identity)
    assert_allclose(found.value, values.mean())
    spread = values[::10].std() / np.sqrt(40)
    assert_allclose([found.low, found.high], [values.mean() - 1.96 * spread, values.mean() + 1.96 * spread], atol=0.02)
    assert found == interval(values, identity)
    with_unmatched = np.append(values, np.nan), np.append(identity, 99)
    assert interval(*with_unmatched) == found


def test_difference_is_paired():
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(50), 4)
    first = rng.random(200)  # queries differ widely; the second run is a little better on each
    better = difference(first, first + 0.01 + 0.005 * rng.standard_normal(200), identity)
    assert better.low > 0
    assert better.p < 0.01
    same = difference(first, first + 0.05 * rng.standard_normal(200), identity)
    assert same.low < 0 < same.high
    assert same.p > 0.05
    assert difference(first, first, identity).p == 1


def test_similarities_close_together_have_a_curve():
    """All similarities within 0.0005, as those of a small model: the curve still orders them and is calibrated."""
    rng = np.random.default_rng(0)
    same, different = 0.9998 + 0.0001 * rng.standard_normal(4000), 0.9995 + 0.0001 * rng.standard_normal(20_000)
    pairs = Pairs(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))
    for counts, scores in ((pairs.same, same), (pairs.different, different)):
        np.add.at(counts, np.floor((scores.clip(-1, 1 - 1e-7) + 1) * BINS / 2).astype(int), 1)
    calibration = calibrate(pairs, 1e-3, "x")
    assert len(calibration.similarity) > 20
    low, middle, high = calibration.of(np.array([0.9994, 0.99965, 0.9999]))
    assert low < 0.05
    assert 0.3 < middle < 0.7
    assert high > 0.95
    exact = (same >= calibration.threshold).mean()
    assert calibration.true_match_rate == pytest.approx(exact, abs=0.02)
