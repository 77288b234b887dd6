"""Metrics against golden numbers and against a naive loop over each query."""

import golden_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from resight.errors import EvaluationError
from resight.retrieval import metrics
from resight.retrieval.junk import Keys
from resight.retrieval.metrics import inner_products, measure, top
from resight.retrieval.rerank import rerank


@pytest.fixture(scope="module")
def golden():
    with np.load(golden_cases.GOLDEN / "retrieval.npz") as held:
        return dict(held)


def keys(golden, part, offset=0):
    identity = golden[f"{part}_ids"]
    return Keys(identity, golden[f"{part}_cams"], np.arange(len(identity)) + offset)


@pytest.mark.parametrize("chunk", [metrics._CHUNK_BYTES, 8 * 400 * 7])
def test_golden_ranking(golden, chunk, monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK_BYTES", chunk)
    scores = inner_products(golden["query"], golden["gallery"])
    found = measure(scores, keys(golden, "query"), keys(golden, "gallery", 1000), "same-camera")
    assert_allclose(found.cmc, golden["cmc"], atol=1e-6)
    assert_allclose(found.map, golden["mAP"], atol=1e-6)


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (50, 15)])
def test_golden_reranking(golden, k1, k2):
    as_reference = rerank(golden["query"], golden["gallery"], k1, k2, 0.3, sums=np.float16)
    assert_allclose(as_reference, golden[f"rerank_{k1}_{k2}_dist"], rtol=0, atol=3e-3)
    distances = rerank(golden["query"], golden["gallery"], k1, k2, 0.3)
    assert_allclose(distances, as_reference, rtol=0, atol=5e-3)  # the reference's sums in float16
    found = measure(lambda part: -distances[part], keys(golden, "query"), keys(golden, "gallery", 1000), "same-camera")
    assert_allclose(found.map, golden[f"rerank_{k1}_{k2}_mAP"], rtol=0, atol=1e-3)
    assert_allclose(found.cmc, golden[f"rerank_{k1}_{k2}_cmc"], rtol=0, atol=1.5 / 60)  # good to one query of 60


def naive(query, gallery, q, g, rule):
    """AP, inverse negative penalty and first match of each query, by the definitions; None where there is no match."""
    rows = []
    for i in range(len(query)):
        kept = []
        for j in range(len(gallery)):
            same = q.identity[i] == g.identity[j] >= 0
            junk = q.picture[i] == g.picture[j]
            if rule == "same-camera":
                junk = junk or (same and q.camera[i] == g.camera[j] >= 0)
            if not junk:
                kept.append((-float(query[i] @ gallery[j]), j, same))
        hits = [same for _, _, same in sorted(kept)]
        ranks = [r for r, hit in enumerate(hits, start=1) if hit]
        ap = np.mean([(n + 1) / r for n, r in enumerate(ranks)]) if ranks else None
        rows.append((ap, len(ranks) / ranks[-1], ranks[0]) if ranks else None)
    return rows


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.sampled_from(["same-camera", "none"]),
)
def test_equals_a_loop(queries, size, identities, cameras, seed, rule):
    rng = np.random.default_rng(seed)
    # few and whole numbers, so that scores are exact and tie often
    query = rng.integers(-1, 2, (queries, 3)).astype(np.float32)
    gallery = rng.integers(-1, 2, (size, 3)).astype(np.float32)
    q, g = (
        Keys(rng.integers(-1, identities, n), rng.integers(-1, cameras, n), rng.integers(0, 15, n))
        for n in (queries, size)
    )
    expected = naive(query, gallery, q, g, rule)
    valid = [row for row in expected if row is not None]
    if not valid:
        with pytest.raises(EvaluationError, match="no query has a match"):
            measure(inner_products(query, gallery), q, g, rule)
        return
    found = measure(inner_products(query, gallery), q, g, rule)
    assert_allclose([found.map, found.minp], np.mean([row[:2] for row in valid], axis=0), atol=1e-9)
    assert list(found.first) == [0 if row is None else row[2] for row in expected]
    assert found.unmatched == len(expected) - len(valid)
    assert_allclose(found.r1, np.mean([row[2] == 1 for row in valid]))


def test_top_leaves_junk_out():
    query, gallery = np.ones((1, 1), np.float32), np.array([[3.0], [2.0], [1.0]], np.float32)
    q = Keys(np.array([7]), np.array([0]), np.array([9]))
    g = Keys(np.array([7, 7, 8]), np.array([0, 1, 0]), np.array([0, 1, 2]))
    nearest, hits = top(inner_products(query, gallery), q, g, "same-camera", 3)
    assert nearest.tolist() == [[1, 2, -1]]
    assert hits.tolist() == [[True, False, False]]


def test_says_which_rule_removed_every_match():
    one = Keys(np.array([5]), np.array([1]), np.array([0]))
    other = Keys(np.array([5]), np.array([1]), np.array([1]))
    x = np.ones((1, 1), np.float32)
    with pytest.raises(EvaluationError, match=r"same-camera.*removed every match of 1 .*--junk none"):
        measure(inner_products(x, x), one, other, "same-camera")
