"""Metrics against golden numbers and against a naive loop over each query."""

import golden_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from resight.errors import EvaluationError
from resight.retrieval import scores
from resight.retrieval.junk import RULES, matching
from resight.retrieval.kernels import counting, products
from resight.retrieval.labels import Labels
from resight.retrieval.metrics import measure
from resight.retrieval.neighbors import nearest, top
from resight.retrieval.scores import InnerProducts, Matrix

MARKET = RULES["same-camera"]
COUNTERS = (counting.by_blocks, counting.by_rows, counting.by_torch)


@pytest.fixture(scope="module")
def golden():
    with np.load(golden_cases.GOLDEN / "retrieval.npz") as arrays:
        return dict(arrays)


def keys(golden, part, offset=0):
    identity = golden[f"{part}_ids"]
    return Labels.of(identity=identity, camera=golden[f"{part}_cams"], picture=np.arange(len(identity)) + offset)


@pytest.mark.parametrize("small", [False, True])
def test_golden_ranking(golden, small, monkeypatch):
    if small:  # many chunks and blocks
        monkeypatch.setattr(scores, "_BLOCK", 37)
        monkeypatch.setattr(counting, "_QUERIES", 7)
    found = measure(
        InnerProducts(golden["query"], golden["gallery"]), keys(golden, "query"), keys(golden, "gallery", 1000), MARKET
    )
    assert_allclose(found.cmc, golden["cmc"], atol=1e-6)
    assert_allclose(found.map, golden["mAP"], atol=1e-6)


def naive(query, gallery, q, g, rule):
    """AP, inverse negative penalty and first match of each query, by the definitions; None where there is no match."""
    rows = []
    for i in range(len(query)):
        kept = []
        for j in range(len(gallery)):
            same = q["identity"][i] == g["identity"][j] >= 0
            junk = q["picture"][i] == g["picture"][j]
            if rule == "same-camera":
                junk = junk or (same and q["camera"][i] == g["camera"][j] >= 0)
            if not junk:
                kept.append((-np.float32(np.dot(query[i].astype(float), gallery[j].astype(float))), j, same))
        hits = [same for _, _, same in sorted(kept)]
        ranks = [r for r, hit in enumerate(hits, start=1) if hit]
        ap = np.mean([(n + 1) / r for n, r in enumerate(ranks)]) if ranks else None
        rows.append((ap, len(ranks) / ranks[-1], ranks[0]) if ranks else None)
    return rows


@st.composite
def rankings(draw):
    """A few queries and gallery items, of few identities and cameras, unknown ones too, some the same file."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    queries, size, width = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.sampled_from([1, 3, 40]))
    kind = draw(st.sampled_from(["whole", "any", "copies"]))
    if kind == "whole":  # few and whole numbers: scores are exact and tie often
        query, gallery = (rng.integers(-1, 2, (n, width)).astype(np.float32) for n in (queries, size))
    else:
        query, gallery = (rng.standard_normal((n, width)).astype(np.float32) + 3 for n in (queries, size))
    if kind == "copies":  # the same picture twice and more: scores tie, and are no round numbers
        gallery = gallery[rng.integers(0, 3, size) % size]
    if draw(st.booleans()):
        query, gallery = query.astype(np.float16), gallery.astype(np.float16)
    identities = draw(st.integers(1, 4))
    labels = [
        Labels.of(
            identity=rng.integers(-1, identities, n), camera=rng.integers(-1, 3, n), picture=rng.integers(0, 15, n)
        )
        for n in (queries, size)
    ]
    return query, gallery, *labels


@settings(max_examples=150, deadline=None)
@given(rankings(), st.sampled_from(["same-camera", "none"]), st.sampled_from(COUNTERS))
def test_equals_a_loop(ranking, name, count):
    query, gallery, q, g = ranking
    rule = RULES[name]
    expected = naive(query, gallery, q, g, name)
    valid = [row for row in expected if row is not None]
    if not valid:
        with pytest.raises(EvaluationError, match="no query has a match"):
            measure(InnerProducts(query, gallery), q, g, rule)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resight.retrieval.metrics.count_before", count)
        found = measure(InnerProducts(query, gallery), q, g, rule)
    assert_allclose([found.map, found.minp], np.mean([row[:2] for row in valid], axis=0), atol=1e-9)
    assert list(found.first) == [0 if row is None else row[2] for row in expected]
    assert found.unmatched == len(expected) - len(valid)
    assert_allclose(found.r1, np.mean([row[2] == 1 for row in valid]))


def clustered(rng, queries=40, size=700, width=96, spread=1.0):
    """Embeddings of 30 identities with a common mean, as a network's have."""
    centres, mean = rng.standard_normal((30, width)), 4 * rng.standard_normal(width)
    who = [rng.integers(0, 30, n) for n in (queries, size)]
    x = [mean + centres[ids] + spread * rng.standard_normal((len(ids), width)) for ids in who]
    x = [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in x]
    labels = [
        Labels.of(identity=ids, camera=rng.integers(0, 4, len(ids)), picture=np.arange(len(ids)) + 1000 * n)
        for n, ids in enumerate(who)
    ]
    return x[0], x[1], *labels


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_approximate_products_count_as_exact_ones(bf16, spread, monkeypatch):
    monkeypatch.setattr(products, "bf16_product_is_faster", lambda: bf16)
    monkeypatch.setattr(counting, "blocks_of", lambda n: (slice(a, min(a + 300, n)) for a in range(0, n, 300)))
    for seed in range(3):
        query, gallery, q, g = clustered(np.random.default_rng(seed), spread=spread)
        matches, _ = matching(q, g, MARKET)
        order = [np.float32(query.astype(float) @ gallery.astype(float).T)] * 2
        expected = counting.by_rows(Matrix(order[0]), q, g, MARKET, matches)
        found = counting.by_blocks(InnerProducts(query, gallery), q, g, MARKET, matches)
        np.testing.assert_array_equal(found, expected)


def test_the_error_of_approximate_products_is_within_its_bound():
    """Of bf16 products, with the mean in and with wild lengths: never more than what is claimed."""
    rng = np.random.default_rng(0)
    query, gallery, *_ = clustered(rng, queries=20, size=200)
    gallery = gallery * rng.uniform(0.1, 30, (200, 1)).astype(np.float32)
    middle = rng.uniform(-1, 1, 20)
    made = products.Products(query, gallery.mean(0), middle)
    error = made.take(gallery)
    near = made.near(slice(0, 20)).astype(np.uint32) << 16
    near = near.view(np.float32)
    off = np.abs(near + middle[:, None] - query.astype(float) @ gallery.astype(float).T)
    assert (off <= error[:, None] + 2.0**-8 * np.abs(near)).all()
    assert off.max() > 1e-5  # or the test would show nothing
    in_float32 = np.abs(query @ gallery.T - query.astype(float) @ gallery.astype(float).T)
    assert (in_float32 <= made.slack[:, None]).all()


def test_keys_in_doubt_are_the_tightest():
    """Against every bf16 number there is."""
    values = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    values = values[np.isfinite(values)].astype(float)
    key = products._key(values.astype(np.float32))
    assert (np.diff(values[np.argsort(key)]) >= 0).all()
    rng = np.random.default_rng(0)
    score = np.float32(np.concatenate([rng.uniform(-1, 1, 300), 10.0 ** rng.uniform(-9, 0, 100), [0, 0.5, -0.5]]))
    middle, error = (
        np.float64(rng.uniform(-0.2, 0.2, 403) * (np.arange(403) % 2)),
        np.float32(rng.uniform(0, 1e-2, 403)),
    )
    sure, maybe = products.keys_in_doubt(score, middle, error)
    for n in range(403):
        off = error[n] + 2.0**-22 * abs(score[n])
        above = values - 2.0**-8 * np.abs(values) > score[n].astype(float) - middle[n] + off
        reach = values + 2.0**-8 * np.abs(values) >= score[n].astype(float) - middle[n] - off
        assert 0 <= sure[n] - key[above].min() <= 1  # one of float32's rounding, on the safe side
        assert 0 <= key[reach].min() - maybe[n] <= 1


def test_nearest_is_a_stable_sort_without_junk():
    rng = np.random.default_rng(1)
    query, gallery, q, g = clustered(rng)
    gallery[300:600] = gallery[:300]  # every third twice
    exact = np.float32(query.astype(float) @ gallery.astype(float).T)
    junk = (q["identity"][:, None] == g["identity"]) & (q["camera"][:, None] == g["camera"])
    expected = np.argsort(-np.where(junk, -np.inf, exact), axis=1, kind="stable")[:, :25]
    for scores_of in (InnerProducts(query, gallery), Matrix(exact)):
        np.testing.assert_array_equal(nearest(scores_of, 25, q, g, MARKET).rows, expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resight.retrieval.neighbors.compiled", lambda: False)
        np.testing.assert_array_equal(nearest(InnerProducts(query, gallery), 25, q, g, MARKET).rows, expected)


def test_nearest_of_copies_beyond_the_spare_ones():
    query, gallery = np.ones((1, 4), np.float32), np.full((200, 4), 0.3, np.float32)
    assert nearest(InnerProducts(query, gallery), 5).rows.tolist() == [[0, 1, 2, 3, 4]]


def test_top_leaves_junk_out():
    query, gallery = np.ones((1, 1), np.float32), np.array([[3.0], [2.0], [1.0]], np.float32)
    q = Labels.of(identity=np.array([7]), camera=np.array([0]), picture=np.array([9]))
    g = Labels.of(identity=np.array([7, 7, 8]), camera=np.array([0, 1, 0]), picture=np.array([0, 1, 2]))
    nearest_rows, hits = top(InnerProducts(query, gallery), q, g, MARKET, 3)
    assert nearest_rows.tolist() == [[1, 2, -1]]
    assert hits.tolist() == [[True, False, False]]


def test_more_matches_than_a_table_counts():
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((40_000, 2)).astype(np.float32)
    q = Labels.of(identity=np.zeros(1), picture=np.array([-1]))
    g = Labels.of(identity=np.zeros(40_000), picture=np.arange(40_000))
    found = measure(InnerProducts(gallery[:1], gallery), q, g, MARKET)
    assert found.map == 1


@pytest.mark.parametrize("count", COUNTERS)
def test_an_embedding_that_is_no_number_is_named(count):
    query, gallery, q, g = clustered(np.random.default_rng(0))
    gallery[123, 5] = np.nan
    matches, _ = matching(q, g, MARKET)
    with pytest.raises(EvaluationError, match="gallery embedding in row 123 is not finite"):
        count(InnerProducts(query, gallery), q, g, MARKET, matches)


def test_says_which_rule_removed_every_match():
    one = Labels.of(identity=np.array([5]), camera=np.array([1]), picture=np.array([0]))
    other = Labels.of(identity=np.array([5]), camera=np.array([1]), picture=np.array([1]))
    x = np.ones((1, 1), np.float32)
    with pytest.raises(EvaluationError, match=r"same-camera.*removed every match of 1 .*--junk none"):
        measure(InnerProducts(x, x), one, other, MARKET)


def test_float16_on_disk_ranks_as_in_memory(tmp_path):
    query, gallery, q, g = clustered(np.random.default_rng(3))
    np.save(tmp_path / "g.npy", gallery.astype(np.float16))
    mapped = np.load(tmp_path / "g.npy", mmap_mode="r")
    a = measure(InnerProducts(query, mapped), q, g, MARKET)
    b = measure(InnerProducts(query, gallery.astype(np.float16).astype(np.float32)), q, g, MARKET)
    np.testing.assert_array_equal(a.ap, b.ap)
