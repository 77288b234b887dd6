"""`resight.Client` against a service that listens: the methods of a gallery, typed answers, errors as sentences."""

import numpy as np
import pytest
from service_helpers import jpeg

import resight
from resight.errors import GalleryError
from resight.gallery.record import Filter
from resight.service.security.keys import KeyStore

pytest_plugins = ("service_fixtures",)


@pytest.fixture(scope="module")
def served(listening, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    key, _ = KeyStore(state).create("write")
    url, service = listening(state=state)
    with resight.Client(url, key) as client:
        yield client, service, url


def test_the_methods_of_a_gallery(served, tmp_path, embedder):
    client, _, _ = served
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    record = client.add(tmp_path / "a.jpg", {"gate": "north"}, id="a", identity="ann", camera="c1", time=5.0)
    assert (record.id, record.metadata["gate"], record.time) == ("a", "north", 5.0)
    assert client.add({"rgb": jpeg(1), "tir": jpeg(2)}, id="b", identity="bob").modality == "rgb+tir"
    client.add(jpeg(0, 1), id="c", time=4.0)
    assert len(client) == client.stats().records == 3
    np.testing.assert_array_equal(
        client.embed([jpeg(0), jpeg(1)], camera="c1"), embedder.embed([jpeg(0), jpeg(1)], "c1")
    )
    answers = client.search(str(tmp_path / "a.jpg"), k=2, query_camera="c1")
    assert answers[0][0].record.id == "a"
    assert answers[0][0].similarity == pytest.approx(1, abs=1e-5)
    assert [a.record.id for a in client.search(jpeg(0), where=Filter(identity=("bob",)))[0]] == ["b"]
    assert [a.record.id for a in client.search(jpeg(0), where=Filter(metadata={"gate": "north"}))[0]] == ["a"]
    assert len(client.search([jpeg(0), jpeg(1)], k=1, group="identity", exclude=["a"])) == 2
    assert client.similar("a", k=1)[0].record.id == "c"
    assert client.similarity(jpeg(0), jpeg(0)).similarity == pytest.approx(1, abs=1e-5)
    assert np.array(client.record("a", vector=True).vector).shape == (embedder.width,)
    assert [r.id for r in client.records(Filter(identity=("ann", "bob"))).records] == ["a", "b"]
    assert client.assign(["c"], "ann") == 1
    assert [r.id for r in client.time_line("ann")] == ["c", "a"]
    assert client.merge("bob", "ann") == 1
    assert client.undo().identity == "ann"
    assert sorted(map(sorted, client.cluster(-1.0, include_named=True))) == [["a", "b", "c"]]
    assert client.model().width == embedder.width
    assert client.remove(["a"], identity="bob") == 2
    assert len(client) == 1


def test_errors_are_sentences(served, tmp_path):
    client, _, url = served
    with pytest.raises(GalleryError, match="status 404: there is no record 'none'"):
        client.record("none")
    with pytest.raises(GalleryError, match="cannot be read"):
        client.search(tmp_path / "none.jpg")
    with pytest.raises(GalleryError, match="status 422: picture 1 is no picture"):
        client.search(b"text")
    with pytest.raises(GalleryError, match="filtered by metadata"):
        client.records(Filter(metadata={"a": 1}))
    with resight.Client(url) as stranger, pytest.raises(GalleryError, match="status 401: a valid key"):
        len(stranger)
    with resight.Client("http://127.0.0.1:9") as nobody, pytest.raises(GalleryError, match="does not answer"):
        nobody.stats()


def test_many_pictures_are_sent_in_several_requests(served, embedder):
    client, _, url = served
    images = [jpeg(n) for n in range(20)]  # a service takes 16 at once
    np.testing.assert_allclose(client.embed(images), embedder.embed(images), atol=1e-5)
    client.add(jpeg(0), id="many")
    assert len(client.search(images, k=1)) == 20
    with resight.Client(url, client._http.headers["authorization"].split()[1], per_request=4) as other:
        sightings = [{"rgb": jpeg(n), "tir": jpeg(n + 1)} for n in range(5)]
        np.testing.assert_allclose(other.embed(sightings), embedder.embed(sightings), atol=1e-5)
        assert len(other.search(sightings, k=1)) == 5
        assert len(other.search(images[:16], k=1, same_object=True)) == 1
    with pytest.raises(GalleryError, match="no picture"):
        client.embed([])
