"""Re-ranking against the reference's numbers and a plain writing of the paper; query expansion; pooling."""

import golden_cases
import numpy as np
import pytest
from numpy.testing import assert_allclose

from resight.errors import EvaluationError
from resight.retrieval.junk import RULES
from resight.retrieval.labels import Labels
from resight.retrieval.metrics import measure
from resight.retrieval.query_expansion import expand, pool
from resight.retrieval.rerank import rerank
from resight.retrieval.scores import InnerProducts


@pytest.fixture(scope="module")
def golden():
    with np.load(golden_cases.GOLDEN / "retrieval.npz") as arrays:
        return dict(arrays)


def distances(query, gallery, *settings):
    return -rerank(InnerProducts(query, gallery), *settings).rows(slice(0, len(query))).numpy()


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (50, 15)])
def test_golden_reranking(golden, k1, k2):
    query, gallery = golden["query"], golden["gallery"]
    as_reference = distances(query, gallery, k1, k2, 0.3, True)
    assert_allclose(as_reference, golden[f"rerank_{k1}_{k2}_dist"], rtol=0, atol=3e-3)
    assert_allclose(distances(query, gallery, k1, k2, 0.3), as_reference, rtol=0, atol=5e-3)  # its sums in float16
    q, g = (Labels.of(identity=golden[f"{part}_ids"], camera=golden[f"{part}_cams"]) for part in ("query", "gallery"))
    found = measure(rerank(InnerProducts(query, gallery), k1, k2, 0.3), q, g, RULES["same-camera"])
    assert_allclose(found.map, golden[f"rerank_{k1}_{k2}_mAP"], rtol=0, atol=1e-3)
    assert_allclose(found.cmc, golden[f"rerank_{k1}_{k2}_cmc"], rtol=0, atol=1.5 / 60)  # good to one query of 60


def plain(query, gallery, k1, k2, weight):
    """Zhong et al. (2017) with whole matrices, by the equations."""
    x = np.concatenate([query, gallery]).astype(float)
    distance = 2 - 2 * np.float32(x @ x.T).astype(float)
    order = np.argsort(distance, axis=1, kind="stable")
    distance = distance / distance.max(1, keepdims=True)

    def mutual(i, k):
        return [j for j in order[i, : k + 1] if i in order[j, : k + 1]]

    sets = np.zeros_like(distance)
    for i in range(len(x)):
        own = mutual(i, k1)
        wider = set(own)
        for j in own:
            other = mutual(j, round(k1 / 2))
            if len(set(other) & set(own)) > 2 / 3 * len(other):
                wider |= set(other)
        members = sorted(wider)
        near = np.exp(-distance[i, members])
        sets[i, members] = near / near.sum()
    sets = np.stack([sets[order[i, :k2]].mean(0) for i in range(len(x))])
    q = len(query)
    shared = np.minimum(sets[:q, None], sets[None, q:]).sum(2)
    return (1 - weight) * (1 - shared / (2 - shared)) + weight * distance[:q, q:]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (7, 1, 0.0), (5, 3, 1.0), (500, 6, 0.3)])
def test_equals_whole_matrices(k1, k2, weight):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = plain(x[:20], x[20:], min(k1, 89), k2, weight)
    assert_allclose(distances(x[:20], x[20:], k1, k2, weight), expected, atol=2e-6)


def test_reranking_by_parts_is_the_same(golden):
    ranked = rerank(InnerProducts(golden["query"], golden["gallery"]))
    whole = ranked.rows(slice(0, 60))
    np.testing.assert_array_equal(ranked.rows(slice(17, 31)), whole[17:31])


def test_without_numba_reranking_says_what_to_install(golden, monkeypatch):
    monkeypatch.setattr("resight.retrieval.rerank.compiled", lambda: False)
    with pytest.raises(EvaluationError, match="pip install numba"):
        rerank(InnerProducts(golden["query"], golden["gallery"]))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("power", [0.0, 3.0])
def test_expansion_adds_the_nearest(power):
    rng = np.random.default_rng(0)
    x, pool_of = (unit(rng.standard_normal((n, 5)) + 1).astype(np.float32) for n in (4, 30))
    near = x @ pool_of.T
    for i, row in enumerate(expand(x, pool_of, 3, power)):
        best = np.argsort(-near[i])[:3]
        total = x[i] + (np.maximum(near[i, best], 0)[:, None] ** power * pool_of[best]).sum(0)
        assert_allclose(row, total / np.linalg.norm(total), atol=1e-6)
    for i, row in enumerate(expand(pool_of, pool_of, 2, power, within=True)):
        best = [j for j in np.argsort(-(pool_of[i] @ pool_of.T)) if j != i][:2]
        total = pool_of[i] + (np.maximum(pool_of[best] @ pool_of[i], 0)[:, None] ** power * pool_of[best]).sum(0)
        assert_allclose(row, total / np.linalg.norm(total), atol=1e-6)


@pytest.mark.parametrize(("how", "of"), [("mean", np.mean), ("max", np.max)])
def test_pooling_joins_what_agrees(how, of):
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    keys = Labels.of(identity=np.array([3, 1, 3, 1, -1, -1]), camera=np.array([0, 0, 0, 1, 0, 0]))
    pooled, first = pool(x, keys, ("identity", "camera"), how)
    assert first.tolist() == [0, 1, 3, 4, 5]  # the unknown stay alone
    expected = unit(np.stack([of(x[[0, 2]], axis=0), x[1], x[3], x[4], x[5]]))
    assert_allclose(pooled, expected, atol=1e-6)
