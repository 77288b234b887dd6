"""The plain implementation, our own too: what an evaluator in numpy looks like, with whole matrices and a sort."""

import numpy as np


def evaluate(query, gallery, query_id, gallery_id, query_camera, gallery_camera, kind=None):
    """mAP, R1, mINP and CMC to rank 50 under Market-1501's rule, by argsort of squared Euclidean distances."""
    return ranked(distances(query, gallery), query_id, gallery_id, query_camera, gallery_camera, kind)


def distances(a, b):
    return (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T)


def ranked(distance, query_id, gallery_id, query_camera, gallery_camera, kind=None):
    order = np.argsort(distance, axis=1, kind=kind)
    matches = gallery_id[order] == query_id[:, None]
    ap, inp, cmc = [], [], []
    for q in range(len(distance)):
        junk = matches[q] & (gallery_camera[order[q]] == query_camera[q])
        hits = matches[q][~junk]
        if not hits.any():
            continue
        hit_count = hits.cumsum()
        ap.append((hit_count / np.arange(1, len(hits) + 1) * hits).sum() / hits.sum())
        inp.append(hit_count[-1] / (1 + np.flatnonzero(hits)[-1]))
        cmc.append(np.minimum(hit_count[:50], 1))
    cmc = np.mean(cmc, axis=0)
    return np.mean(ap), cmc[0], np.mean(inp), cmc


def rerank(query, gallery, k1=20, k2=6, weight=0.3):
    """Zhong et al. (2017) with N x N matrices: distances [Q, G]."""
    x = np.concatenate([query, gallery])
    q, n = len(query), len(x)
    original = distances(x, x)
    original = (original / original.max(0)).T.astype(np.float32)
    sets = np.zeros_like(original, dtype=np.float32)
    order = np.argsort(original)

    def mutual(i, k):
        forward = order[i, : k + 1]
        back = order[forward, : k + 1]
        return forward[np.where(back == i)[0]]

    for i in range(n):
        neighbors = wider = mutual(i, k1)
        for j in neighbors:
            other = mutual(j, int(np.around(k1 / 2)))
            if len(np.intersect1d(other, neighbors)) > 2 / 3 * len(other):
                wider = np.append(wider, other)
        wider = np.unique(wider)
        closeness = np.exp(-original[i, wider])
        sets[i, wider] = closeness / closeness.sum()
    original = original[:q]
    if k2 != 1:
        expanded = np.zeros_like(sets)
        for i in range(n):
            expanded[i] = sets[order[i, :k2]].mean(0)
        sets = expanded
    holders = [np.where(sets[:, i] != 0)[0] for i in range(n)]
    jaccard = np.zeros_like(original)
    for i in range(q):
        shared = np.zeros(n, np.float32)
        members = np.where(sets[i] != 0)[0]
        for j in members:
            shared[holders[j]] += np.minimum(sets[i, j], sets[holders[j], j])
        jaccard[i] = 1 - shared / (2 - shared)
    return (jaccard * (1 - weight) + original * weight)[:, q:]
