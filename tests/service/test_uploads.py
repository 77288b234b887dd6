"""Malformed uploads: every answer is 4xx, the memory does not grow, no process is lost.

RESIGHT_UPLOADS=2000 for as many as that.
"""

import os
import random
from pathlib import Path

import pytest
from service_helpers import jpeg
from uploads import KINDS, bodies

pytest_plugins = ("service_fixtures",)
COUNT = int(os.environ.get("RESIGHT_UPLOADS", "120"))
GROWTH = 120 << 20  # bytes; a bomb would take gigabytes


@pytest.fixture(scope="module")
def client(services):
    """A client without a rate limit, whose refusals (429) would hide what becomes of an upload."""
    return services(requests_per_minute=None)


def resident(process):
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_malformed_pictures_are_refused(client, kind):
    rng = random.Random(kind.__name__)
    pool = client.service.pool
    client.post("/v1/embed", files={"image": jpeg()})
    before = {process: resident(process) for process in [os.getpid(), *pool.process_ids]}
    for _ in range(max(1, COUNT // (len(KINDS) + 1))):
        name = rng.choice(["a.jpg", "../../a.png", "a\x00.gif", "", "http://example.org/a.jpg"])
        route, field = rng.choice([("/v1/search", "image"), ("/v1/embed", "tir"), ("/v1/records", "image")])
        answer = client.post(route, files={field: (name, kind(rng), "image/jpeg")})
        assert 400 <= answer.status_code < 500, (kind.__name__, answer.status_code, answer.text)
        assert len(answer.text) < 1000
    assert set(before) == {os.getpid(), *pool.process_ids}  # no process died
    assert pool.replaced == 0
    for process, size in before.items():
        assert resident(process) - size < GROWTH, kind.__name__


def test_malformed_bodies_are_refused(client):
    rng = random.Random(0)
    for _ in range(max(10, COUNT // (len(KINDS) + 1))):
        body, headers = bodies(rng)
        answer = client.post("/v1/search", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, (body[:80], answer.status_code, answer.text)
    assert client.get("/v1/ready").status_code == 200


def test_a_large_picture_within_the_limit_is_read_and_its_memory_given_back(client):
    pool = client.service.pool
    large = jpeg(0, size=(2000, 3000))
    before = resident(pool.process_ids[0])
    for _ in range(3):
        assert client.post("/v1/embed", files={"image": large}).status_code == 200
    assert resident(pool.process_ids[0]) - before < GROWTH
