"""What every request passes: names of the host, other origins, size, time, rate, headers, faults and the log."""

import json
import logging
import time

import pytest
from service_helpers import URL, jpeg, refused

from resight.errors import GalleryError, StorageError
from resight.service.http.exchange import SECURITY_HEADERS
from resight.service.http.limits import RateLimiter
from resight.service.logs import configure_logs

pytest_plugins = ("service_fixtures",)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LOCALHOST:1", "[::1]:8000"])
def test_the_own_names_are_accepted(client, host):
    assert client.get("/v1/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "[::1", "", "127.0.0.2"])
def test_other_names_in_the_host_header_are_refused(client, host):
    refused(client.get("/v1/health", headers={"Host": host}), 421, "Host header")


def test_names_and_origins_can_be_allowed(services):
    client = services(allowed_hosts=("gallery.example",), allowed_origins=("https://page.example",))
    assert client.get("/v1/health", headers={"Host": "Gallery.example:80"}).status_code == 200
    assert client.get("/v1/health", headers={"Origin": "https://page.example"}).status_code == 200
    refused(client.get("/v1/health", headers={"Origin": "https://page.example.evil"}), 403)


def test_pages_of_other_origins_are_refused(client):
    assert client.get("/v1/health", headers={"Origin": URL}).status_code == 200
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        refused(client.post("/v1/undo", headers=headers), 403, "other")


def test_every_answer_has_the_security_headers(client):
    answers = [client.get("/v1/health"), client.get("/v1/none"), client.post("/v1/search"), client.put("/v1/search")]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert len(answer.headers["X-Request-ID"]) == 16


def test_large_bodies_are_refused(services):
    client = services(max_body_megabytes=0.01)
    refused(client.post("/v1/search", files={"image": b"\xff\xd8\xff" + bytes(20_000)}), 413, "0.01 megabytes")
    read = []

    def parts():  # without Content-Length
        for n in range(100):
            read.append(n)
            yield bytes(1000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(client.post("/v1/search", content=parts(), headers=headers), 413, "0.01 megabytes")
    refused(client.post("/v1/assign", content=parts(), headers={"Content-Type": "application/json"}), 413)
    assert client.get("/v1/health").status_code == 200


def test_a_slow_answer_ends(services, monkeypatch):
    client = services(request_seconds=0.3)
    forward = client.service.embedder.embed

    def slow(*arguments):
        time.sleep(1)
        return forward(*arguments)

    monkeypatch.setattr(client.service.batcher, "_embed", slow)
    began = time.monotonic()
    refused(client.post("/v1/embed", files={"image": jpeg()}), 504, "0.3 seconds")
    assert time.monotonic() - began < 1.5


def test_the_rate_is_limited(services):
    client = services(requests_per_minute=60)
    statuses = [client.get("/v1/health").status_code for _ in range(12)]
    assert statuses[:10] == [200] * 10
    assert statuses[-1] == 429
    assert int(client.get("/v1/health").headers["retry-after"]) >= 1


def test_a_bucket_fills_with_time():
    now = [0.0]
    limiter = RateLimiter(60, lambda: now[0])
    assert [limiter.seconds_until_allowed("a") for _ in range(10)] == [0.0] * 10
    assert limiter.seconds_until_allowed("a") == pytest.approx(1.0)
    assert limiter.seconds_until_allowed("b") == 0
    now[0] = 1.0
    assert limiter.seconds_until_allowed("a") == 0
    assert limiter.seconds_until_allowed("a") > 0
    assert RateLimiter(None).seconds_until_allowed("a") == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("Ann Secret"), 500), (GalleryError("Ann Secret"), 503), (StorageError("Ann Secret"), 503)],
)
def test_faults_reach_neither_client_nor_log_in_full(client, monkeypatch, caplog, error, status):
    def fail(gallery):
        raise error

    monkeypatch.setattr(type(client.service), "with_reader", lambda self, function: fail(None))
    configure_logs()
    handler = logging.getLogger("resight.service").handlers[0]
    lines = []
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(handler.format(record)))
    answer = client.get("/v1/stats")
    refused(answer, status)
    assert "Secret" not in answer.text
    logged = [json.loads(line) for line in lines]
    assert "Secret" not in str(logged)
    faults = [line for line in logged if "error" in line]
    assert faults[0]["error"].startswith(f"{type(error).__name__} at test_guard.py:")
    assert faults[0]["request"] == answer.json()["request"]
    assert logged[-1]["status"] == status


def test_log_lines_have_no_names_and_no_pictures(client, monkeypatch):
    configure_logs()
    handler = logging.getLogger("resight.service").handlers[0]
    lines = []
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(handler.format(record)))
    form = {"id": "Secret-1", "identity": "Ann Secret", "camera": "Secret gate"}
    client.post("/v1/records", data=form, files={"image": ("Secret.jpg", jpeg())})
    client.post("/v1/search", data={"identity": "Ann Secret"}, files={"image": ("Secret.jpg", jpeg())})
    client.post("/v1/search", data={"Secret": "Ann Secret"}, files={"image": b"Secret"})
    client.get("/v1/records/Secret-1")
    client.get("/v1/Secret")
    client.get("/v1/timeline?identity=Ann+Secret")
    client.post("/v1/merge", json={"identity": "Ann Secret", "into": "Secret 2"})
    client.delete("/v1/records/Secret-1")
    requests = [json.loads(line) for line in lines if json.loads(line)["event"] == "request"]
    assert [line["status"] for line in requests] == [201, 200, 422, 200, 404, 200, 200, 200]
    assert all(len(line) < 600 for line in lines)
    assert "Secret" not in "".join(lines)


def test_an_audit_log_that_cannot_be_written_withholds_the_answer(services, tmp_path, monkeypatch):
    client = services()

    def fail(*arguments):
        raise StorageError("the disk is full")

    monkeypatch.setattr(client.service.audit, "write", fail)
    refused(client.post("/v1/search", files={"image": jpeg()}), 503, "audit log")
    assert client.get("/v1/stats").status_code == 200
