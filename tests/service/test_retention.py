"""Records that are older than the retention are removed; those without a date are counted."""

import time

import numpy as np
import pytest
from service_helpers import jpeg, refused

from resight.gallery.open import open_gallery
from resight.gallery.record import Record
from resight.service.work.retention import date_of, expired_ids

pytest_plugins = ("service_fixtures",)
DAY = 86_400
NOW = 2e9


def record(name, width=4, **fields):
    return Record(name, np.eye(1, width, dtype=np.float32)[0], **fields)


@pytest.mark.parametrize(
    ("fields", "date"),
    [
        ({}, None),
        ({"time": 12.5}, None),  # seconds of a video
        ({"time": 1.7e9}, 1.7e9),
        ({"time": 1.7e9, "metadata": {"added": 1.8e9}}, 1.8e9),
        ({"time": 1.7e9, "metadata": {"added": "yesterday"}}, 1.7e9),
        ({"metadata": {"added": True}}, None),
    ],
)
def test_the_date_of_a_record(fields, date):
    assert date_of(record("r", **fields)) == date


def test_old_records_are_removed_by_age(services, embedder):
    client = services(retention_days=2)
    width = embedder.width
    with open_gallery(client.gallery_folder, embedder) as gallery:
        gallery.add([
            record("old", width, metadata={"added": time.time() - 2.1 * DAY}),
            record("new", width, metadata={"added": time.time() - 1.9 * DAY}),
            record("old time", width, time=time.time() - 3 * DAY), record("video", width, time=3.0),
        ])  # fmt: skip
        ids, without_date = expired_ids(gallery, 2)
        assert (sorted(ids), without_date) == (["old", "old time"], 1)
    client.post("/v1/records", data={"id": "just now"}, files={"image": jpeg()})
    assert client.post("/v1/retention").json() == {"removed": 2, "without_date": 1}
    assert client.post("/v1/retention").json() == {"removed": 0, "without_date": 1}
    assert {r["id"] for r in client.get("/v1/records").json()["records"]} == {"new", "video", "just now"}
    assert "resight_removed_by_retention_total 2.0" in client.get("/v1/metrics").text


def test_it_runs_when_the_service_starts(make_service, embedder):
    from fastapi.testclient import TestClient

    from resight.service.app import create_app

    service = make_service(retention_days=1)
    old = record("old", embedder.width, metadata={"added": time.time() - 2 * DAY})
    service.gallery.submit(lambda gallery: gallery.add([old])).result()
    with TestClient(create_app(service), base_url="http://localhost") as client:
        deadline = time.monotonic() + 5
        while client.get("/v1/stats").json()["records"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.get("/v1/stats").json()["records"] == 0


def test_without_a_retention_nothing_is_removed(client):
    refused(client.post("/v1/retention"), 409, "--retention-days")
