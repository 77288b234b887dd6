"""Figures of rankings and of pairs against loops: ties, one query, no match, and values worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from resight.errors import EvaluationError
from resight.retrieval import neighbors, open_set, scores
from resight.retrieval.bootstrap import difference, interval
from resight.retrieval.calibration import _STEPS, Calibration, _fractions, _logistic, calibrate, reliability
from resight.retrieval.junk import RULES, Junk, matching
from resight.retrieval.labels import Labels, compound
from resight.retrieval.metrics import measure, rank
from resight.retrieval.neighbors import nearest, top
from resight.retrieval.open_set import BINS, NonMated, Pairs, edge
from resight.retrieval.protocols import PROTOCOLS
from resight.retrieval.query_expansion import expand, pool, unit_length
from resight.retrieval.scores import InnerProducts, Matrix, chunks
from resight.retrieval.trials import draws, measure_trials, require_any_match

NONE = RULES["none"]


def labels(identity, first=0, **columns):
    return Labels.of(identity=np.array(identity), picture=np.arange(len(identity)) + first, **columns)


def matrix(rows):
    return Matrix(np.array(rows, np.float32))


def test_a_ranking_by_hand():
    """Query 0: matches at ranks 2 and 3 of 4. Query 1: none. Query 2: all items tie, so rows decide."""
    score = matrix([[0.9, 0.8, 0.7, 0.1], [1, 2, 3, 4], [0.5, 0.5, 0.5, 0.5]])
    found = rank(score, labels([1, 9, 2]), labels([5, 1, 1, 2], 10), NONE)
    assert_allclose(found.ap, [(1 / 2 + 2 / 3) / 2, np.nan, 1 / 4])
    assert_allclose(found.inp, [2 / 3, np.nan, 1 / 4])
    assert found.first.tolist() == [2, 0, 4]
    assert found.valid.tolist() == [True, False, True]
    assert (found.unmatched, found.unmatched_by_rule) == (1, 0)
    assert_allclose(found.cmc[:5], [0, 0.5, 0.5, 1, 1])
    assert len(found.cmc) == 50
    assert found.summary() == pytest.approx(
        {"mAP": (7 / 12 + 1 / 4) / 2, "mINP": (2 / 3 + 1 / 4) / 2, "R1": 0, "R5": 1, "R10": 1}
    )


def test_ranks_beyond_the_cmc_and_at_its_edges():
    score = matrix([-np.arange(60.0)] * 4)
    gallery = labels([0] * 4 + [1] + [0] * 4 + [2] + [0] * 39 + [3] + [0] * 9 + [4], 100)
    found = rank(score, labels([1, 2, 3, 4]), gallery, NONE)
    assert found.first.tolist() == [5, 10, 50, 60]
    assert_allclose(found.cmc[[3, 4, 8, 9, 48, 49]], [0, 0.25, 0.25, 0.5, 0.5, 0.75])
    assert [found.summary()[name] for name in ("R1", "R5", "R10")] == [0, 0.25, 0.5]


def test_what_the_rule_removed_is_counted():
    """Query 0 loses its only match to the rule, query 1 only has its own file, query 2 keeps one."""
    q = Labels.of(identity=np.array([1, 2, 3]), camera=np.array([0, 0, 0]), picture=np.array([0, 1, 2]))
    g = Labels.of(identity=np.array([1, 2, 3]), camera=np.array([0, 1, 1]), picture=np.array([7, 1, 8]))
    found = rank(matrix(np.eye(3)), q, g, RULES["same-camera"])
    assert found.by_rule.tolist() == [True, False, False]
    assert (found.unmatched, found.unmatched_by_rule) == (2, 1)
    assert found.map == 1
    one = labels([1], camera=np.array([0]))
    with pytest.raises(EvaluationError, match=r"no query has a match: none of the identities of the 1 queries"):
        measure(matrix([[1.0]]), one, labels([2], 9), NONE)


@pytest.mark.parametrize("seed", range(6))
def test_identities_are_counted_once_by_a_loop(seed, monkeypatch):
    """SYSU's CMC: rank of the first match among identities; an unknown identity is one of its own."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(scores, "_SCORES_BYTES", 4 * 20 * 2)  # two queries at a time
    score = rng.integers(0, 5, (5, 20)).astype(np.float32)
    q = labels(rng.integers(0, 5, 5), camera=rng.integers(0, 2, 5))
    g = labels(rng.integers(-1, 5, 20), 100, camera=rng.integers(0, 2, 20))
    rule = RULES["same-camera"]
    found = rank(matrix(score), q, g, rule, once=True)
    plain = rank(matrix(score), q, g, rule)
    assert_array_equal(found.ap, plain.ap)
    for i in range(5):
        seen, expected = set(), 0
        for j in np.argsort(-score[i], kind="stable"):
            same = q.identity[i] == g.identity[j]
            if same and q["camera"][i] == g["camera"][j]:
                continue
            seen.add(int(g.identity[j]) if g.identity[j] >= 0 else f"item {j}")
            if same:
                expected = len(seen)
                break
        assert found.first[i] == expected


@pytest.mark.parametrize("size", [15, 16, 17, 40])
@pytest.mark.parametrize("k", [1, 3, 24])
def test_nearest_of_few_items_and_many(size, k, monkeypatch):
    """Below, at and above the number of candidates; in parts of the queries and blocks of the gallery."""
    rng = np.random.default_rng(size)
    query, gallery = (rng.standard_normal((n, 4)).astype(np.float32) for n in (7, size))
    gallery[size // 2] = gallery[0]
    gallery[2:8] = gallery[1]
    q, g = (
        labels(rng.integers(0, 3, 7), camera=rng.integers(0, 2, 7)),
        labels(rng.integers(0, 3, size), 100, camera=rng.integers(0, 2, size)),
    )
    exact = np.float32(query.astype(float) @ gallery.astype(float).T)
    junk = (q.identity[:, None] == g.identity) & (q["camera"][:, None] == g["camera"])
    kept = np.where(junk, -np.inf, exact)
    order = np.argsort(-kept, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(kept, order, 1)
    for part, block, spare in ((1024, 32768, 16), (3, 5, 16), (7, size, 0), (7, size - 1, 1)):
        monkeypatch.setattr(neighbors, "_QUERIES", part)
        monkeypatch.setattr(neighbors, "_SPARE", spare)
        monkeypatch.setattr(scores, "_BLOCK", block)
        for of in (InnerProducts(query, gallery), matrix(exact)):
            found = nearest(of, k, q, g, RULES["same-camera"])
            assert_array_equal(found.scores, expected)
            assert_array_equal(found.rows, np.where(np.isneginf(expected), -1, order))
            assert_allclose(found.lowest, exact.min(1), rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(neighbors, "compiled", lambda: False)
    found = nearest(InnerProducts(query, gallery), k, q, g, RULES["same-camera"])
    assert_array_equal(found.scores, expected)
    assert_array_equal(found.rows, np.where(np.isneginf(expected), -1, order))
    assert_array_equal(found.lowest, exact.min(1))
    assert nearest(matrix(exact), 100).rows.shape == (7, size)


def test_the_top_marks_matches_of_known_identities_only():
    q, g = labels([1, -1, 2]), labels([1, -1, 2, 1], 9)
    rows, hits = top(matrix([[4, 3, 2, 1]] * 3), q, g, NONE, 4)
    assert rows.tolist() == [[0, 1, 2, 3]] * 3
    assert hits.tolist() == [[True, False, False, True], [False] * 4, [False, False, True, False]]


def test_junk_pairs_of_any_part_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    names = ("identity", "camera", "clothes", "scene", "tracklet", "picture")

    def random(n):
        time = np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 3, n) * 3600.0)
        return Labels.of(time=time, **{name: rng.integers(-1, 3, n) for name in names})

    q, g = random(9), random(14)
    for rule in RULES.values():
        expected = set()
        for i in range(9):
            for j in range(14):
                known = {n: q[n][i] >= 0 and g[n][j] >= 0 for n in names}
                junk = known["picture"] and q["picture"][i] == g["picture"][j]
                for clause in rule.clauses:
                    holds = all(known[n] and q[n][i] == g[n][j] for n in clause.same)
                    holds &= all(known[n] and q[n][i] != g[n][j] for n in clause.other)
                    if clause.seconds is not None:
                        holds &= bool(abs(q.time[i] - g.time[j]) <= clause.seconds)
                    junk |= holds
                if junk:
                    expected.add((i, j))
        junk = Junk(q, g, rule)
        for size in (1, 4, 9):
            found = set()
            for first in range(0, 9, size):
                rows, items = junk.pairs(slice(first, first + size))
                assert (np.diff(rows) >= 0).all() or rule.clauses
                found |= set(zip((rows + first).tolist(), items.tolist(), strict=True))
            assert found == expected, rule.name
        pairs, lost = matching(q, g, rule)
        same = {(i, j) for i in range(9) for j in range(14) if q.identity[i] == g.identity[j] >= 0}
        assert list(zip(*(p.tolist() for p in pairs), strict=True)) == sorted(same - expected)
        own = {(i, j) for i, j in same if q["picture"][i] == g["picture"][j] >= 0}
        for i in range(9):
            others = {pair for pair in same - own if pair[0] == i}
            assert lost[i] == (bool(others) and others <= expected)


def test_labels_of_several_columns_become_one():
    q = Labels.of(identity=np.array([0, 0, 1, -1, 2]), camera=np.array([0, 1, 0, 1, -1]))
    g = Labels.of(identity=np.array([1, 0, 2]), camera=np.array([0, 1, 5]))
    left, right = compound(q, g, ("identity", "camera"))
    assert left.tolist()[3:] == [-1, -1]
    assert (left[:3, None] == right).tolist() == [[False] * 3, [False, True, False], [True, False, False]]
    assert compound(q, g, ("view",))[0].tolist() == [-1] * 5  # a column that is absent is unknown
    assert len(set(left[:3].tolist())) == 3
    assert q.take(np.array([4, 0])).identity.tolist() == [2, 0]
    assert (len(q.take(slice(1, 3))), len(q.take(np.array([True, False, True, False, False])))) == (2, 2)
    assert q.name("camera", 3) == "3"
    assert Labels(1, {}, {"camera": ["x", "y"]}).name("camera", 1) == "y"


# name: rule, queries, gallery, columns of the draw, the rest is the queries, other cameras, CMC once, trials
RGB, NIR, TIR = ({"modality": (name,)} for name in ("rgb", "nir", "tir"))
FIELDS = {
    "market": ("same-camera", {}, {}, (), False, False, False, 1),
    "msvr310": ("same-scene", {}, {}, (), False, False, False, 1),
    "clothes-changed": ("same-camera-or-clothes", {}, {}, (), False, False, False, 1),
    "clothes-same": ("same-camera-or-other-clothes", {}, {}, (), False, False, False, 1),
    "vehicleid": ("none", {}, {}, ("identity",), True, False, False, 10),
    "sysu-all": ("same-place", NIR, {**RGB, "camera": tuple("1245")}, ("identity", "camera"), False, False, True, 10),
    "sysu-indoor": ("same-place", NIR, {**RGB, "camera": tuple("12")}, ("identity", "camera"), False, False, True, 10),
    "regdb-visible-thermal": ("none", RGB, TIR, (), False, False, False, 1),
    "regdb-thermal-visible": ("none", TIR, RGB, (), False, False, False, 1),
    "single-shot": ("same-camera", {}, {}, ("identity",), False, True, False, 10),
    "prcc-changed": ("none", {"camera": ("C",)}, {"camera": ("A",)}, ("identity",), False, False, False, 10),
    "prcc-same": ("none", {"camera": ("B",)}, {"camera": ("A",)}, ("identity",), False, False, False, 10),
    "prcc-changed-whole": ("none", {"camera": ("C",)}, {"camera": ("A",)}, (), False, False, False, 1),
    "vc-clothes-changed": ("same-camera", *[{"camera": ("3", "4")}] * 2, (), False, False, False, 1),
    "vc-clothes-same": ("same-camera", *[{"camera": ("2", "3")}] * 2, (), False, False, False, 1),
    "tracklets": ("same-tracklet", {}, {}, (), False, False, False, 1),
    "visits": ("time-window", {}, {}, (), False, False, False, 1),
    "everything": ("none", {}, {}, (), False, False, False, 1),
}


def test_every_protocol_is_what_its_paper_says():
    found = {
        name: (p.rule, p.query, p.gallery, p.draw, p.rest_is_query, p.other_camera, p.once, p.trials)
        for name, p in PROTOCOLS.items()
    }
    assert found == FIELDS
    assert {p.shots for p in PROTOCOLS.values()} == {1}
    crossing = {name for name, p in PROTOCOLS.items() if p.crosses_modalities}
    assert crossing == {"sysu-all", "sysu-indoor", "regdb-visible-thermal", "regdb-thermal-visible"}
    both = replace(PROTOCOLS["sysu-all"], gallery={"modality": ("rgb", "nir")})
    assert not both.crosses_modalities
    assert [clause.seconds for clause in RULES["time-window"].clauses] == [3600]


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_drawn_galleries_by_a_loop(shots):
    """As many of each group as there are, at most `shots`; items with an unknown label are never drawn."""
    rng = np.random.default_rng(0)
    of = labels(rng.integers(-1, 4, 60), camera=rng.integers(-1, 2, 60))
    protocol = replace(PROTOCOLS["sysu-all"], query={}, gallery={}, shots=shots)
    groups = {}
    for row, key in enumerate(zip(of.identity.tolist(), of["camera"].tolist(), strict=True)):
        if min(key) >= 0:
            groups.setdefault(key, []).append(row)
    drawn = [draws(protocol, of, of, number)[0][1].tolist() for number in range(30)]
    for rows in drawn:
        assert rows == sorted(set(rows))
        assert {key: len(set(rows) & set(members)) for key, members in groups.items()} == {
            key: min(shots, len(members)) for key, members in groups.items()
        }
        assert set(rows) <= {row for members in groups.values() for row in members}
    assert {row for rows in drawn for row in rows} == {row for members in groups.values() for row in members}
    assert len({tuple(rows) for rows in drawn}) > 1


def test_a_camera_without_a_gallery_of_other_cameras_is_left_out():
    of = labels([0, 1, 0, 1], camera=np.array([3, 3, 3, 3]))
    assert draws(PROTOCOLS["single-shot"], of, of, 0) == []
    unknown = labels([0, 1], camera=np.array([0, -1]))
    with pytest.raises(EvaluationError, match="needs every query's camera, and some are unknown"):
        draws(PROTOCOLS["single-shot"], unknown, unknown, 0)


def test_the_first_trial_must_have_a_match():
    protocol, rule = PROTOCOLS["market"], RULES["same-camera"]
    q, g = labels([0, 1], camera=np.array([0, 0])), labels([0, 1], 9, camera=np.array([0, 1]))
    require_any_match(protocol, rule, q, g)
    with pytest.raises(EvaluationError, match="of 2 queries, the rule 'same-camera' removed every match of 1 "):
        require_any_match(protocol, rule, q, labels([0, 5], 9, camera=np.array([0, 1])))
    with pytest.raises(EvaluationError, match="none of the identities of the 2 queries is in the gallery"):
        require_any_match(protocol, rule, q, labels([7, 5], 9, camera=np.array([0, 1])))


def test_figures_of_several_rankings_are_joined():
    of = labels([0, 0, 1, 1], camera=np.array([0, 1, 0, 1]))
    protocol = replace(PROTOCOLS["single-shot"], trials=2)
    trials = measure_trials(protocol, NONE, of, of, lambda a, b: Matrix(np.tile(-b, (len(a), 1))))
    assert len(trials) == 2
    for trial in trials:
        assert trial.query_rows.tolist() == [0, 2, 1, 3]
        assert trial.gallery_rows.tolist() == [0, 1, 2, 3]
        assert trial.metrics.first.tolist() == [1, 2, 1, 2]
        assert trial.metrics.ap.tolist() == [1, 0.5, 1, 0.5]
        assert len(trial.metrics.by_rule) == len(trial.metrics.inp) == 4


def test_queries_are_divided_by_memory(monkeypatch):
    assert [(part.start, part.stop) for part in chunks(10, 1)] == [(0, 10)]
    monkeypatch.setattr(scores, "_SCORES_BYTES", 4 * 7 * 3)
    assert [(part.start, part.stop) for part in chunks(7, 7)] == [(0, 3), (3, 6), (6, 7)]
    assert [(part.start, part.stop) for part in chunks(2, 10_000)] == [(0, 1), (1, 2)]
    assert len(list(chunks(3, 0))) == 1
    monkeypatch.setattr(scores, "_BLOCK", 4)
    assert [(part.start, part.stop) for part in scores.blocks_of(9)] == [(0, 4), (4, 8), (8, 9)]
    assert list(scores.blocks_of(0)) == []


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_tasks_cover_every_row_once(threads, count, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    done = []
    scores.in_threads(lambda first, last: done.append((first, last)), count)
    assert sorted(row for first, last in done for row in range(first, last)) == list(range(count))
    assert len(done) == min(threads, count)
    assert not count or max(last - first for first, last in done) <= -(-count // min(threads, count))


def test_an_inner_product_beyond_float32_is_no_fault_of_one_row():
    x = np.full((2, 2), 1e30, np.float32)
    with pytest.raises(EvaluationError, match="scale them to unit length"):
        InnerProducts(x, x).rows(slice(0, 1))
    x[1, 0] = np.inf
    with pytest.raises(EvaluationError, match="the query embedding in row 1 is not finite"):
        InnerProducts(x, np.ones((1, 2), np.float32)).rows(slice(0, 2))
    with pytest.raises(EvaluationError, match="the gallery embedding in row 1 is not finite"):
        nearest(InnerProducts(np.ones((1, 2), np.float32), x), 1)


def pairs_of(same, different):
    counts = np.zeros((2, BINS), np.int64)
    for row, values in enumerate((same, different)):
        np.add.at(counts[row], values, 1)
    return Pairs(*counts)


def test_rates_by_hand():
    pairs = pairs_of([5, 9, 9, 20], [3, 4, 5, 5, 6, 9, 10, 11, 12, BINS - 1])
    tar, far = pairs.rates()
    assert len(tar) == len(far) == BINS + 1
    assert [tar[n] for n in (0, 5, 6, 9, 10, 20, 21, BINS)] == [1, 1, 0.75, 0.75, 0.25, 0.25, 0, 0]
    assert_allclose([far[n] for n in (0, 4, 5, 6, 7, BINS - 1, BINS)], [1, 0.9, 0.8, 0.6, 0.5, 0.1, 0])
    assert pairs.at_far(0.5) == (edge(7), 0.75)
    assert pairs.at_far(0.59) == (edge(7), 0.75)
    assert pairs.at_far(0.0) == (edge(BINS), 0.0)
    assert pairs.at_far(1.0) == (-1.0, 1.0)
    threshold, error = pairs.equal_error()
    gaps = np.abs(far - (1 - tar))
    assert threshold == edge(int(gaps.argmin()))
    assert error == (far[gaps.argmin()] + 1 - tar[gaps.argmin()]) / 2
    curve = pairs.curve(4)
    assert [point["FAR"] for point in curve] == [0, 0, 0, 1]
    assert [point["threshold"] for point in curve] == [1, 1, 1, -1]
    assert [point["FNMR"] for point in curve] == [1, 1, 1, 0]
    assert len(pairs.curve()) == 61
    assert [point["FAR"] for point in pairs.curve(13)][-3:] == [0.1, 0.3, 1]
    empty = pairs_of([], [1])
    assert not empty.rates()[0].any()


def test_edges_and_bins_are_inverse():
    assert (edge(0), edge(BINS // 2), edge(BINS), edge(BINS // 4)) == (-1, 0, 1, -0.5)
    counts = np.zeros(BINS, np.int64)
    values = np.float32([[-1, -2, 0.5, 1], [2, 0.25, -np.inf, -0.5]])
    open_set._count(values, counts)
    expected = {0: 2, int(0.75 * BINS): 1, BINS - 1: 2, int(0.625 * BINS): 1, BINS // 4: 1}
    assert {int(n): int(counts[n]) for n in np.flatnonzero(counts)} == expected
    open_set._count(values, counts)  # they are added to
    assert counts.sum() == 14


def test_identification_by_hand():
    known, unmatched = np.float32([0.9, 0.5, -np.inf, 0.7]), np.float32([0.1, 0.8, 0.6, 0.5, 0.3])
    case = NonMated(known, unmatched, False)
    after = [float(np.nextafter(np.float32(x), np.float32(2))) for x in (0.8, 0.6, 0.5)]
    assert case.at_fpir(0.0) == (after[0], 0.25)
    assert case.at_fpir(0.19) == (after[0], 0.25)
    assert case.at_fpir(0.2) == (after[1], 0.5)
    assert case.at_fpir(0.4) == (after[2], 0.5)
    threshold, rate = case.at_fpir(1.0)
    assert rate == 0.75
    assert threshold < -1e38


@pytest.mark.parametrize("rule", ["none", "same-camera"])
@pytest.mark.parametrize("non_mated", [True, False])
def test_open_set_by_a_loop_over_pairs(rule, non_mated, monkeypatch):
    """With unknown identities on both sides and ties between a match and another item, two queries at a time."""
    monkeypatch.setattr(scores, "_SCORES_BYTES", 4 * 12 * 2)
    x = np.float32([[1, 0], [0, 1], [0.6, 0.8], [-1, 0], [0.8, -0.6]])
    rng = np.random.default_rng(2)
    query, gallery = x[[0, 1, 2, 3, 4, 0, 1]], x[rng.integers(0, 5, 12)]
    q = labels([0, 1, 2, -1, 7 if non_mated else 0, 1, 2], camera=np.array([0, 1, 0, 1, 0, 1, 1]))
    g = labels(rng.integers(-1, 3, 12), 100, camera=rng.integers(0, 2, 12))
    found = open_set.open_set(InnerProducts(query, gallery), q, g, RULES[rule])
    same, different = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    known, lone, others = [], [], []
    exact = np.float32(query.astype(float) @ gallery.astype(float).T)
    for i in range(7):
        best = {True: -np.inf, False: -np.inf}
        for j in range(12):
            match = q.identity[i] == g.identity[j]
            junk = rule == "same-camera" and match and q["camera"][i] == g["camera"][j]
            if g.identity[j] < 0 or (junk and q.identity[i] >= 0):
                continue
            best[bool(match)] = max(best[bool(match)], exact[i, j])
            if q.identity[i] >= 0:
                bin_ = min(BINS - 1, max(0, int(np.floor((float(exact[i, j]) + 1) * BINS / 2))))
                (same if match else different)[bin_] += 1
        if np.isfinite(best[True]):
            known.append(best[True] if best[True] > best[False] else -np.inf)
            others.append(best[False])
        elif q.identity[i] >= 0:
            lone.append(best[False])
    assert_array_equal(found.pairs.same, same)
    assert_array_equal(found.pairs.different, different)
    assert found.non_mated.known.tolist() == pytest.approx(known)
    assert found.non_mated.left_out == (not lone)
    assert found.non_mated.unmatched.tolist() == pytest.approx(lone or others)
    summary = found.summary()
    assert summary["EER"] == found.pairs.equal_error()[1]
    for rate in (1e-2, 1e-3, 1e-4):
        assert (summary[f"threshold@FAR={rate:g}"], summary[f"TAR@FAR={rate:g}"]) == found.pairs.at_far(rate)
    for rate in (1e-2, 1e-3):
        reached = (summary[f"threshold@FPIR={rate:g}"], summary[f"DIR@FPIR={rate:g}"])
        assert reached == found.non_mated.at_fpir(rate)
    assert len(summary) == 2 + 6 + 4


def test_pairs_of_one_kind_only_are_refused():
    x = np.ones((2, 1), np.float32)
    with pytest.raises(EvaluationError, match="need pairs of different identities"):
        open_set.open_set(InnerProducts(x, x), labels([1, 1]), labels([1, 1], 5), NONE)


def test_steps_of_similarity_by_hand():
    width = BINS // 4096
    assert _STEPS == 4096
    pairs = pairs_of([0, width - 1, width, BINS - 1], [1, 5 * width + 3])
    fraction, weight, similarity = _fractions(pairs)
    assert_allclose(weight, [0.25 + 0.25, 0.125, 0.25, 0.125])
    assert_allclose(weight.sum(), 1)
    assert_allclose(fraction, [0.5, 1, 0, 1])
    assert_allclose(similarity, [edge(step * width + width // 2) for step in (0, 1, 5, 4095)])


def test_the_logistic_curve_has_the_least_cross_entropy():
    rng = np.random.default_rng(0)
    similarity, weight = np.linspace(-0.4, 0.9, 40), rng.random(40)
    fraction = expit(6 * similarity - 2 + 0.3 * rng.standard_normal(40))
    slope, offset = _logistic(fraction, weight / weight.sum(), similarity)

    def loss(a, b):
        p = expit(a * similarity + b)
        return -(weight * (fraction * np.log(p) + (1 - fraction) * np.log(1 - p))).sum()

    best = loss(slope, offset)
    for a, b in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02), (0.02, -0.01), (-0.02, 0.01)):
        assert loss(slope + a, offset + b) > best
    assert (slope, offset) == pytest.approx((6, -2), abs=0.4)


def test_both_ends_of_every_constant_interval_are_stored():
    width = BINS // 4096
    fine = width // 8  # the pairs take 501 of the 4,096 steps: 4,000 narrower ones, since 2,000 are too few
    middles = [step * width for step in (100, 200, 300, 400, 500, 600)]
    same = np.repeat(middles, (0, 2, 2, 2, 1, 9))
    different = np.repeat(middles, (6, 4, 4, 4, 2, 0))
    found = calibrate(pairs_of(same, different), 0.1, "by hand")
    # The four steps in the middle have 1 of 3 pairs of one identity, in different numbers: one constant interval.
    middle = (2 / 16) / (2 / 16 + 4 / 20)
    assert_allclose(found.similarity, [round(edge(m + fine // 2), 8) for m in np.array(middles)[[0, 1, 4, 5]]])
    assert_allclose(found.probability, [1e-6, middle, middle, 1 - 1e-6], atol=2e-7)
    assert (found.same, found.different, found.dataset, found.false_match_rate) == (16, 20, "by hand", 0.1)
    assert (found.threshold, found.true_match_rate) == pairs_of(same, different).at_far(0.1)


def curve(**changes):
    values = {
        "slope": 4.0, "offset": -1.0, "similarity": (-0.5, 0.5), "probability": (0.2, 0.8), "threshold": 0.1,
        "false_match_rate": 0.1, "true_match_rate": 0.5, "dataset": "x", "same": 1, "different": 1,
    }  # fmt: skip
    return Calibration(**values | changes)


def test_probabilities_by_bayes_rule():
    found = curve()
    similarity = np.array([[-1.0, -0.5], [0.25, 0.7]])
    straight = np.array([[0.2, 0.2], [0.65, 0.8]])
    logistic = 1 / (1 + np.exp(-(4 * similarity - 1)))
    for method, p in (("isotonic", straight), ("logistic", logistic)):
        for prior in (0.5, 0.1, 0.9):
            expected = p * prior / (p * prior + (1 - p) * (1 - prior))
            assert_allclose(found.of(similarity, prior, method), expected, rtol=1e-9)
    assert_allclose(found.of(np.array(0.25)), 0.65)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probability": (0.2,)}, "2 similarities have 1 probabilities"),
        ({"similarity": (0.5, 0.5)}, "similarity is not ascending"),
        ({"similarity": (0.6, 0.5)}, "similarity is not ascending"),
        ({"probability": (0.8, 0.7)}, "probability is descending"),
    ],
)
def test_what_is_no_curve_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        curve(**changes)
    curve(probability=(0.3, 0.3))


def test_reliability_by_a_loop():
    rng = np.random.default_rng(0)
    pairs = pairs_of(rng.integers(BINS // 3, BINS, 300), rng.integers(0, 2 * BINS // 3, 500))
    found = curve()
    for method in ("isotonic", "logistic"):
        table, error = reliability(found, pairs, method, bins=4)
        fraction, weight, similarity = _fractions(pairs)
        predicted = found.of(similarity, method=method)
        expected, gap = np.full((4, 3), np.nan), 0.0
        for b in range(4):
            chosen = (predicted >= b / 4) & ((predicted < (b + 1) / 4) | (b == 3))
            total = weight[chosen].sum()
            expected[b, 2] = total
            if total:
                expected[b, :2] = [(weight * v)[chosen].sum() / total for v in (predicted, fraction)]
                gap += total * abs(expected[b, 0] - expected[b, 1])
        assert_allclose(table, expected, rtol=1e-9)
        assert_allclose(error, gap / weight.sum(), rtol=1e-9)
    assert reliability(curve(probability=(0.99999, 1.0 - 1e-6)), pairs, "isotonic")[0].shape == (10, 3)


def test_a_false_match_rate_at_its_limit():
    pairs = pairs_of(range(900, 1000), range(100))
    assert calibrate(pairs, 0.01, "x").threshold == edge(99)
    with pytest.raises(EvaluationError, match="it takes 101 at least"):
        calibrate(pairs, 0.0099999, "x")


def naive_means(values, identity, seed, draws):
    rng, names = np.random.default_rng(seed), sorted(set(identity[~np.isnan(values)].tolist()))
    rows = {name: [v for v, i in zip(values, identity, strict=True) if i == name and v == v] for name in names}
    means = []
    for _ in range(draws):
        drawn = [v for n in rng.integers(len(names), size=len(names)) for v in rows[names[n]]]
        means.append(sum(drawn) / len(drawn))
    return np.array(means)


def test_intervals_by_a_loop():
    rng = np.random.default_rng(1)
    values, identity = rng.random(30), rng.integers(0, 7, 30)
    values[[3, 8]] = np.nan
    means = naive_means(values, identity, 5, 40)
    found = interval(values, identity, 5, 40)
    assert_allclose([found.value, found.low, found.high], [np.nanmean(values), *np.quantile(means, [0.025, 0.975])])
    second = values + 0.05 * rng.standard_normal(30)
    for a, b in ((values, second), (second, values)):
        means = naive_means(b - a, identity, 5, 40)
        compared, value = difference(a, b, identity, 5, 40), np.nanmean(b - a)
        other = (means <= 0).mean() if value > 0 else (means >= 0).mean()
        assert_allclose(compared.p, min(1, 2 * max(other, 1 / 40)))
        assert_allclose([compared.value, compared.low, compared.high], [value, *np.quantile(means, [0.025, 0.975])])
    certain = difference(np.zeros(6), np.ones(6), np.arange(6), draws=50)
    assert (certain.value, certain.low, certain.high, certain.p) == (1, 1, 1, 2 / 50)
    assert difference(np.ones(6), np.zeros(6), np.arange(6), draws=50).p == 2 / 50
    assert difference(np.ones(2), np.zeros(2), np.arange(2)).p == 2 / 2000  # as many draws by default


def test_expansion_with_negative_similarities_and_copies():
    """A similarity below 0 has weight 0; a row with copies is not counted as its own neighbour twice."""
    x = unit_length(np.float32([[1, 0], [0.8, 0.6], [-1, 0.1]]))
    found = expand(x[:1], x, 3, power=2.0)
    weights = np.maximum(x @ x[0], 0) ** 2
    assert_allclose(found, unit_length((x[0] + (weights[:, None] * x).sum(0))[None]), rtol=1e-5)
    copies = unit_length(np.float32([[1, 0], [1, 0], [1, 0], [0.8, 0.6]]))
    rows = expand(copies, copies, 1, power=0.0, within=True)
    assert_allclose(rows[:3], copies[:3], atol=1e-6)  # each is averaged with a copy
    assert_allclose(rows[3], unit_length(copies[3:] + copies[:1])[0], rtol=1e-5)
    several = expand(copies, copies, 2, power=1.0, within=True)
    assert_allclose(several[3], unit_length(copies[3:] + 2 * 0.8 * copies[:1])[0], rtol=1e-5)
    assert_allclose(unit_length(np.float32([[0, 0], [3, 4]])), [[0, 0], [0.6, 0.8]])


def test_pooling_by_a_loop():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((25, 3)).astype(np.float16)
    of = labels(rng.integers(-1, 4, 25), camera=rng.integers(-1, 2, 25))
    for how, function in (("mean", np.mean), ("max", np.max)):
        pooled, first = pool(x, of, ("identity", "camera"), how)
        groups = {}
        for n in range(25):
            key = (int(of.identity[n]), int(of["camera"][n]))
            groups.setdefault(f"item {n}" if min(key) < 0 else key, []).append(n)
        assert first.tolist() == [rows[0] for rows in groups.values()]
        expected = np.stack([function(x[rows].astype(np.float32), axis=0) for rows in groups.values()])
        assert_allclose(pooled, unit_length(expected), rtol=1e-5)
