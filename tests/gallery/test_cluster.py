"""Clustering against a naive agglomeration, agreement with labels against loops over pairs, and galleries that are
clustered."""

import itertools
import json
import math

import numpy as np
import pytest
from gallery_engines import INFO, resight
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import ConfigError
from resight.gallery.cluster import Clustering, agreement, cluster
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.retrieval.calibration import Calibration


def unit(rng, count, width=6):
    x = rng.standard_normal((count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def naive(vectors, threshold, must_link, cannot_link):
    """Compares every pair of groups again before each joining."""
    groups = {}
    for n, key in enumerate(must_link):
        groups.setdefault(("alone", n) if key is None else ("together", key), []).append(n)
    groups = list(groups.values())
    while True:
        best = None
        for a, b in itertools.combinations(range(len(groups)), 2):
            marks = [{cannot_link[n] for n in groups[g]} - {None} for g in (a, b)]
            mean = np.mean([vectors[i].astype(float) @ vectors[j] for i in groups[a] for j in groups[b]])
            if not marks[0] & marks[1] and mean >= threshold and (best is None or mean > best[0]):
                best = mean, a, b
        if best is None:
            return {frozenset(group) for group in groups}
        _, a, b = best
        groups[a] += groups.pop(b)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 14), st.floats(-0.2, 0.9))
def test_groups_are_those_of_a_naive_agglomeration(seed, count, threshold):
    rng = np.random.default_rng(seed)
    vectors = unit(rng, count)
    must_link = [rng.choice([None, "t1", "t2"], p=[0.7, 0.15, 0.15]) for _ in range(count)]
    cannot_link = [None if rng.random() < 0.3 else ("c", int(rng.integers(4))) for _ in range(count)]
    groups = cluster(vectors, threshold, must_link, cannot_link, neighbors=count)
    assert {frozenset(np.flatnonzero(groups == g).tolist()) for g in set(groups.tolist())} == naive(
        vectors, threshold, must_link, cannot_link
    )
    first = [int(np.flatnonzero(groups == g)[0]) for g in range(groups.max() + 1)]
    assert first == sorted(first)


def test_records_that_cannot_be_linked_are_never_in_one_group():
    vectors = np.ones((6, 2), np.float32) / np.sqrt(2)
    groups = cluster(vectors, 0.5, [None] * 6, [("c1", 1.0), ("c1", 1.0), ("c2", 1.0), None, ("c1", 2.0), ("c1", 1.0)])
    assert len({groups[0], groups[1], groups[5]}) == 3
    assert len(set(groups.tolist())) == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25))
def test_agreement_is_that_of_loops_over_pairs(seed, count):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, 4, count), [str(n) if n else None for n in rng.integers(0, 4, count)]
    labelled = [n for n in range(count) if labels[n] is not None]
    result = agreement(groups, labels)
    if not labelled:
        assert (result.groups, result.labels, result.f1) == (0, 0, 0.0)
        return
    pairs = list(itertools.combinations(labelled, 2))
    grouped = {p for p in pairs if groups[p[0]] == groups[p[1]]}
    same = {p for p in pairs if labels[p[0]] == labels[p[1]]}
    precision = len(grouped & same) / len(grouped) if grouped else 1.0
    recall = len(grouped & same) / len(same) if same else 1.0
    assert (result.precision, result.recall) == (pytest.approx(precision), pytest.approx(recall))
    mutual = entropies = 0.0
    for a in set(groups[labelled].tolist()):
        p = np.mean([groups[n] == a for n in labelled])
        entropies -= p * math.log(p)
        for b in {labels[n] for n in labelled}:
            q = np.mean([labels[n] == b for n in labelled])
            both = np.mean([groups[n] == a and labels[n] == b for n in labelled])
            mutual += both * math.log(both / (p * q)) if both else 0
    for b in {labels[n] for n in labelled}:
        q = np.mean([labels[n] == b for n in labelled])
        entropies -= q * math.log(q)
    assert result.nmi == pytest.approx(2 * mutual / entropies if entropies else 1.0, abs=1e-9)


def groups_of(tmp_path, records, **options):
    """Sets of record ids, as a gallery clusters them."""
    SQLiteEngine.create(tmp_path / "clustered", INFO)
    engine = SQLiteEngine(tmp_path / "clustered")
    engine.add(records)
    with Gallery(engine) as gallery:
        clustering = gallery.cluster(**options)
    return {frozenset(clustering.ids(group)) for group in range(len(clustering.sizes))}


def one_vector(rng, width=16, noise=0.01):
    """A function that makes vectors of one identity."""
    centre = unit(rng, 1, width)[0]

    def make():
        vector = centre + noise * rng.standard_normal(width)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    return make


def test_records_of_one_time_and_camera_are_joined_where_their_modalities_differ(tmp_path):
    """A camera that takes rgb and tir of one object at one moment, as two records; two rgb of a moment are of two
    objects."""
    ann = one_vector(np.random.default_rng(0))
    labels = [
        ("rgb-1", "c1", 1.0, "rgb"), ("tir-1", "c1", 1.0, "tir"), ("nir-1", "c1", 1.0, "nir"),
        ("rgb-2", "c1", 2.0, "rgb"), ("tir-2", "c2", 1.0, "tir"),
    ]  # fmt: skip
    records = [Record(i, ann(), camera=camera, time=time, modality=modality) for i, camera, time, modality in labels]
    assert groups_of(tmp_path, records, threshold=0.5) == {frozenset(i for i, *_ in labels)}


def test_records_of_one_time_camera_and_modality_are_never_joined(tmp_path):
    ann = one_vector(np.random.default_rng(1))
    for modality in ("rgb", "rgb+nir+tir", None):
        records = [Record(f"r{n}", ann(), camera="c1", time=1.0, modality=modality) for n in range(3)]
        groups = groups_of(tmp_path / str(modality), records, threshold=0.5)
        assert groups == {frozenset([record.id]) for record in records}


def test_a_tracklet_stays_together_however_different_its_records_are(tmp_path):
    vectors = np.eye(16, dtype=np.float32)
    records = [Record(f"r{n}", vectors[n], camera="c1", tracklet="t1", time=float(n)) for n in range(3)]
    records.append(Record("other-camera", vectors[3], camera="c2", tracklet="t1", time=0.0))
    assert groups_of(tmp_path, records, threshold=0.5) == {frozenset({"r0", "r1", "r2"}), frozenset({"other-camera"})}


def test_only_records_without_an_identity_are_clustered_unless_all_are_asked_for(tmp_path):
    ann = one_vector(np.random.default_rng(3))
    records = [Record(f"r{n}", ann(), identity="ann" if n < 2 else None) for n in range(4)]
    assert groups_of(tmp_path / "some", records, threshold=0.5) == {frozenset({"r2", "r3"})}
    everything = groups_of(tmp_path / "all", records, threshold=0.5, include_named=True)
    assert everything == {frozenset({"r0", "r1", "r2", "r3"})}


def test_the_calibrated_threshold_is_used_and_without_one_it_must_be_given(tmp_path):
    calibration = Calibration(
        slope=10.0, offset=-5.0, similarity=(0.0, 1.0), probability=(0.01, 0.99), threshold=0.6, false_match_rate=0.01,
        true_match_rate=0.9, dataset="made up", same=10, different=100,
    )  # fmt: skip
    vectors = np.zeros((4, 16), np.float32)
    for n, cosine in enumerate((1.0, 0.65, 0.55, -1.0)):  # of the first record
        vectors[n, 0] = cosine
        vectors[n, n] += np.sqrt(1 - cosine**2)
    SQLiteEngine.create(tmp_path / "g", INFO)
    engine = SQLiteEngine(tmp_path / "g")
    engine.add([Record(f"r{n}", vector) for n, vector in enumerate(vectors)])
    with Gallery(engine, calibration) as gallery:
        assert gallery.cluster().sizes.tolist() == [2, 1, 1]
        assert gallery.cluster(threshold=0.7).sizes.tolist() == [1, 1, 1, 1]
        with pytest.raises(ConfigError, match="no calibration: give a threshold"):
            Gallery(engine).cluster()


def test_an_empty_clustering_has_no_groups(tmp_path):
    SQLiteEngine.create(tmp_path / "g", INFO)
    engine = SQLiteEngine(tmp_path / "g")
    with Gallery(engine) as gallery:
        clustering = gallery.cluster(threshold=0.5)
        assert isinstance(clustering, Clustering)
        assert (len(clustering.records), len(clustering.sizes)) == (0, 0)
        assert gallery.assign_clusters(clustering, "x") == 0
        assert (clustering.agreement.groups, clustering.agreement.f1) == (0, 0.0)


def test_a_gallery_is_clustered_and_its_groups_are_assigned_from_the_command_line(tmp_path, capsys):
    rng = np.random.default_rng(0)
    makers = [one_vector(rng, noise=0.05) for _ in range(5)]
    SQLiteEngine.create(tmp_path / "g", INFO)
    engine = SQLiteEngine(tmp_path / "g")
    engine.add([Record(f"r{n}", makers[n % 5](), identity=f"p{n % 5}" if n < 20 else None) for n in range(40)])
    engine.close()
    words = ["gallery", "cluster", f"exact:{tmp_path / 'g'}"]
    assert "no calibration" in resight(capsys, *words, status=2)
    assert "leave one out" in resight(capsys, *words, "--threshold", 0.7, "--all", "--assign", "x", status=2)
    printed = resight(capsys, *words, "--threshold", 0.7, "--all")
    assert "40 records in 5 groups; 0 of the groups have a single record" in printed
    assert "F1 of pairs 100.0 %" in printed
    assert "NMI 100.0 %; 5 groups for 5 identities" in printed
    document = json.loads(resight(capsys, *words, "--threshold", 0.7, "--all", "--json"))
    assert (document["records"], document["groups"], document["single"]) == (40, 5, 0)
    assert document["agreement"]["f1"] == 1.0
    printed = resight(capsys, *words, "--threshold", 0.7, "--assign", "someone")
    assert "20 records in 5 groups" in printed
    assert "assigned: someone-1 to someone-5" in printed
    assert "all 40 records have an identity" in resight(capsys, *words, "--threshold", 0.7)
    engine = SQLiteEngine(tmp_path / "g")
    for record in engine.scan():
        n = int(record.id[1:])
        assert record.identity == (f"p{n % 5}" if n < 20 else f"someone-{n % 5 + 1}")
    engine.close()
