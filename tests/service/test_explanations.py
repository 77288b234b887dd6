"""Explanations by the API and the page: pictures and thumbnails, and what is refused."""

import base64
import re
from types import SimpleNamespace

import numpy as np
import pytest
from service_helpers import jpeg, refused
from test_page import HTML, post, token

from resight.inference import explain as module
from resight.inference.explain import explain
from resight.service.page import progress
from resight.service.page.render import data_url
from resight.service.page.routes.embedding_map import label_rows

pytest_plugins = ("service_fixtures",)
JPEG = re.compile(r'href="(data:image/jpeg;base64,[^"]+)"')


def test_two_pictures_are_explained_as_the_library_does(filled, embedder):
    files = {"first": jpeg(0, 0), "second": jpeg(0, 5)}
    body = filled.post("/v1/explain", files=files, data={"first_camera": "c1", "second_camera": "c2"}).json()
    expected = explain(embedder, files["first"], files["second"], ("c1", "c2"), ("rgb", "rgb"))
    for side, attention, terms in zip(("first", "second"), expected.attention, expected.maps, strict=True):
        np.testing.assert_allclose(body[side]["attention"], attention, atol=1e-5)
        np.testing.assert_allclose(body[side]["contributions"], terms, atol=1e-5)
        assert body[side]["from_thumbnail"] is False
    assert body["patch_similarity"] == pytest.approx(expected.patch_similarity, abs=1e-5)
    assert body["similarity"] == pytest.approx(expected.comparison.similarity, abs=1e-5)
    assert [tuple(pair["first"]) for pair in body["pairs"]] == [pair.first for pair in expected.pairs()]
    compared = filled.post("/v1/compare", files=files, data={"first_camera": "c1", "second_camera": "c2"}).json()
    assert body["probability"] == pytest.approx(compared["probability"], abs=1e-5)


def test_a_record_is_explained_by_its_thumbnail(filled, embedder):
    body = filled.post("/v1/explain", files={"first": jpeg(1, 9)}, data={"second_record": "r1"}).json()
    small = filled.get("/v1/thumbnails/r1").content
    expected = explain(embedder, jpeg(1, 9), small, (None, "c2"), ("rgb", "rgb"))
    np.testing.assert_allclose(body["second"]["attention"], expected.attention[1], atol=1e-5)
    assert (body["first"]["from_thumbnail"], body["second"]["from_thumbnail"]) == (False, True)


def test_bad_requests_are_refused(filled):
    picture = {"first": jpeg()}
    refused(filled.post("/v1/explain", files=picture), 422, "second side needs a picture or the id of a record")
    refused(filled.post("/v1/explain", files=picture, data={"first_record": "r0"}), 422, "first side", "not both")
    refused(filled.post("/v1/explain", files=picture, data={"second_record": "none"}), 404, "no record 'none'")
    refused(filled.post("/v1/explain", files={**picture, "second": b"no picture"}), 422, "picture 2")
    form = {"first_modality": "xray"}
    refused(filled.post("/v1/explain", files={**picture, "second": jpeg()}, data=form), 422, "no modality 'xray'")


def test_a_record_without_a_thumbnail_is_refused(services):
    client = services(thumbnails=False)
    client.post("/v1/records", data={"id": "bare"}, files={"image": jpeg()})
    refused(
        client.post("/v1/explain", files={"first": jpeg()}, data={"second_record": "bare"}), 422, "has no thumbnail"
    )
    assert 'name="record"' not in post(client, "/search", {}, files={"rgb": jpeg()}).text


def test_the_page_explains_a_result_without_a_script(filled):
    results = post(filled, "/search", {"query_camera": "c1"}, files={"nir": jpeg(1, 1)}).text
    part = re.search(r'id="why-form".*?</form>', results, re.DOTALL)[0]
    form = dict(re.findall(r'name="(query\w*)" value="([^"]*)"', part))
    assert (form["query_camera"], form["query_modality"]) == ("c1", "nir")
    assert data_url(base64.b64decode(form["query"])) in results, "the query's picture is the one that is shown"
    page = post(filled, "/explain", {**form, "record": "r1"})
    assert page.status_code == 200
    assert len(JPEG.findall(page.text)) == 4, "each picture is shown with its attention and with its patches"
    assert "Computed from the two small pictures" in page.text
    assert page.text.startswith("<!doctype html>")
    form = {**form, "record": "r1", "token": token(filled)}
    part = filled.post("/explain", data=form, headers={"HX-Request": "true"})
    assert part.text.count("<circle") == 2 * part.text.count('class="pair-line"') > 0
    assert "<!doctype" not in part.text
    similar = filled.get("/similar?id=r2", headers=HTML).text
    assert 'name="query_record" value="r2"' in similar
    assert post(filled, "/explain", {"query_record": "r2", "record": "r1"}).status_code == 200
    assert post(filled, "/explain", {"query": "no base64", "record": "r1"}).status_code == 422


def test_two_pictures_are_compared_on_the_page(filled):
    files = {"first": jpeg(0, 0), "second": jpeg(0, 5)}
    text = post(filled, "/compare", {}, files=files).text
    value = filled.post("/v1/compare", files=files).json()["similarity"]
    assert f"similarity {value:.4f}" in text
    assert len(JPEG.findall(text)) == 4
    assert post(filled, "/compare", {}, files={"first": jpeg()}).status_code == 422


def test_without_tokens_the_page_has_the_similarity_and_one_sentence(filled, monkeypatch):
    monkeypatch.setattr(filled.service.embedder.model.backbone, "token_width", None)
    monkeypatch.setattr(module, "map_tokens", _refuse)
    text = post(filled, "/compare", {}, files={"first": jpeg(0, 0), "second": jpeg(0, 5)}).text
    assert "The backbone has no tokens." in text
    assert "<strong>" in text
    assert not JPEG.findall(text)
    assert 'name="record"' not in post(filled, "/search", {}, files={"rgb": jpeg()}).text, "no result can be explained"
    refused(filled.post("/v1/explain", files={"first": jpeg(), "second": jpeg()}), 422, "the backbone has no tokens")


def _refuse(*arguments):
    from resight.errors import ConfigError

    raise ConfigError("the backbone has no tokens")


def test_the_map_has_links_and_a_table(filled, monkeypatch):
    async def of(ids, vectors):
        return np.linspace(0, 1, 2 * len(ids), dtype=np.float32).reshape(-1, 2)

    monkeypatch.setattr(progress, "SOON", 60.0)
    monkeypatch.setattr(filled.service.background, "layouts", SimpleNamespace(of=of))
    post(filled, "/identity/assign", {"ids": ["r5"], "of": "id2"})
    text = filled.get("/map", headers=HTML).text
    assert text.count('tabindex="-1" data-label') == 6
    assert re.search(r'href="/similar\?id=r5" tabindex="-1" data-label="" data-picture="/thumbnail\?id=r5"', text)
    assert re.search(r'<th scope="row">.*?href="/identity\?name=id0".*?</th><td>2</td>', text)
    assert 'class="none"' in text
    cameras = filled.get("/map?colour=camera", headers=HTML).text
    assert 'class="none"' not in cameras
    assert re.search(r'href="/camera\?name=c1".*?<td>3</td>', cameras)
    assert filled.get("/map?colour=shoe", headers=HTML).status_code == 422


def test_a_map_of_few_sightings_is_refused_in_a_sentence(filled, monkeypatch):
    monkeypatch.setattr(progress, "SOON", 60.0)
    filled.post("/v1/remove", json={"ids": ["r0", "r1"]})
    answer = filled.get("/map", headers=HTML)
    assert answer.status_code == 422
    assert "A map needs at least 5 sightings, and the gallery has 4" in answer.text


def test_the_table_of_the_map_names_the_nearest_labels():
    labels = ["a", "a", "b", None, "c"]
    places = [(0, 0), (2, 0), (1, 1), (1, 0.1), (9, 9)]
    assert label_rows(labels, places) == [("a", 2, ["b", "c"]), ("b", 1, ["a", "c"]), ("c", 1, ["b", "a"])]
    assert label_rows([None], [(0, 0)]) == []
