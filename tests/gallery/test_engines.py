"""Every gallery engine against one contract, recomputed naively."""

import json
import os
import sqlite3
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from gallery_engines import (
    INFO,
    WIDTH,
    assert_same,
    in_folder,
    in_postgresql,
    naive_search,
    records,
)
from qdrant_client import QdrantClient
from qdrant_client.models import PointStruct

from resight.config.sections import Embedding
from resight.errors import ConfigError, GalleryError
from resight.gallery.engines.postgres import PostgresEngine
from resight.gallery.engines.qdrant import QdrantEngine
from resight.gallery.engines.sqlite import matrix
from resight.gallery.engines.sqlite.index import Index
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.record import Assignment, Filter, GalleryInfo
from resight.gallery.url import create_engine, exists, open_engine

pytest_plugins = ("gallery_fixtures",)

FILTERS = [
    Filter(),
    Filter(identity=("ann",)),
    Filter(identity=("ann", "cyd", "absent"), camera=("c1",)),
    Filter(camera=("c1", "c2"), modality=("rgb",), tracklet=("t1", "t2")),
    Filter(modality=("rgb+nir+tir", "tir")),
    Filter(after=2.5),
    Filter(after=1.0, before=7.0),
    Filter(metadata={"gate": "north"}),
    Filter(metadata={"floor": 2}),
    Filter(metadata={"floor": 2.0, "night": True}, modality=("tir",)),
    Filter(identity=("absent",)),
]


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_filter_searches_counts_and_scans_the_records_for_which_it_holds(engine, where):
    stored = records(120)
    for part in (stored[:50], stored[50:51], stored[51:]):
        engine.add(part)
    expected = [r for r in stored if where.holds(r)]
    assert engine.count(where) == len(expected)
    assert_same(list(engine.scan(where)), expected)
    queries = np.stack([r.vector for r in records(5, seed=1)])
    for k in (1, 7, 200):
        for near, vector in zip(engine.search(queries, k, where), queries, strict=True):
            wanted = naive_search(stored, vector, k, where)
            assert [n.id for n in near] == [i for i, _ in wanted]
            np.testing.assert_allclose([n.similarity for n in near], [s for _, s in wanted], atol=1e-5)


@pytest.mark.parametrize("count", [60, 3000, 4000])
def test_many_queries_at_once_have_the_answers_of_a_naive_search(tmp_path, count):
    """Small products are computed in groups of queries, larger ones as a whole."""
    engine = create_engine(f"exact:{tmp_path / 'g'}", INFO)
    stored = records(count)
    engine.add(stored)
    for number in (1, 5, 40):
        queries = np.stack([r.vector for r in records(number, seed=1)])
        scores = np.stack([r.vector for r in stored]) @ queries.T  # [n, Q]
        for near, row in zip(engine.search(queries, 3), scores.T, strict=True):
            assert [n.id for n in near] == [f"r{place}" for place in np.argsort(-row)[:3]]
    engine.close()


@pytest.mark.parametrize("number", [1, 40])
@pytest.mark.parametrize("camera", ["c1", "c2", None])
def test_the_rows_of_a_filter_are_copied_in_parts(tmp_path, monkeypatch, camera, number):
    """Ten rows at a time here, in blocks of 64: some parts are small products, and with 40 queries some are not."""
    monkeypatch.setattr(matrix, "_BLOCK", 64)
    monkeypatch.setattr(matrix, "_COPIED", 10 * 4 * WIDTH)
    monkeypatch.setattr(matrix, "_SMALL", 40 * 8 * WIDTH)
    monkeypatch.setattr(matrix, "_ALONE", 3 * 10 * WIDTH)
    engine = create_engine(f"exact:{tmp_path / 'g'}", INFO)
    stored = records(300)
    engine.add(stored)
    where = Filter() if camera is None else Filter(camera=(camera,))
    queries = [r.vector for r in records(number, seed=1)]
    for near, vector in zip(engine.search(np.stack(queries), 7, where), queries, strict=True):
        assert [n.id for n in near] == [i for i, _ in naive_search(stored, vector, 7, where)]
    engine.close()


def test_equally_near_records_come_in_the_order_in_which_they_were_added(tmp_path):
    engine = create_engine(f"exact:{tmp_path / 'g'}", INFO)
    vector = records(1)[0].vector
    for part in range(4):
        engine.add([replace(r, vector=vector) for r in records(10, seed=part, first=10 * part)])
    assert [n.id for n in engine.search(vector[None], 12)[0]] == [f"r{n}" for n in range(12)]
    engine.close()


def test_records_are_stored_when_the_gallery_is_opened_again(reopen):
    engine, stored = reopen(), records(60)
    for start in range(0, 60, 6):
        engine.add(stored[start : start + 6])
    assert engine.assign(["r3", "r59"], "dora") == 2
    assert engine.remove(["r7", "r8", "r8", "never"]) == 2
    replacement = replace(stored[5], identity="ed", metadata={"new": 1})
    engine.add([replacement])  # takes the place of the first one
    stored[3], stored[59] = replace(stored[3], identity="dora"), replace(stored[59], identity="dora")
    expected = [r for r in stored if r.id not in ("r5", "r7", "r8")] + [replacement]
    entry = Assignment("2026-11-24T12:00:00+00:00", "é", {"r1": None, "r2": "ann"})
    engine.add_assignments([entry])
    logged = engine.assignments()
    assert [e.identity for e in logged] == ["dora", "é"]
    assert logged[1] == entry
    for _ in range(2):
        assert_same(list(engine.scan()), expected)
        assert engine.count() == 58
        assert engine.count(Filter(identity=("dora",))) == 2
        assert "new" in engine.fields()
        assert_same(engine.get(["r59", "absent", "r5"]), [stored[59], replacement])
        wanted = naive_search(expected, stored[7].vector, 5, Filter())
        assert [n.id for n in engine.search(stored[7].vector[None], 5)[0]] == [i for i, _ in wanted]
        assert [n.id for n in engine.search(stored[3].vector[None], 1, Filter(identity=("dora",)))[0]] == ["r3"]
        assert engine.assignments() == logged
        assert engine.faults() == []
        engine.close()
        engine = reopen()
    engine.close()


def test_what_the_gallery_knows_of_its_model_comes_back_as_it_was_given(reopen, tmp_path, postgresql):
    engine = reopen()
    assert engine.info == INFO
    assert isinstance(engine.info, GalleryInfo)
    engine.close()
    info = GalleryInfo(
        width=24, embedding_id="fedcba9876543210", model="/models/é", embedding=Embedding(flip=True, fusion="mean")
    )
    for url in (str(tmp_path / "plain"), f"exact:{tmp_path / 'exact'}", f"{postgresql}&gallery=info_{os.getpid()}"):
        if not exists(url):
            create_engine(url, info).close()
        assert exists(url)
        opened = open_engine(url)
        assert opened.info == info
        opened.close()


def test_an_index_that_is_older_than_the_database_is_brought_up_to_date(tmp_path):
    reopen = in_folder("index", tmp_path)
    stored = records(80)
    engine = reopen()
    engine.add(stored[:40])
    engine.close()
    plain = SQLiteEngine(tmp_path / "gallery", indexed=False)  # as a crash between database and index leaves it
    plain.add(stored[40:])
    plain.assign(["r1"], "zoe")
    plain.add([replace(stored[3], identity="ed")])
    plain.close()
    expected = [replace(r, identity="zoe") if r.id == "r1" else r for r in stored if r.id != "r3"]
    expected.append(replace(stored[3], identity="ed"))
    for corrupt in ("", "index.json", "index"):
        if corrupt == "index.json":
            (tmp_path / "gallery" / "index.json").write_text("{")
        if corrupt == "index":
            next((tmp_path / "gallery" / "index").rglob("segment.json")).write_text("{")
        engine = reopen()
        assert sorted(engine.derived.index.vectors()) == sorted({*range(1, 82)} - {4})
        for vector in (stored[3].vector, stored[60].vector):
            wanted = [i for i, _ in naive_search(expected, vector, 9, Filter())]
            assert [n.id for n in engine.search(vector[None], 9)[0]] == wanted
        assert [n.id for n in engine.search(stored[1].vector[None], 3, Filter(identity=("zoe",)))[0]] == ["r1"]
        assert engine.faults() == []
        engine.close()


def test_an_index_is_optimized_however_little_is_added_at_a_time(tmp_path, monkeypatch):
    optimized, real = [], Index._optimize
    monkeypatch.setattr(Index, "_optimize", lambda self: (optimized.append(len(self.vectors())), real(self)))
    reopen = in_folder("index", tmp_path)
    for start in range(0, 12_000, 3000):
        engine = reopen()
        engine.add(records(3000, seed=start, first=start))
        engine.close()
    assert optimized == [12_000]


def test_no_gallery_over_another_and_none_where_there_is_none(folder_engine, tmp_path):
    with pytest.raises(GalleryError, match="exists already"):
        SQLiteEngine.create(folder_engine.path, INFO)
    with pytest.raises(GalleryError, match="is no gallery"):
        open_engine(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="known are: FOLDER, exact:FOLDER, qdrant://"):
        open_engine("mongo://x")
    assert exists(str(folder_engine.path))
    assert not exists(f"exact:{tmp_path / 'nothing'}")


OLD = {"format": 1, "width": 16, "fingerprint": "0123456789abcdef", "model": None}
IN_FOLDER = r"has format 1, and this version of resight reads format 3: create the gallery again and add its images$"
REFUSED = r"has format 1, and this version of resight reads format 2: create the gallery again and add its images$"


def test_a_gallery_of_format_1_is_refused_in_one_sentence(tmp_path, postgresql):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(OLD))
    for url in (str(tmp_path / "g"), f"exact:{tmp_path / 'g'}"):
        with pytest.raises(GalleryError, match=IN_FOLDER) as refusal:
            open_engine(url)
        assert str(tmp_path / "g" / "gallery.json") in str(refusal.value)
    SQLiteEngine.create(tmp_path / "later", INFO)
    with sqlite3.connect(tmp_path / "later" / "gallery.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(GalleryError, match="has format 99, and this version of resight reads format 3"):
        open_engine(str(tmp_path / "later"))

    url = f"{postgresql}&gallery=old_{os.getpid()}"
    PostgresEngine.create(url, INFO).close()
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"UPDATE old_{os.getpid()}.info SET info = %s", [json.dumps(OLD)])
    with pytest.raises(GalleryError, match=REFUSED):
        PostgresEngine(url)

    client = QdrantClient(":memory:")
    QdrantEngine.create(client, "old", INFO)
    client.upsert("old.info", [PointStruct(id=0, vector={}, payload={"entry": json.dumps(OLD)})])
    with pytest.raises(GalleryError, match=REFUSED):
        QdrantEngine(client, "old")


def test_a_server_that_cannot_be_reached_is_named(postgresql):
    with pytest.raises(GalleryError, match=r"PostgreSQL says: .*refused"):
        open_engine("postgresql://nobody:secret@localhost:1/none")
    with pytest.raises(GalleryError, match="has no gallery 'none'"):
        open_engine(f"{postgresql}&gallery=none")
    with pytest.raises(GalleryError, match=r"Qdrant says: .*refused"):
        open_engine("qdrant://localhost:1/none")
    with pytest.raises(GalleryError, match="is not of the form qdrant://HOST:PORT/COLLECTION"):
        open_engine("qdrant://localhost:1")
    client = QdrantClient(":memory:")
    with pytest.raises(GalleryError, match="has no gallery 'none'"):
        QdrantEngine(client, "none")
    QdrantEngine.create(client, "one", INFO)
    with pytest.raises(GalleryError, match="has a collection 'one' already"):
        QdrantEngine.create(client, "one", INFO)


def test_postgresql_creates_no_gallery_over_another(postgresql):
    engine = in_postgresql(postgresql)()
    url = f"{postgresql}&gallery={engine._database.schema}"
    with pytest.raises(GalleryError, match=f"has a gallery '{engine._database.schema}' already"):
        PostgresEngine.create(url, INFO)
    assert PostgresEngine.exists(url)
    engine.close()
