"""Every route of the API against the gallery and the model that it stands for."""

import json
from urllib.parse import quote

import numpy as np
import pytest
from service_helpers import CALIBRATION, jpeg, refused

from resight.gallery.open import open_gallery
from resight.gallery.record import Filter
from resight.retrieval.calibration import Calibration, SubsetCurve

pytest_plugins = ("service_fixtures",)


def test_embed_gives_the_vectors_of_the_embedder(client, embedder):
    files = [("image", jpeg(1)), ("image", jpeg(2, size=(50, 90)))]
    answer = client.post("/v1/embed", files=files, data={"query_camera": "c1"}).json()
    assert answer["embedding_id"] == embedder.embedding_id
    expected = embedder.embed([data for _, data in files], camera="c1")
    np.testing.assert_array_equal(np.array(answer["embeddings"], np.float32), expected)


def test_embed_fuses_the_modalities_of_each_sighting(client, embedder):
    files = [("rgb", jpeg(1)), ("tir", jpeg(3)), ("rgb", jpeg(2)), ("tir", jpeg(4))]
    answer = client.post("/v1/embed", files=files).json()
    expected = embedder.embed([{"rgb": jpeg(1), "tir": jpeg(3)}, {"rgb": jpeg(2), "tir": jpeg(4)}])
    np.testing.assert_array_equal(np.array(answer["embeddings"], np.float32), expected)


def test_search_gives_the_answers_of_the_gallery(filled, embedder):
    query = jpeg(1, 50)
    answers = filled.post("/v1/search", files={"image": query}, data={"k": "4"}).json()["answers"]
    with open_gallery(filled.gallery_folder, embedder) as gallery:
        expected = gallery.search(query, 4)[0]
    assert [a["record"]["id"] for a in answers[0]] == [a.record.id for a in expected]
    assert [a["similarity"] for a in answers[0]] == pytest.approx([a.similarity for a in expected], abs=1e-6)
    assert [a["probability"] for a in answers[0]] == pytest.approx([a.probability for a in expected], abs=1e-6)
    assert [a["known"] for a in answers[0]] == [a.similarity >= CALIBRATION["threshold"] for a in expected]
    assert answers[0][0]["record"]["identity"] == "id1"


def test_search_filters_groups_and_excludes(filled):
    def ids(**form):
        answers = filled.post("/v1/search", files={"image": jpeg(0, 9)}, data=form).json()["answers"]
        return [answer["record"]["id"] for answer in answers[0]]

    assert sorted(ids()) == ["r0", "r1", "r2", "r3", "r4", "r5"]
    assert sorted(ids(camera="c1")) == ["r0", "r2", "r4"]
    assert sorted(ids(camera=["c1", "c2"], identity="id0")) == ["r0", "r3"]
    assert sorted(ids(after="97", before="99")) == ["r2", "r3"]
    assert sorted(ids(metadata='{"gate": "south"}')) == ["r3", "r4", "r5"]
    assert "r0" not in ids(exclude="r0")
    assert len(ids(group="identity")) == 3
    assert len(ids(k="2", rerank="true")) == 2


def test_several_queries_and_one_object(filled, embedder):
    files = [("image", jpeg(0, 9)), ("image", jpeg(1, 9))]
    assert len(filled.post("/v1/search", files=files).json()["answers"]) == 2
    one = filled.post("/v1/search", files=files, data={"same_object": "true", "k": "1"}).json()["answers"]
    a, b = embedder.embed([data for _, data in files])
    mean = (a + b) / np.linalg.norm(a + b)
    stored = filled.get(f"/v1/records/{one[0][0]['record']['id']}?vector=true").json()["vector"]
    assert len(one) == 1
    assert one[0][0]["similarity"] == pytest.approx(float(mean @ np.array(stored, np.float32)), abs=1e-5)


def test_bad_requests_are_refused_in_one_sentence(filled):
    picture = {"image": jpeg()}
    refused(filled.post("/v1/search"), 422, "no picture")
    refused(filled.post("/v1/search", files={**picture, "tir": jpeg()}), 422, "excludes")
    refused(filled.post("/v1/search", files=[("rgb", jpeg()), ("rgb", jpeg()), ("tir", jpeg())]), 422, "2 of rgb")
    refused(filled.post("/v1/search", files=picture, data={"k": "0"}), 422, "k: ")
    refused(filled.post("/v1/search", files=picture, data={"group": "camera"}), 422, "group: ")
    refused(filled.post("/v1/search", files=picture, data={"colour": "red"}), 422, "colour")
    refused(filled.post("/v1/search", files=picture, data={"metadata": "[1]"}), 422, "JSON object")
    refused(filled.post("/v1/search", files=picture, data={"metadata": '{"gat": "x"}'}), 422, "no record has a field")
    refused(filled.post("/v1/search", files=[("image", jpeg())] * 17), 422, "17 pictures", "16")
    refused(filled.post("/v1/records", files=picture, data={"time": "nan"}), 422, "time: ")
    refused(filled.post("/v1/records", files=picture, data={"identity": "a\0b"}), 422, "identity: ")
    refused(filled.post("/v1/records", files=picture, data={"metadata": '{"a": [1]}'}), 422, "values are texts")
    refused(filled.post("/v1/records", files={"image": b"no picture"}), 422, "no picture that can be read")
    refused(filled.post("/v1/assign", json={}), 422, "nothing to assign")
    refused(filled.post("/v1/assign", json={"ids": ["none"], "identity": "x"}), 404, "no record 'none'")
    refused(filled.post("/v1/assign", content=b"{", headers={"content-type": "application/json"}), 422)
    refused(filled.post("/v1/remove", json={}), 422, "nothing to remove")
    refused(filled.post("/v1/merge", json={"identity": "nobody", "into": "x"}), 404, "nobody")
    refused(filled.get("/v1/records/none"), 404, "no record")
    refused(filled.get("/v1/thumbnails/none"), 404, "no record")
    refused(filled.get("/v1/similar/none"), 404, "no record")
    refused(filled.get("/v1/timeline?identity=nobody"), 404, "nobody")
    refused(filled.get("/v1/nothing"), 404, "no such route")
    refused(filled.put("/v1/search"), 405, "POST")
    assert filled.put("/v1/search").headers["allow"] == "POST"


def test_compare(client, embedder):
    files = {"first": jpeg(1), "second": jpeg(2)}
    answer = client.post("/v1/compare", files=files, data={"first_camera": "c1", "second_camera": "c2"}).json()
    a, b = embedder.embed([jpeg(1), jpeg(2)], camera=["c1", "c2"])
    assert answer["similarity"] == pytest.approx(float(a @ b), abs=1e-6)
    curve = np.interp(float(a @ b), CALIBRATION["similarity"], CALIBRATION["probability"])
    assert answer["probability"] == pytest.approx(curve, abs=1e-6)
    assert answer["known"] == (float(a @ b) >= CALIBRATION["threshold"])
    crossed = {"first_modality": "rgb", "second_modality": "tir"}
    a, b = embedder.embed([{"rgb": jpeg(1)}, {"tir": jpeg(2)}])
    answer = client.post("/v1/compare", files=files, data=crossed).json()
    assert answer["similarity"] == pytest.approx(float(a @ b), abs=1e-6)
    assert 0.01 < answer["probability"] < 0.99


def with_curve(query, gallery):
    """The calibration, with a curve of its own for a pair of modality subsets: every similarity is improbable."""
    fields = {name: value for name, value in CALIBRATION.items() if name != "dataset"}
    pair = fields | {"query": query, "gallery": gallery, "similarity": (-1.0, 1.0), "probability": (0.001, 0.002)}
    return Calibration(**CALIBRATION, subsets=(SubsetCurve(**pair | {"threshold": 1.0}),))


def test_a_pair_of_modalities_has_its_own_probability(filled, monkeypatch):
    service = filled.service
    monkeypatch.setattr(service, "calibration", with_curve("rgb", "tir"))
    files = {"first": jpeg(1), "second": jpeg(2)}
    for second, expected in (("tir", True), ("nir", False)):
        form = {"first_modality": "rgb", "second_modality": second}
        answer = filled.post("/v1/compare", files=files, data=form).json()
        assert (answer["probability"] < 0.003) == expected
    monkeypatch.setattr(service.gallery._gallery, "calibration", with_curve("tir", "rgb"))
    for modality, expected in (("tir", True), ("rgb", False)):
        answers = filled.post("/v1/search", files={modality: jpeg(1)}).json()["answers"][0]
        assert [answer["probability"] < 0.003 for answer in answers] == [expected] * 6
    both = [("tir", jpeg(1)), ("tir", jpeg(2))]
    answers = filled.post("/v1/search", files=both, data={"same_object": "true"}).json()["answers"]
    assert len(answers) == 1
    assert all(answer["probability"] < 0.003 for answer in answers[0])


def test_records_are_listed_read_and_removed(filled, embedder):
    listed = filled.get("/v1/records", params={"identity": ["id0", "id1"], "limit": 2, "offset": 1}).json()
    assert [record["id"] for record in listed["records"]] == ["r1", "r3"]
    assert listed["total"] == 4
    record = filled.get("/v1/records/r1?vector=true").json()
    np.testing.assert_array_equal(np.array(record["vector"], np.float32), embedder.embed(jpeg(1, 1), camera="c2")[0])
    assert (record["identity"], record["camera"], record["modality"], record["time"]) == ("id1", "c2", "rgb", 99.0)
    assert record["metadata"].pop("added") > 1.7e9
    assert record["metadata"] == {"gate": "north"}
    small = filled.get("/v1/thumbnails/r1")
    assert small.headers["content-type"] == "image/jpeg"
    assert small.content.startswith(b"\xff\xd8")
    assert filled.delete("/v1/records/r1").json() == {"records": 1}
    assert filled.delete("/v1/records/r1").json() == {"records": 0}
    assert filled.post("/v1/remove", json={"ids": ["r2", "none"], "identity": "id0"}).json() == {"records": 3}
    assert filled.get("/v1/records").json()["total"] == 2


def test_ids_with_slashes_and_other_characters(filled):
    for name in ("a/b", "ü ?#%&", "x/similar"):
        assert filled.post("/v1/records", data={"id": name}, files={"image": jpeg()}).status_code == 201
        path = f"/v1/records/{quote(name)}"
        assert filled.get(path).json()["id"] == name
        assert filled.delete(path).json() == {"records": 1}


def test_identities_are_assigned_merged_and_undone(filled):
    assert filled.post("/v1/assign", json={"ids": ["r0", "r1"], "identity": "new"}).json() == {"records": 2}
    listed = filled.get("/v1/identities").json()
    assert listed["identities"][0]["records"] == 2
    assert {row["identity"]: row["records"] for row in listed["identities"]} == {"new": 2, "id0": 1, "id1": 1, "id2": 2}
    assert filled.post("/v1/merge", json={"identity": "id2", "into": "new"}).json() == {"records": 2}
    times = [record["time"] for record in filled.get("/v1/timeline?identity=new").json()["records"]]
    assert times == [95.0, 98.0, 99.0, 100.0]
    undone = filled.post("/v1/undo").json()
    assert (undone["identity"], undone["records"]) == ("new", 2)
    filled.post("/v1/undo")
    assert filled.get("/v1/records/r0").json()["identity"] == "id0"
    refused(filled.post("/v1/undo"), 409, "no assignment")


def test_clusters(filled):
    filled.post("/v1/assign", json={"ids": [f"r{n}" for n in range(6)], "identity": None})
    groups = filled.post("/v1/cluster", json={"threshold": 0.9, "neighbors": 3}).json()["groups"]
    with open_gallery(filled.gallery_folder) as gallery:
        clustering = gallery.cluster(0.9, 3)
    assert groups == [clustering.ids(n) for n in range(len(clustering.sizes))]
    named = filled.post("/v1/cluster/assign", json={"threshold": 0.9, "neighbors": 3, "name": "group"}).json()
    assert named["groups"] == groups
    assert filled.get(f"/v1/records/{groups[0][0]}").json()["identity"] == "group-1"
    for _ in range(len(groups) + 1):
        filled.post("/v1/undo")


def test_stats_and_model_and_health(filled, embedder):
    stats = filled.get("/v1/stats").json()
    assert (stats["records"], stats["identities"], stats["cameras"]) == (6, 3, {"c1": 3, "c2": 3})
    card = filled.get("/v1/model").json()
    assert (card["width"], card["embedding_id"]) == (embedder.width, embedder.embedding_id)
    assert card["modalities"] == ["rgb", "nir", "tir"]
    assert "identities" not in card["card"]["vocabulary"]  # names of persons of the training set
    assert card["threshold"] == CALIBRATION["threshold"]
    assert filled.get("/v1/health").json()["status"] == "ok"
    assert filled.get("/v1/ready").json() == {"status": "ready", "records": 6}


def test_metrics_count_requests_and_batches(filled):
    def value(line):
        return next(
            float(row.split()[-1]) for row in filled.get("/v1/metrics").text.splitlines() if row.startswith(line)
        )

    name = 'resight_requests_total{method="POST",route="/v1/search",status="200"}'
    filled.post("/v1/search", files={"image": jpeg()})
    before = value(name)
    pictures = value("resight_batch_pictures_sum")
    filled.post("/v1/search", files=[("image", jpeg()), ("image", jpeg(1))])
    assert value(name) == before + 1
    assert value("resight_batch_pictures_sum") == pictures + 2
    assert value("resight_forward_queue") == 0


def test_adding_is_safe_to_repeat(client):
    def add(picture=None, key=None, **form):
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = client.post("/v1/records", data=form, files={"image": picture or jpeg(7)}, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return answer.status_code, answer.json()["record"]

    # The content gives the id
    assert add(identity="ann")[0] == 201
    status, first = add(identity="ann")
    assert status == 200
    assert add(identity="bob")[1]["id"] != first["id"]
    assert add(identity="ann", picture=jpeg(8))[1]["id"] != first["id"]
    # The header gives the id
    created, by_key = add(key="k1", camera="c1")
    assert created == 201
    assert add(key="k1", camera="c1") == (200, by_key)
    assert add(key="k2", camera="c1")[1]["id"] != by_key["id"]
    # The request gives the id; an identity that was assigned since is not lost
    assert add(id="mine", identity="ann")[0] == 201
    client.post("/v1/assign", json={"ids": ["mine"], "identity": "cyd"})
    assert add(id="mine", identity="ann")[1]["identity"] == "cyd"
    assert add(id="mine", identity="ann", replace="true")[1]["identity"] == "ann"


def test_changes_with_an_idempotency_key_happen_once(filled):
    filled.post("/v1/assign", json={"ids": ["r0"], "identity": "x"})
    filled.post("/v1/assign", json={"ids": ["r0"], "identity": "y"})
    headers = {"Idempotency-Key": "undo-1"}
    first = filled.post("/v1/undo", headers=headers)
    again = filled.post("/v1/undo", headers=headers)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert filled.get("/v1/records/r0").json()["identity"] == "x"
    headers = {"Idempotency-Key": "assign-1"}
    assert filled.post("/v1/assign", json={"ids": ["r1"], "identity": "x"}, headers=headers).status_code == 200
    other = filled.post("/v1/assign", json={"ids": ["r2"], "identity": "x"}, headers=headers)
    refused(other, 422, "another request")
    filled.post("/v1/undo")
    filled.post("/v1/undo")


def test_without_thumbnails_no_picture_is_stored(services):
    client = services(thumbnails=False)
    record = client.post("/v1/records", files={"image": jpeg()}).json()["record"]
    assert record["thumbnail"] is False
    refused(client.get(f"/v1/thumbnails/{record['id']}"), 404, "no thumbnail")
    with open_gallery(client.gallery_folder) as gallery:
        assert [stored.thumbnail for stored in gallery.engine.scan()] == [None]
        assert [dict(stored.images) for stored in gallery.engine.scan(Filter())] == [{}]


def test_the_openapi_document_describes_every_route(client):
    document = client.get("/v1/openapi.json").json()
    json.dumps(document)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["summary"] and operation["description"] for operation in operations)
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    fields = content["multipart/form-data"]["schema"]["properties"]
    assert fields["k"]["description"]
    assert fields["image"]["items"] == {"type": "string", "format": "binary"}
