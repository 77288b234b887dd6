"""A service of a model whose modalities have other names than rgb, nir and tir: in the API, and in the page's form."""

import re

import numpy as np
import pytest
from conftest import varied_model
from fastapi.testclient import TestClient
from service_helpers import URL, jpeg, refused
from test_page import HTML, token

from resight.gallery.open import create_gallery, open_gallery
from resight.inference.load import load
from resight.service.app import create_app
from resight.service.settings import ServiceSettings
from resight.service.work.core import Service

pytest_plugins = ("service_fixtures",)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    model = varied_model(tmp_path_factory.mktemp("other") / "model", modalities=("depth", "event"))
    return load(model, "cpu", "fp32", fusion="mean")


@pytest.fixture(scope="module")
def other(embedder, tmp_path_factory):
    """A client of the service."""
    folder = tmp_path_factory.mktemp("other") / "g"
    create_gallery(folder, embedder).close()
    settings = ServiceSettings(gallery=str(folder), decoders=1)
    service = Service(settings, embedder, lambda: open_gallery(folder, embedder, settings.prior))
    with TestClient(create_app(service), base_url=URL, raise_server_exceptions=False) as client:
        yield client


def test_pictures_are_sent_in_fields_with_the_names_of_the_modalities(other, embedder):
    files = [("event", jpeg(2)), ("depth", jpeg(1))]
    answer = other.post("/v1/embed", files=files).json()
    expected = embedder.embed({"depth": jpeg(1), "event": jpeg(2)})
    np.testing.assert_array_equal(np.array(answer["embeddings"], np.float32), expected)
    record = other.post("/v1/records", files=files, data={"id": "both"}).json()["record"]
    assert record["modality"] == "depth+event"
    record = other.post("/v1/records", files={"event": jpeg(5)}, data={"id": "one"}).json()["record"]
    assert record["modality"] == "event"
    answers = other.post("/v1/search", files={"event": jpeg(5)}).json()["answers"]
    assert [answer["record"]["id"] for answer in answers[0]] == ["one", "both"]
    alone = other.post("/v1/embed", files={"image": jpeg(1)}).json()["embeddings"]
    np.testing.assert_array_equal(np.array(alone, np.float32), embedder.embed({"depth": jpeg(1)}))


def test_other_names_and_texts_are_refused(other):
    for path in ("/v1/embed", "/v1/search", "/v1/records"):
        refused(other.post(path, files={"rgb": jpeg(1)}), 422, "knows no modality 'rgb', only depth, event")
        refused(other.post(path, files={"thermal": jpeg(1)}), 422, "knows no modality 'thermal', only depth, event")
        refused(other.post(path, files={"depth": jpeg(1)}, data={"qery_camera": "c"}), 422, "qery_camera")
        refused(other.post(path, files=[("image", jpeg(1)), ("event", jpeg(2))]), 422, "the field image excludes")
    refused(other.post("/v1/records", files=[("depth", jpeg(1)), ("depth", jpeg(2))]), 422, "depth")


def test_the_page_searches_with_the_pictures_of_its_form(other):
    other.post("/v1/records", files={"event": jpeg(5)}, data={"id": "one"})
    text = other.get("/", headers=HTML).text
    assert re.findall(r'data-modality="(\w+)"', text) == ["depth", "event"]
    files = {"depth": ("", b""), "event": ("a.jpg", jpeg(5))}  # a browser sends the empty field, too
    answer = other.post("/search", files=files, data={"token": token(other)}, headers=HTML)
    assert answer.status_code == 200
    assert "EVENT" in answer.text
    assert "1.0000" in answer.text
