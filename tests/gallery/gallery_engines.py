"""Records, naive searches, and new galleries in every engine (the fixtures are in gallery_fixtures.py)."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import numpy as np
from qdrant_client import QdrantClient

from resight.cli import main
from resight.gallery.engines.postgres import PostgresEngine
from resight.gallery.engines.qdrant import QdrantEngine
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.record import Filter, GalleryInfo, Record

WIDTH = 16
INFO = GalleryInfo(width=WIDTH, embedding_id="0123456789abcdef")


def records(count, seed=0, first=0):
    """Records with random vectors and labels; ids r0, r1, ... from `first` on."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def pick(values):
        return values[rng.integers(len(values))]

    return [
        Record(
            id=f"r{first + n}",
            vector=vectors[n],
            identity=pick(["ann", "bob", "cyd", None]),
            camera=pick(["c1", "c2", None]),
            modality=pick(["rgb", "tir", "rgb+nir+tir"]),
            tracklet=pick(["t1", "t2", "t3", None]),
            time=pick([None, 1.0, 2.5, 7.0, 9.0]),
            images=pick([{}, {"rgb": f"images/{n}.jpg"}, {"rgb": f"a/{n}.jpg", "nir": "b|c.jpg", "tir": "d é.jpg"}]),
            thumbnail=pick([None, b"\xff\xd8thumbnail"]),
            metadata=pick([{}, {"gate": "north"}, {"gate": "south", "floor": 2}, {"floor": 2.0, "night": True}]),
        )
        for n in range(count)
    ]


def assert_same(actual, expected):
    """Equal in every field, the types of metadata too, and in the same order."""
    assert [r.id for r in actual] == [r.id for r in expected]
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.vector, b.vector)
        assert replace(a, vector=None) == replace(b, vector=None)
        assert {n: type(v) for n, v in a.metadata.items()} == {n: type(v) for n, v in b.metadata.items()}


def naive_search(stored, vector, k, where):
    """Ids and similarities of the k nearest records that a filter holds for; the earlier of equal ones first."""
    scores = [(float(r.vector @ vector), -n, r.id) for n, r in enumerate(stored) if where.holds(r)]
    return [(i, s) for s, _, i in sorted(scores, reverse=True)[:k]]


def naive_order(stored, vector):
    """All records, the nearest first."""
    return [next(r for r in stored if r.id == i) for i, _ in naive_search(stored, vector, len(stored), Filter())]


def resight(capsys, *arguments, status=0):
    """The output of a command: standard output, or the error where it fails."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == status
    printed = capsys.readouterr()
    if status == 0:
        return printed.out
    assert len(printed.err.splitlines()) == 1, printed.err  # one sentence, no traceback
    return printed.err


def in_folder(kind, tmp_path):
    """A function that opens a new gallery, again and again."""
    SQLiteEngine.create(tmp_path / "gallery", INFO)
    return lambda: FOLDERS[kind](tmp_path / "gallery")


def in_postgresql(server):
    """Likewise, in a schema of its own; the index is used from the first record on."""
    url = f"{server}&gallery=g{uuid4().hex}"
    PostgresEngine.create(url, INFO).close()
    return lambda: PostgresEngine(url, exact_under=0)


def in_qdrant():
    """Likewise, in the memory of one client, which is why that is never closed."""
    client = QdrantClient(":memory:")
    client.close = lambda: None
    QdrantEngine.create(client, "seen", INFO)
    return lambda: QdrantEngine(client, "seen", exact_under=0)


def database_folder(server):
    """Where the files of a PostgreSQL server's tables are stored."""
    return Path(parse_qs(urlsplit(server).query)["host"][0]) / "base"


FOLDERS = {
    "exact": lambda path: SQLiteEngine(path, indexed=False),
    "index": lambda path: SQLiteEngine(path, exact_under=0),  # through the index from the first record on
}
