"""`--rerank` from the settings to the figures, against k-reciprocal re-ranking written out with whole matrices."""

import numpy as np
import pytest
from test_evaluate import embedded

from resight.config.evaluation import Evaluation
from resight.evaluation.evaluate import measure


def jaccard(query, gallery, k1, k2, weight):
    """Zhong et al. 2017, equations 2 to 12, on squared Euclidean distances divided by the largest of each row."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    distance = 2 - 2 * x @ x.T
    distance = (distance / distance.max(axis=0)).T
    order = np.argsort(distance, axis=1, kind="stable")
    n = len(x)

    def reciprocal(i, k):
        return {int(j) for j in order[i, : k + 1] if i in order[j, : k + 1]}

    sets = np.zeros((n, n))
    for i in range(n):
        expanded = set(reciprocal(i, k1))
        for j in reciprocal(i, k1):
            half = reciprocal(j, int(np.around(k1 / 2)))
            if len(half & reciprocal(i, k1)) > 2 / 3 * len(half):
                expanded |= half
        members = sorted(expanded)
        sets[i, members] = np.exp(-distance[i, members])
        sets[i] /= sets[i].sum()
    sets = np.stack([sets[order[i, :k2]].mean(axis=0) for i in range(n)])
    q = len(query)
    overlap = np.stack([[np.minimum(sets[i], sets[j]).sum() for j in range(q, n)] for i in range(q)])
    return (1 - weight) * (1 - overlap / (2 - overlap)) + weight * distance[:q, q:]


def naive_map(distance, query, gallery):
    """Mean average precision without the gallery images of the query's identity and camera."""
    precisions = []
    for row, sighting in zip(distance, query, strict=True):
        ranked = [gallery[int(j)] for j in np.argsort(row, kind="stable")]
        ranked = [g for g in ranked if not (g.identity == sighting.identity and g.camera == sighting.camera)]
        right = np.array([g.identity == sighting.identity for g in ranked])
        if right.any():
            precisions.append(float((np.cumsum(right)[right] / (np.flatnonzero(right) + 1)).mean()))
    return float(np.mean(precisions))


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (7, 1, 0.0), (10, 4, 0.6)])
def test_figures_of_a_reranked_evaluation(k1, k2, weight):
    query, gallery = embedded(0, 24), embedded(1, 120, 1000)
    result = measure(query, gallery, Evaluation(rerank=True, k1=k1, k2=k2, rerank_weight=weight))
    distance = jaccard(query.vectors, gallery.vectors, k1, k2, weight)
    wanted = naive_map(distance, list(query.sightings), list(gallery.sightings))
    assert result.summary()["mAP"] == pytest.approx(wanted, abs=2e-6)
    plain = naive_map(-(query.vectors @ gallery.vectors.T), list(query.sightings), list(gallery.sightings))
    assert measure(query, gallery, Evaluation()).summary()["mAP"] == pytest.approx(plain, abs=2e-6)
    assert abs(wanted - plain) > 1e-4
