"""Linking against a naive agglomeration, and agreement with labels against loops over pairs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.cli import main
from resight.gallery.cluster import agreement, link
from resight.gallery.engines.folder import FolderEngine
from resight.gallery.record import Record


def unit(rng, count, width=6):
    x = rng.standard_normal((count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def naive(vectors, threshold, together, apart):
    """Every pair of groups looked at anew before each joining."""
    groups = {}
    for n, key in enumerate(together):
        groups.setdefault(("own", n) if key is None else ("together", key), []).append(n)
    groups = list(groups.values())
    while True:
        best = None
        for a, b in itertools.combinations(range(len(groups)), 2):
            marks = [{apart[n] for n in groups[g]} - {None} for g in (a, b)]
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
    together = [rng.choice([None, "t1", "t2"], p=[0.7, 0.15, 0.15]) for _ in range(count)]
    apart = [None if rng.random() < 0.3 else ("c", int(rng.integers(4))) for _ in range(count)]
    found = link(vectors, threshold, together, apart, neighbors=count)
    assert {frozenset(np.flatnonzero(found == g).tolist()) for g in set(found.tolist())} == naive(
        vectors, threshold, together, apart
    )
    first = [int(np.flatnonzero(found == g)[0]) for g in range(found.max() + 1)]
    assert first == sorted(first)


def test_two_at_the_same_time_on_one_camera_are_never_one():
    vectors = np.ones((6, 2), np.float32) / np.sqrt(2)
    found = link(vectors, 0.5, [None] * 6, [("c1", 1.0), ("c1", 1.0), ("c2", 1.0), None, ("c1", 2.0), ("c1", 1.0)])
    assert len({found[0], found[1], found[5]}) == 3
    assert len(set(found.tolist())) == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 25))
def test_agreement_is_that_of_loops_over_pairs(seed, count):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, 4, count), [str(n) if n else None for n in rng.integers(0, 4, count)]
    kept = [n for n in range(count) if labels[n] is not None]
    found = agreement(groups, labels)
    if not kept:
        return
    pairs = list(itertools.combinations(kept, 2))
    grouped = {p for p in pairs if groups[p[0]] == groups[p[1]]}
    same = {p for p in pairs if labels[p[0]] == labels[p[1]]}
    precision = len(grouped & same) / len(grouped) if grouped else 1.0
    recall = len(grouped & same) / len(same) if same else 1.0
    assert (found.precision, found.recall) == (pytest.approx(precision), pytest.approx(recall))
    mutual = entropies = 0.0
    for a in set(groups[kept].tolist()):
        p = np.mean([groups[n] == a for n in kept])
        entropies -= p * math.log(p)
        for b in {labels[n] for n in kept}:
            q = np.mean([labels[n] == b for n in kept])
            both = np.mean([groups[n] == a and labels[n] == b for n in kept])
            mutual += both * math.log(both / (p * q)) if both else 0
    for b in {labels[n] for n in kept}:
        q = np.mean([labels[n] == b for n in kept])
        entropies -= q * math.log(q)
    assert found.nmi == pytest.approx(2 * mutual / entropies if entropies else 1.0, abs=1e-9)


def test_a_gallery_is_linked_and_named(tmp_path, capsys):
    rng = np.random.default_rng(0)
    centres = unit(rng, 5, 16)
    engine = FolderEngine.create(tmp_path / "g", {"width": 16, "fingerprint": "x"})
    records = []
    for n in range(40):
        v = centres[n % 5] + 0.05 * rng.standard_normal(16)
        records.append(
            Record(f"r{n}", (v / np.linalg.norm(v)).astype(np.float32), identity=f"p{n % 5}" if n < 20 else None)
        )
    engine.add(records)
    engine.close()
    at = f"exact:{tmp_path / 'g'}"
    assert main(["link", at]) == 2
    assert "give --threshold" in capsys.readouterr().err
    assert main(["link", at, "--threshold", "0.7", "--all"]) == 0
    said = capsys.readouterr().out
    assert "40 records, 5 identities" in said
    assert "pairwise F1 1.000" in said
    assert "NMI 1.000, 5 groups for 5 identities" in said
    assert main(["link", at, "--threshold", "0.7", "--name", "someone"]) == 0
    assert "20 records, 5 identities" in capsys.readouterr().out
    engine = FolderEngine(tmp_path / "g")
    for record in engine.scan():
        n = int(record.id[1:])
        assert record.identity == (f"p{n % 5}" if n < 20 else f"someone-{n % 5 + 1}")
    engine.close()
