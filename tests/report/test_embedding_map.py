"""The embedding map: which records it has, where points lie, and the drawing."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from resight.cli import main
from resight.errors import ConfigError
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.gallery import Gallery
from resight.gallery.record import GalleryInfo, Record
from resight.report import embedding_map as module
from resight.report.embedding_map import PALETTE, EmbeddingMap, colours_of, draw_map, embedding_map, sample_records

WIDTH = 8


def grouped(count, groups=3, seed=0):
    """Records around the axes: the nearest of each are of its own group."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        vector = np.eye(WIDTH)[n % groups] + 0.15 * rng.standard_normal(WIDTH)
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        made.append(Record(f"r{n}", vector, identity=f"id{n % groups}", camera=f"c{n % 2}"))
    return made


class Engine(SimpleNamespace):
    def scan(self):
        return iter(self.records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A gallery of three groups in a folder."""
    path = tmp_path_factory.mktemp("gallery") / "g"
    SQLiteEngine.create(path, GalleryInfo(width=WIDTH, embedding_id="0123456789abcdef"))
    engine = SQLiteEngine(path)
    engine.add(grouped(60))
    engine.close()
    return path


@pytest.mark.slow
def test_neighbors_stay_neighbors_and_the_map_is_repeated(folder):
    seen = []
    with Gallery(SQLiteEngine(folder)) as gallery:
        drawn = embedding_map(gallery, seed=3, progress=seen.append)
        again = embedding_map(gallery, seed=3)
    np.testing.assert_array_equal(drawn.positions, again.positions)
    assert (drawn.total, len(drawn.records), seen[-1]) == (60, 60, 60)
    assert drawn.positions.dtype == np.float32
    assert drawn.positions.min() >= 0
    assert drawn.positions.max() == pytest.approx(1)
    distances = np.linalg.norm(drawn.positions[:, None] - drawn.positions[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(1)
    same = [drawn.records[n].identity == drawn.records[m].identity for n, m in enumerate(nearest)]
    assert np.mean(same) > 0.95


def test_a_sample_has_the_lowest_hashes_in_any_order():
    records = grouped(30)
    expected = sorted(records, key=lambda r: int.from_bytes(hashlib.sha256(r.id.encode()).digest()[:8]))[:7]
    for order in (records, records[::-1]):
        sample, total = sample_records(Engine(records=order), 7)
        assert {record.id for record in sample} == {record.id for record in expected}
        assert [record.id for record in sample] == sorted(record.id for record in expected)
        assert total == 30


def test_too_few_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="at least 5 sightings, and the gallery has 4"):
        sample_records(Engine(records=grouped(4)), 100)
    with pytest.raises(ConfigError, match="at least 5 sightings, not 3"):
        sample_records(Engine(records=grouped(30)), 3)
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(ConfigError, match=r"pip install 'resight\[map\]'"):
        module.project(np.eye(5, dtype=np.float32))


def test_the_labels_with_the_most_points_have_colours_of_their_own():
    labels = [None, "b", "a", "b", *(f"x{n}" for n in range(20))]
    colours = colours_of(labels)
    assert list(colours)[:2] == ["b", "a"]
    assert [colours["b"], colours["a"]] == list(PALETTE[:2])
    assert len(set(colours.values())) == len(PALETTE) + 1
    assert None not in colours


def test_points_are_drawn_in_the_colours_of_their_labels(tmp_path):
    records = [*grouped(6), Record("none", np.eye(WIDTH, dtype=np.float32)[0])]
    drawn = EmbeddingMap(records, np.linspace(0, 1, 14, dtype=np.float32).reshape(7, 2), 100)
    draw_map(drawn, tmp_path / "new" / "map.png")
    draw_map(drawn, tmp_path / "cameras.png", "camera")
    for name, used in (("new/map.png", 3), ("cameras.png", 2)):
        image = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        shown = [
            bool((np.abs(image - [int(value[n : n + 2], 16) for n in (1, 3, 5)]).sum(-1) < 12).any())
            for value in PALETTE
        ]
        assert shown == [n < used for n in range(len(PALETTE))]


def test_the_verb_writes_the_drawing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "project", lambda vectors, seed: np.zeros((len(vectors), 2), np.float32) + seed)
    out = tmp_path / "map.png"
    assert main(["gallery", "map", str(folder), "--out", str(out), "--max-records", "20", "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == ["20 points of 60 records", f"drawing: {out}"]
    assert Image.open(out).size[0] > 500
