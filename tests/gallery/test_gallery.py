"""A gallery as an object over every engine, galleries by URL, and `resight gallery`."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import picture, small_model
from gallery_engines import (
    INFO,
    WIDTH,
    assert_same,
    database_folder,
    in_folder,
    in_postgresql,
    naive_order,
    naive_search,
    records,
    resight,
)

import resight as api
from resight.data.sightings import MODALITIES, Sighting, SightingTable
from resight.errors import ConfigError, GalleryError
from resight.gallery import maintenance
from resight.gallery.answers import mean_query
from resight.gallery.engines.contract import EVERYTHING
from resight.gallery.gallery import Gallery
from resight.gallery.open import copy_gallery
from resight.gallery.record import Filter
from resight.gallery.url import create_engine, exists, open_engine, shown_url
from resight.inference.embedder import Embedder
from resight.inference.load import load
from resight.models.checkpoint import load_model, read_card
from resight.retrieval.calibration import Calibration
from resight.retrieval.rerank import rerank
from resight.retrieval.scores import InnerProducts

pytest_plugins = ("gallery_fixtures",)


def calibration(embedding_id=None, threshold=0.6):
    return Calibration(
        slope=10.0, offset=-5.0, similarity=(0.0, 1.0), probability=(0.01, 0.99), threshold=threshold,
        false_match_rate=0.01, true_match_rate=0.9, dataset="made up", embedding_id=embedding_id, same=10,
        different=100,
    )  # fmt: skip


def write_calibration(folder, content):
    (folder / "calibration.json").write_text(content.model_dump_json())


class CountingEngine:
    """An engine that records the shape of the queries of each search, and passes everything on."""

    def __init__(self, engine):
        self.engine = engine
        self.searches = []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def search(self, vectors, k, where=EVERYTHING):
        self.searches.append(np.shape(vectors))
        return self.engine.search(vectors, k, where)


def test_answers_have_a_probability_and_are_unknown_below_the_threshold(engine):
    gallery = Gallery(engine, calibration())
    stored = records(30)
    gallery.add(stored)
    answers = gallery.search(stored[4].vector, k=30)[0]
    assert answers[0].record.id == "r4"
    assert answers[0].known
    assert answers[0].probability == pytest.approx(0.99)
    assert [a.known for a in answers] == [a.similarity >= 0.6 for a in answers]
    assert not answers[-1].known
    assert all(a.probability is None and a.known is None for a in Gallery(engine).search(stored[4].vector)[0])


@pytest.mark.parametrize("prior", [0.5, 0.01, 0.9])
def test_a_probability_follows_from_the_prior_by_bayes_rule(tmp_path, prior):
    gallery = Gallery(create_engine(f"exact:{tmp_path / 'g'}", INFO), calibration(), prior)
    stored = records(30)
    gallery.add(stored)
    for answer in gallery.search(stored[0].vector, k=30)[0]:
        curve = 0.01 + 0.98 * min(max(answer.similarity, 0.0), 1.0)
        odds = curve / (1 - curve) * prior / (1 - prior)
        assert answer.probability == pytest.approx(odds / (1 + odds), abs=1e-6)
    gallery.close()


def test_an_answer_prints_in_one_line_without_its_vector(engine):
    engine.add(records(3))
    (answer,) = Gallery(engine).search(records(1)[0].vector[None], 1)[0]
    assert repr(answer).startswith("Answer(record=Record(id='r0', identity=")
    assert "vector" not in repr(answer)
    assert len(repr(answer)) < 400


def test_answers_by_group(engine):
    gallery = Gallery(engine)
    stored = records(90)
    gallery.add(stored)
    order = naive_order(stored, stored[0].vector)
    for group in ("identity", "tracklet"):
        for k in (2, 3, 50):
            answers = gallery.search(stored[0].vector, k=k, group=group)[0]
            labels = list(dict.fromkeys(getattr(r, group) or r.id for r in order))
            assert [getattr(a.record, group) or a.record.id for a in answers] == labels[:k]
    with pytest.raises(ConfigError, match="not by 'camera'"):
        gallery.search(stored[0].vector, group="camera")


def test_several_queries_are_one_search_of_the_engine(engine):
    counting = CountingEngine(engine)
    gallery = Gallery(counting)
    stored = records(60)
    gallery.add(stored)
    queries = np.stack([r.vector for r in records(8, seed=3)])
    where = Filter(modality=("rgb", "tir"))
    answers = gallery.search(queries, k=5, where=where)
    assert counting.searches == [(8, WIDTH)]
    for row, vector in zip(answers, queries, strict=True):
        assert [a.record.id for a in row] == [i for i, _ in naive_search(stored, vector, 5, where)]
    counting.searches.clear()
    gallery.search(queries, k=5, rerank=True)
    assert counting.searches == [(8, WIDTH)]


def test_only_queries_with_too_few_groups_are_searched_again(tmp_path):
    counting = CountingEngine(create_engine(f"exact:{tmp_path / 'g'}", INFO))
    gallery = Gallery(counting)
    near, far = np.eye(WIDTH, dtype=np.float32)[:2]
    crowd = [replace(r, vector=near, identity="ann", id=f"a{n}") for n, r in enumerate(records(40))]
    others = [replace(r, vector=far, identity=f"p{n}", id=f"o{n}") for n, r in enumerate(records(40))]
    gallery.add(crowd + others)
    answers = gallery.search(np.stack([near, far]), k=3, group="identity")
    assert [[a.record.identity for a in row] for row in answers] == [["ann", "p0", "p1"], ["p0", "p1", "p2"]]
    assert answers[0][0].members == 40
    assert counting.searches[0] == (2, WIDTH)
    assert set(counting.searches[1:]) == {(1, WIDTH)}
    gallery.close()


def test_search_by_a_record_and_by_several_images_of_one_object(engine):
    gallery = Gallery(engine)
    stored = records(40)
    gallery.add(stored)
    wanted = [i for i, _ in naive_search(stored, stored[9].vector, 5, Filter()) if i != "r9"]
    assert [a.record.id for a in gallery.similar("r9", k=4)] == wanted
    query = mean_query(np.stack([stored[1].vector, stored[2].vector]))
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)
    assert {a.record.id for a in gallery.search(query, k=2)[0]} == {"r1", "r2"}
    np.testing.assert_array_equal(gallery.vectors(["r3", "r1"]), np.stack([stored[3].vector, stored[1].vector]))
    assert_same([gallery.record("r5")], [stored[5]])
    for call in (gallery.similar, gallery.record, lambda record_id: gallery.vectors(["r1", record_id])):
        with pytest.raises(GalleryError, match="no record 'x'"):
            call("x")


def test_reranking_orders_the_nearest_records_by_shared_neighbours(engine):
    gallery = Gallery(engine)
    stored = records(60)
    gallery.add(stored)
    query = records(1, seed=9)[0].vector
    order = naive_order(stored, query)
    scores = rerank(InnerProducts(query[None], np.stack([r.vector for r in order]))).rows(slice(0, 1))[0].numpy()
    wanted = [order[n].id for n in np.argsort(-scores, kind="stable")]
    answers = gallery.search(query, k=20, rerank=True)[0]
    assert [a.record.id for a in answers] == wanted[:20]
    assert wanted[:20] != [r.id for r in order[:20]]


def test_bad_queries_are_refused(tmp_path):
    gallery = Gallery(create_engine(f"exact:{tmp_path / 'g'}", INFO))
    gallery.add(records(12))
    vector = records(1)[0].vector
    for k in (0, -1):
        with pytest.raises(ConfigError, match=f"k must be 1 or more, not {k}"):
            gallery.search(vector, k=k)
        with pytest.raises(ConfigError, match=f"k must be 1 or more, not {k}"):
            gallery.similar("r1", k=k)
    for value in (np.nan, np.inf):
        query = np.stack([vector, vector])
        query[1, 3] = value
        with pytest.raises(GalleryError, match="not finite"):
            gallery.search(query)
    with pytest.raises(GalleryError, match="has 3 numbers, and the gallery's records have 16"):
        gallery.search(np.ones(3))
    with pytest.raises(ConfigError, match="the fields of metadata are: floor, gate, night"):
        gallery.search(vector, where=Filter(metadata={"gaet": "north"}))
    for prior in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"prior probability must .* between 0 and 1"):
            Gallery(gallery.engine, prior=prior)
    gallery.close()


def test_assigning_merges_and_splits_and_is_taken_back(engine):
    gallery = Gallery(engine)
    stored = records(20)
    gallery.add(stored)
    before = {r.id: r.identity for r in stored}
    assert gallery.assign(["r0", "r1", "r2"], "merged") == 3
    assert gallery.assign(["r1"]) == 1
    assert {i: engine.get([i])[0].identity for i in ("r0", "r1", "r2")} == {"r0": "merged", "r1": None, "r2": "merged"}
    assert [e.identity for e in engine.assignments()] == ["merged", None]
    assert gallery.undo().identity is None
    assert engine.get(["r1"])[0].identity == "merged"
    gallery.undo()
    assert {r.id: r.identity for r in engine.scan()} == before
    with pytest.raises(GalleryError, match="no assignment to take back"):
        gallery.undo()
    with pytest.raises(GalleryError, match="no record 'x'"):
        gallery.assign(["r1", "x"], "merged")
    with pytest.raises(GalleryError, match="nothing to assign"):
        gallery.assign(of="absent", identity="merged")
    assert {r.id: r.identity for r in engine.scan()} == before
    count = sum(identity == "bob" for identity in before.values())
    assert gallery.assign(of="bob", identity="ann") == count > 0
    assert engine.count(Filter(identity=("bob",))) == 0


def remove_secret(engine):
    """Adds records and some of an identity with marks in all their fields, and removes it; returns those."""
    gallery = Gallery(engine)
    marks = [f"secret-{n}" for n in range(3)]
    secret = [
        replace(
            r, id=f"id-{mark}", identity="secret-name", metadata={"note": f"note-{mark}"}, thumbnail=mark.encode() * 9,
            images={"rgb": f"{mark}.jpg", "tir": f"{mark}-tir.jpg"},
        )
        for r, mark in zip(records(3, seed=5), marks, strict=True)
    ]  # fmt: skip
    stored = records(30)
    gallery.add([*stored[:10], *secret, *stored[10:]])
    gallery.assign(["r1", secret[0].id], "shared-name")
    gallery.assign([secret[0].id], "secret-name")
    assert gallery.verify("secret-name")
    assert gallery.remove(identity="secret-name") == 3
    return secret


def test_a_removed_identity_is_gone_from_records_and_log(engine):
    secret = remove_secret(engine)
    assert maintenance.verify(engine, "secret-name") == []
    assert engine.count() == 30
    assert engine.get([r.id for r in secret]) == []
    assert "secret" not in str(engine.assignments())


def test_a_removed_identity_leaves_no_trace_on_disk(folder_engine):
    """No file contains its name, its ids, its metadata, its images, its thumbnail or a part of its vectors."""
    secret = remove_secret(folder_engine)
    folder_engine.close()
    files = [path for path in folder_engine.path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        packed = path.suffix == ".parquet"
        content = repr(pq.read_table(path).to_pydict()).encode() if packed else path.read_bytes()
        for trace in [b"secret", *(r.vector.tobytes()[:24] for r in secret)]:
            assert trace not in content, path


def test_one_removed_record_of_many_leaves_the_index_too(tmp_path):
    engine = in_folder("index", tmp_path)()
    stored = records(12_000)
    engine.add(stored)
    engine.remove(["r6000"])
    engine.close()
    files = [path for path in (tmp_path / "gallery").rglob("*") if path.is_file()]
    assert any(stored[6001].vector.tobytes() in path.read_bytes() for path in files if "index" in path.parts)
    assert not [path for path in files if stored[6000].vector.tobytes() in path.read_bytes()]


def test_a_removed_identity_leaves_the_files_of_postgresql(postgresql):
    """All but its write-ahead log, which is the server's."""
    engine = in_postgresql(postgresql)()
    secret = remove_secret(engine)
    engine._database.rows("CHECKPOINT")
    files = [path for path in database_folder(postgresql).rglob("*") if path.is_file()]
    assert any(b"shared-name" in path.read_bytes() for path in files)  # so this search can find a trace
    for trace in [b"secret", *(r.vector.astype(">f4").tobytes()[:24] for r in secret)]:
        assert not [path for path in files if trace in path.read_bytes()]
    engine.close()


def test_a_gallery_refuses_vectors_that_are_not_of_its_model(engine):
    gallery = Gallery(engine)
    with pytest.raises(GalleryError, match="the model gives embeddings another, and the gallery has 0123456789abcdef"):
        gallery.info.require("another", "the model gives")
    gallery.info.require(INFO.embedding_id, "the model gives")
    record = records(1)[0]
    for vector in (np.ones(WIDTH + 1), np.full(WIDTH, np.nan), np.ones(WIDTH)):
        with pytest.raises(GalleryError, match="finite numbers of unit length"):
            gallery.add([record, replace(record, id="bad", vector=vector)])
    assert len(gallery) == 0


def test_stats(engine):
    stored = records(40)
    engine.add(stored)
    stats = Gallery(engine).stats()
    assert stats.records == 40
    assert stats.identities == len({r.identity for r in stored} - {None})
    assert stats.unknown == sum(r.identity is None for r in stored)
    assert stats.cameras == {c or "unknown": sum(r.camera == c for r in stored) for c in ("c1", "c2", None)}
    assert stats.modalities == {m: sum(r.modality == m for r in stored) for m in ("rgb", "rgb+nir+tir", "tir")}
    assert (stats.first, stats.last) == (1.0, 9.0)
    assert stats.metadata == ["floor", "gate", "night"]
    assert (stats.embedding_id, stats.model) == (INFO.embedding_id, None)


def test_records_move_between_engines_unchanged(engine, tmp_path):
    gallery = Gallery(engine)
    gallery.add(records(50))
    gallery.assign(["r0"], "zed")
    with Gallery(create_engine(f"exact:{tmp_path / 'other'}", INFO)) as other:
        assert gallery.copy_to(other) == 50
        assert_same(list(other.engine.scan()), list(engine.scan()))
        assert other.engine.assignments() == engine.assignments()
        assert gallery.copy_to(other) == 50  # again: nothing is there twice
        assert len(other) == 50
        assert other.engine.assignments() == engine.assignments()


def test_copying_into_a_gallery_leaves_its_records_and_its_log(tmp_path):
    urls = [f"exact:{tmp_path / name}" for name in "ab"]
    for url, first, identity in zip(urls, (0, 100), ("zed", "zoe"), strict=True):
        with Gallery(create_engine(url, INFO)) as gallery:
            gallery.add(records(5, seed=first, first=first))
            gallery.assign([f"r{first}"], identity)
    assert copy_gallery(*urls) == 5
    with api.open_gallery(urls[1]) as gallery:
        assert len(gallery) == 10
        assert {entry.identity for entry in gallery.engine.assignments()} == {"zed", "zoe"}
        gallery.undo()
        gallery.undo()
        before = {r.id: r.identity for r in [*records(5), *records(5, seed=100, first=100)]}
        assert {r.id: r.identity for r in gallery.engine.scan()} == before


def test_records_move_from_a_folder_to_postgresql_and_back_unchanged(tmp_path, postgresql, capsys):
    urls = [str(tmp_path / "a"), f"{postgresql}&gallery=moved", str(tmp_path / "b")]
    first = create_engine(urls[0], INFO)
    Gallery(first).add(records(2100))
    Gallery(first).assign(["r0"], "zed")
    wanted, log = list(first.scan()), first.assignments()
    first.close()
    for here, there in pairwise(urls):
        assert f"2,100 records copied to {shown_url(there)}" in resight(capsys, "gallery", "copy", here, there)
    last = open_engine(urls[2])
    assert_same(list(last.scan()), wanted)
    assert last.assignments() == log
    assert last.info == INFO
    last.close()
    model = small_model(tmp_path / "model", sie=())
    assert "has a gallery 'moved' already" in resight(capsys, "gallery", "create", urls[1], "--model", model, status=2)


def test_a_gallery_of_another_model_is_no_target_of_a_copy(tmp_path):
    create_engine(f"exact:{tmp_path / 'a'}", INFO).close()
    create_engine(f"exact:{tmp_path / 'b'}", INFO.model_copy(update={"embedding_id": "f" * 16})).close()
    with pytest.raises(GalleryError, match="cannot be compared"):
        copy_gallery(f"exact:{tmp_path / 'a'}", f"exact:{tmp_path / 'b'}")
    for name in "ab":  # both were closed
        open_engine(f"exact:{tmp_path / name}").close()


def answers_of(text):
    """The answers of the first query of a search with --json."""
    return json.loads(text)["queries"][0]["answers"]


@pytest.fixture
def model_folder(tmp_path):
    return small_model(tmp_path / "model", sie=())


def replace_model(folder):
    """Put another model in a model folder."""
    shutil.rmtree(folder)
    small_model(folder, sie=("camera",))


@pytest.fixture
def seen(tmp_path):
    """Three pictures each of two identities."""
    for identity in ("ann", "bob"):
        for shot in range(3):
            picture(tmp_path / "seen" / identity / f"{shot}.png", ord(identity[0]), shot)
    return tmp_path / "seen"


def test_a_created_gallery_states_its_model_and_is_closed_by_the_context(tmp_path, model_folder):
    embedder = load(model_folder, flip=True)
    with api.create_gallery(tmp_path / "g", embedder) as gallery:
        assert gallery.info.width == embedder.width
        assert gallery.info.embedding_id == embedder.embedding_id
        assert gallery.info.embedding.flip
        assert gallery.info.model == str(model_folder.resolve())
        with pytest.raises(GalleryError, match="exists already"):
            api.create_gallery(tmp_path / "g", embedder)
    with pytest.raises(RuntimeError), api.open_gallery(tmp_path / "g"):
        raise RuntimeError
    with api.open_gallery(tmp_path / "g") as gallery:  # the one before has released it
        assert gallery.embedder.embedding_id == embedder.embedding_id
        assert gallery.embedder.settings.flip
    assert load(model_folder).embedding_id != embedder.embedding_id


def test_open_gallery_refuses_what_is_not_there_or_of_another_model_and_releases_it(tmp_path, model_folder):
    with pytest.raises(GalleryError, match="is no gallery"):
        api.open_gallery(tmp_path / "g")
    api.create_gallery(tmp_path / "g", model_folder).close()
    other = load(small_model(tmp_path / "other", sie=(), mean=(0.4, 0.4, 0.4)))
    for embedder in (other, load(model_folder, flip=True)):
        with pytest.raises(GalleryError, match="cannot be compared"):
            api.open_gallery(tmp_path / "g", embedder)
    with pytest.raises(ConfigError, match="prior"):
        api.open_gallery(tmp_path / "g", prior=1.0)
    api.open_gallery(tmp_path / "g", load(model_folder, precision="fp32", batch_size=3)).close()


def test_another_model_in_the_model_folder_is_refused_when_it_is_needed(tmp_path, model_folder, seen):
    api.create_gallery(tmp_path / "g", model_folder).close()
    replace_model(model_folder)
    with api.open_gallery(tmp_path / "g") as gallery:
        with pytest.raises(GalleryError, match="cannot be compared"):
            gallery.search(seen / "ann" / "0.png")
        assert gallery.search(np.eye(1, gallery.info.width, dtype=np.float32)) == [[]]


def test_search_embeds_pictures_and_sightings(tmp_path, seen):
    model = small_model(tmp_path / "three", modalities=MODALITIES, sie=())
    whole = Sighting({m: picture(tmp_path / f"{m}.png", n) for n, m in enumerate(MODALITIES)})
    with api.create_gallery(tmp_path / "g", model) as gallery:
        gallery.ingest(SightingTable.of([whole, Sighting({"tir": whole.images["tir"]})]))
        answers = gallery.search([whole, dict(whole.images), {"tir": whole.images["tir"]}], k=1)
        assert [row[0].record.modality for row in answers] == ["rgb+nir+tir", "rgb+nir+tir", "tir"]
        assert [row[0].similarity for row in answers] == pytest.approx([1, 1, 1], abs=1e-4)
        answers = gallery.search(whole.images["tir"], k=2, modality="tir")
        assert [a.record.modality for a in answers[0]] == ["tir", "rgb+nir+tir"]
        assert answers[0][0].similarity == pytest.approx(1, abs=1e-4)
        with pytest.raises(ConfigError, match="knows no modality 'xray'"):
            gallery.search(whole.images["tir"], modality="xray")


def ingested(tmp_path, model, seen, name="g"):
    """A gallery of the pictures in `seen`, closed."""
    url = f"exact:{tmp_path / name}"
    with api.create_gallery(url, model) as gallery:
        gallery.ingest(api.read_images([seen], identity_from_folder=True))
    return url


def test_a_calibration_of_other_embeddings_is_refused_and_one_that_matches_gives_probabilities(
    tmp_path, model_folder, seen, capsys
):
    url, query = ingested(tmp_path, model_folder, seen), seen / "ann" / "0.png"
    write_calibration(model_folder, calibration(load(model_folder, flip=True).embedding_id))
    refusal = f"the calibration is of embeddings {load(model_folder, flip=True).embedding_id}, and the gallery has"
    with pytest.raises(GalleryError, match=refusal):
        api.open_gallery(url)
    printed = resight(capsys, "gallery", "search", url, query, status=2)
    assert refusal in printed
    with pytest.raises(ConfigError, match="run resight calibrate with the same settings"):
        api.open_gallery(url, load(model_folder))
    with pytest.raises(ConfigError, match="run resight calibrate with the same settings"):
        api.create_gallery(f"exact:{tmp_path / 'refused'}", model_folder)
    assert not exists(f"exact:{tmp_path / 'refused'}")  # nothing was created

    write_calibration(model_folder, calibration(load(model_folder).embedding_id))
    for embedder in (None, load(model_folder)):
        with api.open_gallery(url, embedder) as gallery:
            answers = gallery.search(query, k=6)[0]
            assert [a.probability for a in answers] == pytest.approx(
                [0.01 + 0.98 * min(max(a.similarity, 0), 1) for a in answers], abs=1e-6
            )
            assert [a.known for a in answers] == [a.similarity >= 0.6 for a in answers]
    row = answers_of(resight(capsys, "gallery", "search", url, query, "--json"))[0]
    assert row["probability"] == pytest.approx(0.99, abs=1e-3)
    assert row["known"] is True
    # A gallery of the same model with flip is of other embeddings than the calibration that is there now.
    with pytest.raises(ConfigError, match="run resight calibrate"):
        api.create_gallery(f"exact:{tmp_path / 'flip'}", load(model_folder, flip=True))


def test_no_answer_above_the_threshold_is_printed(tmp_path, model_folder, seen, capsys):
    url = ingested(tmp_path, model_folder, seen)
    write_calibration(model_folder, calibration(load(model_folder).embedding_id, threshold=1.5))
    assert "No match above the threshold" in resight(capsys, "gallery", "search", url, seen / "ann" / "0.png")


@pytest.fixture
def side_info_model(tmp_path):
    """A model whose embeddings depend on camera and view, and of three modalities."""
    folder = small_model(tmp_path / "sie", modalities=MODALITIES, sie=("camera",))
    assert read_card(folder).model.sie == ("camera",)
    return folder


def test_a_query_is_embedded_with_its_camera_and_modality(tmp_path, side_info_model, capsys):
    shot = picture(tmp_path / "shot.png", 4)
    embedder, url = load(side_info_model), f"exact:{tmp_path / 'g'}"
    with api.create_gallery(url, embedder) as gallery:
        gallery.ingest(
            SightingTable.of(
                [
                    Sighting({"tir": picture(tmp_path / "a.png", 1)}, identity="ann", camera="c1"),
                    Sighting({"rgb": picture(tmp_path / "b.png", 2)}, identity="bob", camera="c2"),
                ]
            )
        )
        stored = {record.identity: record.vector for record in gallery.engine.scan()}

    def printed(*options):
        answers = answers_of(resight(capsys, "gallery", "search", url, shot, "--json", *options))
        return {answer["identity"]: answer["similarity"] for answer in answers}

    def expected(**labels):
        query = embedder.embed(shot, **labels)[0]
        return {identity: pytest.approx(float(query @ vector), abs=1e-3) for identity, vector in stored.items()}

    results = [printed()]
    assert results[0] == expected()
    for camera in ("c1", "c2"):
        results.append(printed("--query-camera", camera))
        assert results[-1] == expected(camera=camera)
        results.append(printed("--query-camera", camera, "--query-modality", "tir"))
        assert results[-1] == expected(camera=camera, modality="tir")
    assert len({(result["ann"], result["bob"]) for result in results}) == 5
    for result in results[1:]:  # every one differs from the query without labels
        assert max(abs(result[name] - results[0][name]) for name in result) > 0.1
    # A filter chooses records and does not change the query; a camera of the query chooses no records.
    assert printed("--camera", "c1") == {"ann": results[0]["ann"]}
    assert printed("--modality", "tir") == {"ann": results[0]["ann"]}
    assert printed("--query-camera", "c2", "--camera", "c1") == {"ann": expected(camera="c2")["ann"]}
    assert "knows no modality" not in resight(capsys, "gallery", "search", url, shot, "--query-modality", "nir")


def test_a_query_is_embedded_with_its_view(tmp_path, capsys):
    from resight.config.sections import Model, Preprocessing
    from resight.data.vocabulary import Vocabulary
    from resight.files import write_folder
    from resight.models.checkpoint import ModelCard, fill_model_folder

    card = ModelCard(
        model=Model(backbone="test_vit", sie=("view",)),
        preprocessing=Preprocessing(size=(64, 32)),
        vocabulary=Vocabulary(("a", "b"), (), ("front", "rear"), ("rgb",)),
    )
    network = card.build()
    network.backbone.sie.table.data.normal_()
    write_folder(tmp_path / "model", lambda path: fill_model_folder(path, network.state_dict(), card))
    embedder, url = load(tmp_path / "model"), f"exact:{tmp_path / 'g'}"
    shot = picture(tmp_path / "shot.png", 4)
    with api.create_gallery(url, embedder) as gallery:
        gallery.ingest(SightingTable.of([Sighting({"rgb": picture(tmp_path / "a.png", 1)}, view="front")]))
        stored = next(gallery.engine.scan()).vector
    similarities = []
    for view in (None, "front", "rear"):
        options = [] if view is None else ["--query-view", view]
        answer = answers_of(resight(capsys, "gallery", "search", url, shot, "--json", *options))[0]
        assert answer["similarity"] == pytest.approx(float(embedder.embed(shot, view=view)[0] @ stored), abs=1e-3)
        similarities.append(answer["similarity"])
    assert min(abs(a - b) for a, b in pairwise(sorted(similarities))) > 0.01


def test_a_gallery_created_in_python_works_from_the_command_line(tmp_path, model_folder, seen, capsys):
    url = ingested(tmp_path, model_folder, seen)
    answers = json.loads(resight(capsys, "gallery", "search", url, seen / "bob" / "1.png", "--k", 3, "--json"))
    (entry,) = answers["queries"]
    assert entry["answers"][0]["identity"] == "bob"
    assert entry["answers"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert "0 added, 6 already present" in resight(capsys, "gallery", "add", url, seen, "--quiet")
    assert json.loads(resight(capsys, "gallery", "stats", url, "--json"))["records"] == 6


def test_a_gallery_without_a_model_folder_works_where_no_model_is_needed(
    tmp_path, model_folder, seen, capsys, monkeypatch
):
    """Its embedder was given in Python; a calibration.json in the working directory has nothing to do with it."""
    model, card = load_model(model_folder)
    url = ingested(tmp_path, Embedder(model, card), seen)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_calibration(tmp_path / "elsewhere", calibration(load(model_folder).embedding_id))

    with api.open_gallery(url) as gallery:
        assert gallery.info.model is None
        assert gallery.calibration is None
        record_id = next(gallery.engine.scan(Filter(identity=("ann",)))).id
    query = seen / "ann" / "1.png"
    printed = resight(capsys, "gallery", "search", url, query, status=2)
    assert "has no model folder" in printed
    assert "has no model folder" in resight(capsys, "gallery", "add", url, query, status=2)
    assert "no calibration" in resight(capsys, "gallery", "cluster", url, status=2)
    answers = answers_of(resight(capsys, "gallery", "search", url, "--id", record_id, "--k", 2, "--json"))
    assert [a["probability"] for a in answers] == [None, None]
    assert [a["known"] for a in answers] == [None, None]
    assert "6 records, no fault" in resight(capsys, "gallery", "verify", url)
    # With the model's folder, images can be added: it is checked against the gallery.
    picture(tmp_path / "new.png", 5)
    words = ["gallery", "add", url, tmp_path / "new.png", "--quiet", "--model"]
    assert "1 added" in resight(capsys, *words, model_folder)
    other = small_model(tmp_path / "other", sie=(), mean=(0.4, 0.4, 0.4))
    assert "cannot be compared" in resight(capsys, *words, other, status=2)
    with api.open_gallery(url, Embedder(model, card)) as gallery:
        assert gallery.search(query, k=1)[0][0].record.images == {"rgb": str(query)}


def test_a_model_folder_that_is_gone_leaves_what_needs_no_model(tmp_path, model_folder, seen, capsys):
    url = ingested(tmp_path, model_folder, seen)
    model_folder.rename(tmp_path / "moved")
    assert "is no model folder" in resight(capsys, "gallery", "search", url, seen / "ann" / "0.png", status=2)
    assert "identities          2" in resight(capsys, "gallery", "stats", url)
    with api.open_gallery(url, load(tmp_path / "moved")) as gallery:
        assert len(gallery.search(seen / "ann" / "0.png")[0]) == 6


def test_add_with_a_model_creates_the_gallery(tmp_path, model_folder, seen, capsys):
    words = ["gallery", "add", tmp_path / "g", seen, "--identity-from-folder", "--quiet"]
    assert "is no gallery" in resight(capsys, *words, status=2)
    assert not exists(str(tmp_path / "g"))
    assert "6 added, 0 already present, 0 corrupt" in resight(capsys, *words, "--model", model_folder)
    with api.open_gallery(tmp_path / "g") as gallery:
        assert gallery.info.model == str(model_folder.resolve())
        assert gallery.stats().identities == 2
        paths = sorted(seen.rglob("*.png"))
        stored = {record.images["rgb"]: record.vector for record in gallery.engine.scan()}
        np.testing.assert_allclose(
            np.stack([stored[str(path)] for path in paths]), load(model_folder).embed(paths), atol=1e-5
        )
    assert "0 added, 6 already present" in resight(capsys, *words, "--model", model_folder)


def test_a_gallery_from_the_command_line(tmp_path, model_folder, seen, capsys):
    (seen / "bob" / "bad.png").write_text("no")
    at = tmp_path / "g"
    assert "embeddings of 64 numbers" in resight(capsys, "gallery", "create", at, "--model", model_folder)
    words = ["gallery", "add", at, seen, "--identity-from-folder", "--metadata", "floor=2", "--thumbnails", "--quiet"]
    assert "6 added, 0 already present, 1 corrupt and skipped" in resight(capsys, *words)
    assert "0 added, 6 already present, 1 corrupt and skipped" in resight(capsys, *words)
    query = seen / "ann" / "1.png"
    answers = answers_of(resight(capsys, "gallery", "search", at, query, "--k", 3, "--json"))
    assert answers[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert answers[0]["images"] == {"rgb": str(query)}
    assert answers[0]["metadata"] == {"floor": 2}
    words = ["gallery", "search", at, "--id", answers[0]["id"], "--k", 2, "--json"]
    assert [a["id"] for a in answers_of(resight(capsys, *words))] == [a["id"] for a in answers[1:]]
    ids = [a["id"] for a in answers]
    several = json.loads(resight(capsys, "gallery", "search", at, "--id", *ids, "--k", 3, "--json"))
    # although three records are left out of each
    assert [len(row["answers"]) for row in several["queries"]] == [3, 3, 3]
    assert "ann" in resight(capsys, "gallery", "search", at, query, query, "--same-object", "--group", "identity")
    assert "metadata are: floor" in resight(capsys, "gallery", "search", at, query, "--metadata", "flor=2", status=2)
    assert "the gallery has rgb)" in resight(capsys, "gallery", "search", at, query, "--modality", "tir")
    assert "identities          2" in resight(capsys, "gallery", "stats", at)
    assert "3 records assigned to ann" in resight(capsys, "gallery", "assign", at, "--of", "bob", "--identity", "ann")
    assert "identities          1" in resight(capsys, "gallery", "stats", at)
    assert "undone: 3 records" in resight(capsys, "gallery", "undo", at)
    assert "3 records removed" in resight(capsys, "gallery", "remove", at, "--identity", "bob")
    assert "log entry has the identity 'bob'" in resight(capsys, "gallery", "verify", at, "--identity", "bob")
    assert "nothing is removed" in resight(capsys, "gallery", "remove", at, "--identity", "bob")
    copied = f"exact:{tmp_path / 'copy'}"
    assert "3 records copied" in resight(capsys, "gallery", "copy", at, copied)
    assert "faults: record" in resight(capsys, "gallery", "verify", copied, "--identity", "ann", status=2)
    replace_model(model_folder)
    assert "cannot be compared" in resight(capsys, "gallery", "search", at, query, status=2)


def test_bad_options_of_the_command_line_are_refused(tmp_path, model_folder, seen, capsys):
    at, query = ingested(tmp_path, model_folder, seen), seen / "ann" / "0.png"
    with api.open_gallery(at) as gallery:
        record_id = next(gallery.engine.scan()).id
    search = ["gallery", "search", at]
    for k in (0, -2):
        for given in ([query], ["--id", record_id]):
            assert f"k must be 1 or more, not {k}" in resight(capsys, *search, *given, "--k", k, status=2)
    for prior in (0, 1, 1.5, "nan"):
        assert "prior probability must" in resight(capsys, *search, query, "--prior", prior, status=2)
    assert "give query images" in resight(capsys, *search, status=2)
    assert "give query images" in resight(capsys, *search, query, "--id", record_id, status=2)
    assert "no record 'x'" in resight(capsys, *search, "--id", "x", status=2)
    assert "knows no modality 'tir'" in resight(capsys, *search, query, "--query-modality", "tir", status=2)
    assert "give either" in resight(capsys, "gallery", "add", at, status=2)
    assert "no picture, folder or table" in resight(capsys, "gallery", "add", at, tmp_path / "none", status=2)
    words = ["gallery", "add", at, "--embeddings", tmp_path / "e.parquet"]
    assert "--embeddings has no images" in resight(capsys, *words, "--thumbnails", status=2)
    assert "give either" in resight(capsys, *words, query, status=2)
    assert "NAME=VALUE" in resight(capsys, "gallery", "add", at, query, "--metadata", "floor", status=2)
    assert "give either" in resight(capsys, "gallery", "remove", at, status=2)
    assert "nothing to assign" in resight(capsys, "gallery", "assign", at, "--identity", "x", status=2)
    assert "no assignment to take back" in resight(capsys, "gallery", "undo", at, status=2)
    for action in ("find", "name", "export", "link"):
        assert action in resight(capsys, "gallery", action, at, status=2)


def test_a_gallery_of_format_1_is_refused_by_the_command_line(tmp_path, model_folder, seen, capsys):
    at = tmp_path / "g"
    at.mkdir()
    (at / "gallery.json").write_text(
        json.dumps({"format": 1, "width": 64, "fingerprint": "x", "model": str(model_folder)})
    )
    for words in (["search", at, seen / "ann" / "0.png"], ["add", at, seen], ["stats", at], ["copy", at, "new"]):
        assert "reads format 3: create the gallery again" in resight(capsys, "gallery", *words, status=2)
