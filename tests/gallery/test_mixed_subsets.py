"""Galleries whose records have different modalities: every pair of subsets has a curve, and the most probable record is
the first answer."""

import numpy as np
import pytest
from gallery_engines import INFO, WIDTH, records

from resight.gallery.gallery import Gallery
from resight.gallery.record import Filter, Record
from resight.gallery.url import create_engine
from resight.retrieval.calibration import Calibration, SubsetCurve

COUNTS = {"same": 10, "different": 100, "false_match_rate": 0.01, "true_match_rate": 0.9}


def curve(query, gallery, full, threshold):
    """A curve that rises in a straight line to 0.99 at the similarity `full`."""
    return SubsetCurve(
        query=query, gallery=gallery, slope=10 / full, offset=-5.0, similarity=(0.0, full), probability=(0.01, 0.99),
        threshold=threshold, **COUNTS,
    )  # fmt: skip


CURVES = (
    curve("rgb", "rgb", 1.0, 0.7),
    curve("rgb", "rgb+tir", 0.7, 0.4),
    curve("tir", "rgb+tir", 0.6, 0.3),
    curve("rgb+tir", "rgb+tir", 1.0, 0.8),
)
CALIBRATION = Calibration(
    slope=10.0, offset=-5.0, similarity=(0.0, 1.0), probability=(0.01, 0.99), threshold=0.6, dataset="made up",
    subsets=CURVES, **COUNTS,
)  # fmt: skip


class Counting:
    """An engine that counts searches, and passes everything on."""

    def __init__(self, engine):
        self._engine = engine
        self.searches = 0

    def search(self, *arguments):
        self.searches += 1
        return self._engine.search(*arguments)

    def __getattr__(self, name):
        return getattr(self._engine, name)


def labelled(count, labels, seed=0):
    """Records whose modalities are one of the labels."""
    rng = np.random.default_rng(seed)
    return [
        Record(id=r.id, vector=r.vector, identity=r.identity, camera=r.camera, modality=str(rng.choice(labels)))
        for r in records(count, seed)
    ]


def made(folder, stored, calibration=CALIBRATION):
    url = f"exact:{folder}"
    engine = Counting(create_engine(url, INFO))
    gallery = Gallery(engine, calibration)
    gallery.add(stored)
    engine.searches = 0
    return gallery


def by_probability(stored, query, modality, calibration=CALIBRATION):
    """The answers by their definition: (id, probability, known), the most probable first."""
    rows = []
    for record in stored:
        similarity = float(record.vector @ query)
        pair = calibration.between(modality, record.modality)
        rows.append((-pair.of(np.array([similarity]))[0], -similarity, record.id, similarity >= pair.threshold))
    return [(record_id, -probability, known) for probability, _, record_id, known in sorted(rows)]


@pytest.mark.parametrize("labels", [("rgb", "rgb+tir"), ("rgb", "rgb+tir", "depth"), ("rgb", "rgb+tir", "tir")])
def test_the_most_probable_records_of_all_subsets_are_found(tmp_path, labels):
    stored = labelled(200, labels)
    gallery = made(tmp_path / "g", stored)
    queries = np.stack([record.vector for record in records(6, 5)])
    modalities = ["rgb", "tir", "rgb+tir", "rgb", None, "rgb"]
    answers = gallery.search(queries, k=7, modality=modalities)
    mixed = 0
    for row, query, modality in zip(answers, queries, modalities, strict=True):
        expected = by_probability(stored, query, modality)[:7]
        assert [(a.record.id, a.known) for a in row] == [(record_id, known) for record_id, _, known in expected]
        assert [a.probability for a in row] == pytest.approx([p for _, p, _ in expected], rel=1e-6)
        similarities = [a.similarity for a in row]
        mixed += similarities != sorted(similarities, reverse=True)
    assert mixed >= 2, "the order is not that of the similarity"


def test_one_subset_or_no_curve_is_one_search_by_similarity(tmp_path):
    same = made(tmp_path / "same", labelled(60, ("rgb+tir",)))
    query = records(1, 7)[0].vector
    answers = same.search(query, k=60, modality="rgb")[0]
    assert same.engine.searches == 1
    assert [a.similarity for a in answers] == sorted((a.similarity for a in answers), reverse=True)
    mixed = made(tmp_path / "mixed", labelled(60, ("rgb", "rgb+tir")))
    for modality in (None, "depth"):  # unknown, or without a curve of its own
        mixed.engine.searches = 0
        answers = mixed.search(query, k=60, modality=modality)[0]
        assert mixed.engine.searches == 1
        assert [a.similarity for a in answers] == sorted((a.similarity for a in answers), reverse=True)
    plain = made(tmp_path / "plain", labelled(60, ("rgb", "rgb+tir")), None)
    assert plain.search(query, k=3, modality="rgb")[0][0].probability is None
    assert plain.engine.searches == 1


def test_filters_groups_and_re_ranking_of_several_subsets(tmp_path):
    stored = labelled(150, ("rgb", "rgb+tir"))
    gallery = made(tmp_path / "g", stored)
    query = records(1, 9)[0].vector
    for where in (Filter(modality=("rgb+tir",)), Filter(camera=("c1",)), Filter(modality=("rgb", "rgb+tir"))):
        matching = [record for record in stored if where.holds(record)]
        found = gallery.search(query, k=5, where=where, modality="rgb")[0]
        assert [a.record.id for a in found] == [row[0] for row in by_probability(matching, query, "rgb")[:5]]
    everything = by_probability(stored, query, "rgb")
    identities = {record.id: record.identity or record.id for record in stored}
    expected = list(dict.fromkeys(identities[row[0]] for row in everything))[:4]
    found = gallery.search(query, k=4, group="identity", modality="rgb")[0]
    assert [a.record.identity or a.record.id for a in found] == expected
    reranked = gallery.search(query, k=150, rerank=True, modality="rgb")[0]
    assert {a.record.id for a in reranked} == {record.id for record in stored}
    excluded = gallery.search(query, k=3, modality="rgb", exclude=[everything[0][0]])[0]
    assert [a.record.id for a in excluded] == [row[0] for row in everything[1:4]]


def test_a_record_as_the_query_has_its_own_modalities(tmp_path):
    stored = labelled(80, ("rgb", "rgb+tir"))
    gallery = made(tmp_path / "g", stored)
    first = next(record for record in stored if record.modality == "rgb")
    expected = [row for row in by_probability(stored, first.vector, "rgb") if row[0] != first.id][:6]
    assert [a.record.id for a in gallery.similar(first.id, k=6)] == [row[0] for row in expected]
    assert gallery.info.width == WIDTH
