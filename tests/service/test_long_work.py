"""Long work of the page: many pictures, clusters with their progress, and the end of the service meanwhile."""

import re
import signal
import threading
import time

import httpx
import pytest
from service_helpers import jpeg
from test_page import HTML, post, token
from test_process import Process, stored

from resight.service.page import progress

pytest_plugins = ("service_fixtures",)


def test_many_pictures_are_added_in_the_background(filled):
    pictures = [("images", ("a.jpg", jpeg(n, n))) for n in range(20, 30)]
    pictures.insert(4, ("images", ("bad.jpg", b"no picture")))
    form = {"token": token(filled), "identity": "many", "camera": "c1", "modality": "rgb"}
    answer = filled.post("/add/many", data=form, files=pictures, headers=HTML, follow_redirects=False)
    assert answer.status_code == 303
    address = answer.headers["location"]
    for _ in range(600):
        text = filled.get(address, headers=HTML).text
        if "10 pictures added" in text:
            break
        assert f'content="2; url={address}"' in text, "without a script, the page loads again"
        time.sleep(0.1)
    assert "Picture 5: the picture" in text
    stored_records = filled.get("/v1/records?identity=many").json()["records"]
    assert len(stored_records) == 10
    assert {(record["camera"], record["modality"]) for record in stored_records} == {("c1", "rgb")}
    again = filled.post("/add/many", data=form, files=pictures[:2], headers=HTML, follow_redirects=False)
    for _ in range(600):
        text = filled.get(again.headers["location"], headers=HTML).text
        if "0 pictures added" in text:
            break
        time.sleep(0.1)
    assert "2 were in the gallery before" in text
    assert len(filled.get("/v1/records?identity=many").json()["records"]) == 10
    with filled.stream("GET", f"{address}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "event: end" in "".join(stream.iter_text())


def test_bad_forms_of_tasks_are_refused(filled):
    assert post(filled, "/add/many", {}).status_code == 422
    assert filled.get("/tasks/none", headers=HTML).status_code == 404
    assert filled.get("/tasks/none/events").status_code == 404


def test_clusters_show_their_progress_until_they_are_there(filled, monkeypatch):
    monkeypatch.setattr(progress, "SOON", 0.0)
    service = filled.service
    gate = threading.Event()
    service.background._thread.submit(lambda gallery: gate.wait(30))
    try:
        text = filled.get("/clusters?threshold=0.5", headers=HTML).text
    finally:
        gate.set()
    assert "Grouping the unassigned sightings" in text
    task = re.search(r'hx-sse:connect="/tasks/([\w-]+)/events"', text)[1]
    with filled.stream("GET", f"/tasks/{task}/events") as stream:
        events = "".join(stream.iter_text())
    address = re.findall(r'hx-get="([^"]+)"', events)[-1].replace("&amp;", "&")
    assert address == f"/clusters?threshold=0.5&task={task}"
    assert "0 sightings without an identity" in filled.get(address, headers=HTML).text


def test_a_group_that_is_shown_again_has_no_removed_and_no_assigned_sighting(filled, monkeypatch):
    monkeypatch.setattr(progress, "SOON", 30.0)
    for n in range(4):
        filled.post("/v1/records", files={"image": jpeg(60 + n)}, data={"id": f"late{n}"})
    filled.get("/clusters?threshold=-1", headers=HTML)
    task = next(reversed(filled.service.background._tasks))
    address = f"/clusters?threshold=-1&task={task}"

    def shown():
        text = filled.get(address, headers=HTML).text
        return set(re.findall(r'value="(late\d)"', text)), text

    assert shown()[0] == {"late0", "late1", "late2", "late3"}
    assert filled.delete("/v1/records/late1").status_code == 200
    assert filled.post("/v1/assign", json={"ids": ["late2"], "identity": "ann"}).status_code == 200
    ids, text = shown()
    assert ids == {"late0", "late3"}
    assert "late1" not in text
    assert filled.post("/v1/remove", json={"ids": ["late3"]}).status_code == 200
    ids, text = shown()
    assert ids == set(), "a group of one is none"
    assert "0 groups" in text


@pytest.mark.slow
def test_sigterm_ends_streams_and_stores_accepted_pictures(model, embedder, tmp_path):
    service = Process(model, "--gallery", tmp_path / "g")
    with httpx.Client(base_url=service.url, headers=HTML) as client:
        files = [("images", ("a.jpg", jpeg(n, n))) for n in range(24)]
        answer = client.post("/add/many", data={"token": token(client)}, files=files)
        address = answer.headers["location"]
        with client.stream("GET", f"{address}/events") as stream:
            parts = []
            for text in stream.iter_text():
                if not parts:
                    service.process.send_signal(signal.SIGTERM)
                parts.append(text)
    assert service.process.wait(40) == 0
    service._reader.join()
    service.process.stderr.close()
    assert parts[0].startswith("data: ")
    assert "event: end" in "".join(parts)
    assert len(stored(tmp_path / "g", embedder)) == 24
