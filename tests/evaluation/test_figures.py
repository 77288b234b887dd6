"""Every figure of a result against a naive recomputation: several trials, unmatched queries, unknown labels, junk."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from resight.config.evaluation import Evaluation
from resight.data.sightings import Sighting, SightingTable
from resight.device import Compute
from resight.evaluation.evaluate import measure
from resight.evaluation.result import camera_pairs, figures, open_set_figures
from resight.evaluation.words import in_words
from resight.inference.embeddings import Embeddings, EmbeddingsInfo
from resight.retrieval.bootstrap import interval

COMPUTE = Compute("cpu", "AVX2", "fp32", 1, "fused", 32)


def embedded(seed, rows, prefix, **info):
    """Rows of (identity, camera), embedded near a centre of each identity."""
    rng = np.random.default_rng(seed)
    centres = {name: np.random.default_rng(ord(name[0])).standard_normal(6) for name in "abcdefg"}
    x = np.stack([centres.get(identity, np.ones(6)) + 1.2 * rng.standard_normal(6) for identity, _ in rows])
    images = [{"rgb": f"in/{prefix}{n}.jpg"} | ({"tir": f"in/t{n}.jpg"} if n % 2 else {}) for n in range(len(rows))]
    table = SightingTable.of(Sighting(files, *row) for files, row in zip(images, rows, strict=True))
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Embeddings(vectors, table, EmbeddingsInfo(embedding_id="0123", fusion="mean", **info))


def drawn():
    """Two galleries drawn from one table; `g` has one sighting, others no identity; the rule leaves `f` no match."""
    rows = [(i, c) for i in "abcde" for c in "123"] + [("f", "1")] * 3 + [("g", "2"), (None, "1"), (None, None)]
    items = embedded(0, rows, "x")
    return measure(items, items, Evaluation(protocol="vehicleid", trials=2, junk="same-camera"))


def plain():
    """Queries without a match for three reasons, and cameras that are not known."""
    query = [(i, c) for i in "abcd" for c in "123"] + [("e", "1"), ("f", "2"), (None, "1"), ("a", None)]
    gallery = [(i, c) for i in "abcd" for c in "1234" for _ in range(2)] + [("e", "1"), (None, "2"), ("b", None)]
    return measure(embedded(1, query, "q"), embedded(2, gallery, "g"), Evaluation())


def by_camera():
    """A gallery for each camera of the queries."""
    query = [(i, c) for i in "abcd" for c in "12"]
    gallery = [(i, c) for i in "abcd" for c in "123" for _ in range(2)] + [("e", "1")]
    settings = Evaluation(protocol="single-shot", trials=3)
    return measure(embedded(3, query, "q"), embedded(4, gallery, "g"), settings)


RESULTS = {"drawn": drawn, "plain": plain, "by_camera": by_camera}


@pytest.fixture(params=RESULTS)
def result(request):
    return replace(RESULTS[request.param](), compute=COMPUTE if request.param == "plain" else None)


def naive_order(result, q, gallery_rows):
    """Gallery rows that are not junk, the nearest first; and whether each is a match."""
    one = result.query.sightings[int(q)]
    rows = []
    for g in gallery_rows:
        other = result.gallery.sightings[int(g)]
        same = one.identity is not None and one.identity == other.identity
        own_file = one.images == other.images
        if not own_file and not (same and one.camera is not None and one.camera == other.camera):
            score = float(result.query.vectors[q].astype(float) @ result.gallery.vectors[g].astype(float))
            rows.append((-score, int(g), same))
    return [(g, same) for _, g, same in sorted(rows)]


def naive_query(result, q, gallery_rows):
    """AP, INP and the first rank of a query; None without a match."""
    ranks = [rank for rank, (_, same) in enumerate(naive_order(result, q, gallery_rows), start=1) if same]
    if not ranks:
        return None
    return np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]), len(ranks) / ranks[-1], ranks[0]


def naive_trials(result):
    """For each trial the figures by query row."""
    return [
        {int(q): naive_query(result, q, ranking.gallery) for ranking in trial.rankings for q in ranking.query}
        for trial in result.trials
    ]


def summary_of(rows):
    rows = [row for row in rows.values() if row is not None]
    first = np.array([row[2] for row in rows])
    return {
        "mAP": np.mean([row[0] for row in rows]), "mINP": np.mean([row[1] for row in rows]),
        **{f"R{k}": (first <= k).mean() for k in (1, 5, 10)},
    }, [(first <= k).mean() for k in range(1, 51)]  # fmt: skip


def mean_or_nan(values):
    return float(np.mean(values)) if values else np.nan


def test_every_figure_of_the_document(result):
    document = figures(result, "few")
    json.dumps(document)
    trials = naive_trials(result)
    summaries, cmc = zip(*map(summary_of, trials), strict=True)
    count = len(result.query_labels)
    by_query = [[rows[q] for rows in trials if rows.get(q) is not None] for q in range(count)]
    ap = [mean_or_nan([row[0] for row in rows]) for rows in by_query]
    hit = [mean_or_nan([row[2] == 1 for row in rows]) for rows in by_query]
    assert [name for name in document if name in summaries[0]] == list(summaries[0])
    for name in summaries[0]:
        assert document[name] == pytest.approx(np.mean([row[name] for row in summaries]))
        assert document["spread"][name] == pytest.approx(np.std([row[name] for row in summaries]))
    assert document["cmc"] == pytest.approx(np.mean(cmc, axis=0))
    assert len(document["cmc"]) == 50
    identity = np.unique([str(s.identity) for s in result.query.sightings], return_inverse=True)[1]
    for name, values in (("mAP", ap), ("R1", hit)):
        bounds = interval(np.array(values), identity)
        # Queries of unknown identity have no match, so the number of identities is the same.
        assert document["interval_95"][name] == pytest.approx([bounds.low, bounds.high])
    assert {"format": 2, "dataset": "few", "embedding_id": "0123", "trials": len(trials)}.items() <= document.items()
    assert (document["protocol"], document["junk"]) == (result.protocol.name, "same-camera")
    assert document["settings"]["rerank"] == result.settings.rerank
    assert document["settings"].keys() == set(Evaluation.model_fields) - {"protocol", "junk", "trials"}
    assert document["queries"] == len(trials[0])
    assert document["gallery"] == max(len(ranking.gallery) for ranking in result.trials[0].rankings)
    assert document["compute"] == (None if result.compute is None else asdict(COMPUTE))
    assert document["unmatched"] == sum(row is None for row in trials[0].values())
    np.testing.assert_allclose(result.ap, ap)
    np.testing.assert_allclose(result.hit, hit)
    for n, row in enumerate(document["per_query"]):
        sighting = result.query.sightings[n]
        assert row["query"] == "|".join(sighting.images[m].name for m in ("rgb", "tir") if m in sighting.images)
        assert row["identity"] == sighting.identity
        assert row["AP"] == (None if np.isnan(ap[n]) else pytest.approx(ap[n]))
        assert row["R1"] == (None if np.isnan(hit[n]) else pytest.approx(hit[n]))
    assert len(document["per_query"]) == count


def test_the_trials_differ_and_queries_are_left_out(result):
    """Otherwise the test above would see nothing."""
    trials = naive_trials(result)
    assert len(trials) == 1 or summary_of(trials[0]) != summary_of(trials[1])
    assert result.protocol.other_camera or any(row is None for rows in trials for row in rows.values())
    if result.protocol.name == "vehicleid":
        assert any((q in trials[0]) != (q in trials[1]) for q in range(len(result.query_labels)))


@pytest.mark.parametrize("k", [1, 4, 40])
def test_the_nearest_of_the_first_trial(result, k):
    rows, hits = result.top(k)
    assert rows.shape == hits.shape == (len(result.query_labels), k)
    expected = np.full_like(rows, -1)
    expected_hits = np.zeros_like(hits)
    for ranking in result.trials[0].rankings:
        for q in ranking.query:
            for place, (g, same) in enumerate(naive_order(result, q, ranking.gallery)[:k]):
                expected[q, place] = g
                expected_hits[q, place] = same
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(hits, expected_hits)
    assert k < 40 or result.protocol.draw or (rows == 0).any()


def test_pairs_of_cameras(result):
    if result.protocol.other_camera:
        result = replace(result, trials=result.trials[:1])
    first = result.trials[0]
    expected = []
    for gallery_camera in result.gallery.sightings.values("camera"):
        rows = [g for g in first.gallery_rows if result.gallery.sightings[int(g)].camera == gallery_camera]
        for query_camera in result.query.sightings.values("camera"):
            queries = [q for q in first.query_rows if result.query.sightings[int(q)].camera == query_camera]
            found = [row for row in (naive_query(result, q, rows) for q in queries) if row is not None]
            if found:
                ap, hit = np.mean([row[0] for row in found]), np.mean([row[2] == 1 for row in found])
                expected.append((query_camera, gallery_camera, len(found), pytest.approx(ap), pytest.approx(hit)))
    pairs = camera_pairs(result)
    assert len(pairs) == len(expected) > 1
    assert [pair.mAP for pair in pairs] == sorted(pair.mAP for pair in pairs)
    for pair in pairs:
        assert (pair.query_camera, pair.gallery_camera, pair.queries, pair.mAP, pair.R1) in expected


def naive_pairs(result):
    """Similarities of the pairs of one identity and of different ones, and for each query the best of both."""
    ranking = result.trials[0].rankings[0]
    same, different, best = [], [], []
    for q in ranking.query:
        one = result.query.sightings[int(q)]
        scores = {True: [], False: []}
        for g, is_match in naive_order(result, q, ranking.gallery):
            if result.gallery.sightings[g].identity is not None:
                scores[is_match].append(float(result.query.vectors[q] @ result.gallery.vectors[g]))
        same += scores[True]
        different += scores[False] if one.identity is not None else []
        best.append((one.identity, max(scores[True], default=None), max(scores[False], default=None)))
    return np.array(same), np.array(different), best


@pytest.mark.parametrize("name", RESULTS)
def test_open_set_figures(name):
    result = RESULTS[name]()
    same, different, best = naive_pairs(result)
    measured = open_set_figures(result)
    non_mated = [other for identity, match, other in best if match is None and identity is not None]
    unknown = (
        f"non-mated: {len(non_mated)} {'query' if len(non_mated) == 1 else 'queries'} without a match"
        if non_mated
        else "every query has a match, so each is searched a second time with its own identity left out of the gallery"
    )
    assert measured.words == (
        f"open set: {len(same)} same-identity pairs, {len(different):,} different-identity pairs; {unknown}"
    )
    assert [row.figure for row in measured.rows] == [
        "EER", "TAR@FAR=0.01", "TAR@FAR=0.001", "TAR@FAR=0.0001", "DIR@FPIR=0.01", "DIR@FPIR=0.001",
    ]  # fmt: skip
    equal, *others = measured.rows
    false_accept, false_reject = (different >= equal.threshold).mean(), (same < equal.threshold).mean()
    assert equal.rate == pytest.approx((false_accept + false_reject) / 2)
    assert abs(false_accept - false_reject) <= 1 / min(len(same), len(different)) + 1e-9
    impostors = non_mated or [other for _, match, other in best if match is not None]
    known = [(match, other) for _, match, other in best if match is not None]
    for row in others:
        kind, _, limit = row.figure.partition("=")
        if kind == "TAR@FAR":
            assert (different >= row.threshold).mean() <= float(limit)
            assert row.rate == pytest.approx((same >= row.threshold).mean())
        else:
            assert np.mean([other >= row.threshold for other in impostors]) <= float(limit)
            identified = [match > other and match >= row.threshold for match, other in known]
            assert row.rate == pytest.approx(np.mean(identified))
    assert measured.roc[-1] == (1, 1)
    for limit, (far, tar) in zip(np.logspace(-6, 0, 61), measured.roc, strict=True):
        allowed = int(limit * len(different) + 1e-9)
        # The lowest threshold with this many false accepts is just above the next score, to 2e-6.
        threshold = -1 if allowed == len(different) else np.sort(different)[::-1][allowed] + 2e-6
        assert far == pytest.approx((different >= threshold).mean())
        assert tar == pytest.approx((same >= threshold).mean())


def test_what_was_done_in_words():
    assert in_words(plain()) == [
        "protocol market: every query against the whole gallery; 16 queries, 35 gallery sightings",
        "Not ranked (rule same-camera): the query's own file, and images of the same identity from the same camera",
        "left out: 3 queries without a match; for 1 of them the rule removed every match (--junk none keeps them), and "
        "for 2 the gallery has none",
    ]
    assert in_words(by_camera())[2] == "mean of 3 galleries, drawn with seeds 0 to 2"
    assert in_words(drawn())[2] == "mean of 2 galleries, drawn with seeds 0 to 1"
    two = [("a", "1"), ("b", "2")]
    alone = in_words(measure(embedded(0, two, "q"), embedded(1, two, "g"), Evaluation(junk="none")))
    assert alone == [
        "protocol market: every query against the whole gallery; 2 queries, 2 gallery sightings",
        "Not ranked (rule none): the query's own file",
    ]


def with_labels(prefix, **labels):
    """Three sightings of identities a and b."""
    count = 3
    rows = (
        Sighting({"rgb": f"{prefix}{n}.jpg"}, "ab"[n % 2], **{name: of[n] for name, of in labels.items()})
        for n in range(count)
    )
    return Embeddings(np.eye(count, 4, dtype=np.float32), SightingTable.of(rows))


NONE = (None, None, None)


@pytest.mark.parametrize(
    ("rule", "query", "gallery", "unknown"),
    [
        ("same-camera", {"camera": "111"}, {"camera": "122"}, None),
        ("same-camera", {"camera": "122"}, {"camera": "111"}, None),
        ("same-camera", {"camera": ("1", None, None)}, {"camera": (None, None, "2")}, None),
        ("same-camera", {"camera": NONE}, {"camera": "111"}, "camera"),
        ("same-camera", {"camera": "111"}, {"camera": NONE}, "camera"),
        ("same-camera-or-clothes", {}, {}, "camera and clothes"),
        ("time-window", {"time": (0.0, None, None)}, {"time": (None, 9e9, 9e9)}, None),
        ("time-window", {"time": (0.0, 1.0, 2.0)}, {}, "time"),
        ("time-window", {}, {"time": (0.0, 1.0, 2.0)}, "time"),
        ("none", {}, {}, None),
    ],
)
def test_labels_that_a_rule_needs_and_nothing_has(rule, query, gallery, unknown):
    settings = Evaluation(junk=rule)
    words = in_words(measure(with_labels("q", **query), with_labels("g", **gallery), settings))
    sentence = f"the rule compares {unknown}, but no sighting has this label: it removes nothing"
    assert [line for line in words if line.startswith("the rule compares")] == ([sentence] if unknown else [])


def test_a_query_of_the_worst_rank_is_no_hit():
    """The first item is wrong, and the second is right."""
    query, gallery = (with_labels(prefix, camera=camera) for prefix, camera in (("q", "111"), ("g", "222")))
    result = measure(query, replace(gallery, vectors=gallery.vectors[[1, 0, 2]]), Evaluation())
    assert result.hit.tolist() == [0, 0, 1]
    assert result.spread() == dict.fromkeys(("mAP", "mINP", "R1", "R5", "R10"), 0)
