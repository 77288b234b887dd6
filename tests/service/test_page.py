"""The page without a browser: every page renders, forms work without JavaScript, and what other sites may not do."""

import re
from html import unescape

import numpy as np
import pytest
from service_helpers import URL, jpeg

from resight.gallery.record import Record
from resight.service.page import progress
from resight.service.page.render import PAGE_HEADERS
from resight.service.page.routes.changes import local_path
from resight.service.page.routes.clusters import divide
from resight.service.page.time_line import lanes_of
from resight.service.page.times import parse_time, time_text
from resight.service.security.keys import KeyStore
from resight.service.security.session import COOKIE, Sessions

pytest_plugins = ("service_fixtures",)
HTML = {"Accept": "text/html"}
PAGES = ["/", "/identities", "/identity?name=id0", "/clusters?threshold=0.5", "/cameras", "/camera?name=c1", "/admin",
         "/similar?id=r0", "/sign-in", "/identities?q=ID1", "/compare", "/add/many"]  # fmt: skip
HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Pages wait for the result of a task, however busy the machine is; test_tasks.py is about progress."""
    monkeypatch.setattr(progress, "SOON", 60.0)


def token(client, path="/"):
    """The token of the forms of a page."""
    return re.search(r'name="token" value="([0-9a-f]+)"', client.get(path, headers=HTML).text)[1]


def post(client, path, form, **options):
    form = {"token": token(client), **form}
    return client.post(path, data=form, headers=HTML, follow_redirects=False, **options)


def identity_of(client, record_id):
    return client.get(f"/v1/records/{record_id}").json()["identity"]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_renders_with_its_headers(filled, path):
    answer = filled.get(path, headers=HTML)
    assert answer.status_code == 200, answer.text
    assert {name: answer.headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", answer.text)
    for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", answer.text, re.DOTALL):
        assert 'name="token"' in form


def test_files_of_the_page_and_no_others(client):
    for name, kind in (("page.css", "text/css"), ("pictures.js", "text/javascript"), ("icon.svg", "image/svg")):
        assert client.get(f"/static/{name}").headers["content-type"].startswith(kind)
    assert client.get("/static/..%2frender.py").status_code == 404
    assert client.get("/static/none.css", headers=HTML).status_code == 404


def test_search_needs_no_script(filled):
    empty = ("", b"", "application/octet-stream")  # what a browser sends for a file field without a file
    form = {"camera": "", "identity": "", "modality": "", "after": "", "before": "", "k": "12", "query_camera": "c2"}
    files = {"rgb": ("a.jpg", jpeg(1, 1)), "nir": empty, "tir": empty}
    text = post(filled, "/search", form, files=files).text
    assert "6 results" in text
    assert text.startswith("<!doctype html>")
    assert text.index('id="group-1"><a href="/identity?name=id1"') < text.index('id="group-2"')
    assert 'src="/thumbnail?id=r1"' in text
    assert 'name="identity" value="id1"' in text, "the nearest identity is suggested"
    part = filled.post("/search", data={"token": token(filled)}, files={"rgb": jpeg(1)}, headers={"HX-Request": "true"})
    assert "<!doctype" not in part.text
    assert "6 results" in part.text


@pytest.mark.parametrize(
    ("form", "ids"),
    [({"camera": "c1"}, {"r0", "r2", "r4"}), ({"identity": "id2"}, {"r2", "r5"}), ({"k": "1"}, {"r0"}),
     ({"after": "98", "before": "100"}, {"r1", "r2"}), ({"modality": "nir"}, set()),
     ({"after": "1970-01-01 00:01:39"}, {"r0", "r1"})],
)  # fmt: skip
def test_filters(filled, form, ids):
    text = post(filled, "/search", {"query_camera": "c1", **form}, files={"rgb": jpeg(0, 0)}).text
    assert set(re.findall(r'name="same" value="(\w+)"', text)) == ids


def test_three_modalities_are_one_query(filled):
    text = post(filled, "/search", {}, files={name: jpeg(1, 1) for name in ("rgb", "nir", "tir")}).text
    assert "for RGB + NIR + TIR" in text


def test_bad_input_is_one_sentence(filled):
    answers = [
        post(filled, "/search", {}), post(filled, "/search", {"after": "soon"}, files={"rgb": jpeg()}),
        post(filled, "/search", {}, files={"rgb": b"no picture"}), post(filled, "/judge", {"same": "r0"}),
        post(filled, "/judge", {"identity": "x"}), post(filled, "/clusters/confirm", {"identity": "x"}),
        post(filled, "/clusters/split", {"ids": ["r0"]}), post(filled, "/identity/remove", {"of": "id0"}),
        post(filled, "/identity/merge", {"of": "id0"}), post(filled, "/admin/keys", {"role": "king"}),
    ]  # fmt: skip
    for answer in answers:
        assert answer.status_code == 422 or answer.status_code == 409, answer.text
        assert answer.headers["content-type"].startswith("text/html")
        assert "Traceback" not in answer.text
    assert len(filled.get("/v1/records").json()["records"]) == 6
    part = filled.post("/judge", data={"token": token(filled)}, headers={**HTML, "HX-Request": "true"})
    assert part.headers["hx-retarget"] == "#notice"
    assert "<!doctype" not in part.text


def test_same_and_not_the_same_assign_and_are_undone(filled):
    post(filled, "/judge", {"identity": "new", "same": "r0"})
    assert identity_of(filled, "r0") == "new"
    post(filled, "/judge", {"identity": "new", "different": "r1"})
    assert identity_of(filled, "r1") == "id1", "a sighting of another identity keeps it"
    post(filled, "/judge", {"identity": "new", "different": "r0"})
    assert identity_of(filled, "r0") is None
    text = filled.get("/", headers=HTML).text
    name = re.search(r'name="name" value="(\w+)"', text)[1]
    assert "made unassigned" in text
    assert post(filled, "/undo", {"name": name, "next": "/clusters"}).headers["location"] == "/clusters"
    assert identity_of(filled, "r0") == "new"
    assert post(filled, "/undo", {"name": name}).status_code == 409, "another assignment is the last one now"
    assert identity_of(filled, "r0") == "new"


def test_identities_are_moved_merged_and_removed(filled):
    assert post(filled, "/identity/assign", {"ids": ["r0"], "identity": "x", "of": "id0"}).status_code == 303
    assert identity_of(filled, "r0") == "x"
    merged = post(filled, "/identity/merge", {"of": "id1", "identity": "x"})
    assert merged.headers["location"] == "/identity?name=x"
    assert identity_of(filled, "r4") == "x"
    post(filled, "/identity/remove", {"ids": ["r0"], "of": "x", "identity": "x"})
    assert filled.get("/v1/records/r0").status_code == 404
    assert post(filled, "/identity/remove", {"all_of": "x"}).headers["location"] == "/identities"
    assert {row["id"] for row in filled.get("/v1/records").json()["records"]} == {"r2", "r3", "r5"}


def test_clusters_are_confirmed_and_split(filled):
    post(filled, "/identity/assign", {"ids": [f"r{n}" for n in range(6)], "of": "id0"})
    text = filled.get("/clusters?threshold=-1", headers=HTML).text
    assert "6 sightings without an identity" in text
    parts = post(filled, "/clusters/split", {"ids": ["r0", "r3", "r1"]}).text
    groups = [re.findall(r'name="ids" value="(\w+)"', part) for part in parts.split("<section")[1:]]
    vectors = {i: np.array(filled.get(f"/v1/records/{i}?vector=1").json()["vector"]) for i in ("r0", "r1", "r3")}
    nearest = max((("r0", "r1"), ("r0", "r3"), ("r1", "r3")), key=lambda pair: vectors[pair[0]] @ vectors[pair[1]])
    assert sorted(map(len, groups)) == [1, 2]
    assert set(nearest) in map(set, groups)
    post(filled, "/clusters/confirm", {"ids": ["r0", "r3"], "identity": "ann"})
    assert identity_of(filled, "r3") == "ann"
    assert identity_of(filled, "r1") is None


def test_pictures_of_the_form_are_added(filled):
    form = {"add_identity": "ann", "query_camera": "c1", "add_time": "2026-05-31 14:30", "camera": ""}
    answer = post(filled, "/add", form, files={"rgb": jpeg(7)})
    record = filled.get(f"/v1/records/{answer.headers['location'].split('=')[1]}").json()
    assert (record["identity"], record["camera"], record["time"]) == ("ann", "c1", 1780237800.0)


def test_hostile_names_are_escaped(filled):
    form = {"id": HOSTILE + "/..", "identity": HOSTILE, "camera": HOSTILE}
    assert filled.post("/v1/records", data=form, files={"image": jpeg(3)}).status_code == 201
    paths = ["/", "/identities", "/clusters", "/cameras"]
    for path, name in (("/identity", "name"), ("/camera", "name"), ("/similar", "id")):
        value = HOSTILE + "/.." if name == "id" else HOSTILE
        answer = filled.get(path, params={name: value}, headers=HTML)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert HOSTILE in unescape(answer.text)
    for path in paths:
        assert "<script>alert" not in filled.get(path, headers=HTML).text
    source = re.search(r'src="(/thumbnail\?id=%3C[^"]+)"', filled.get("/identity", params={"name": HOSTILE}).text)[1]
    assert filled.get(unescape(source)).headers["content-type"] == "image/jpeg"
    missing = filled.get("/identity", params={"name": "<b>none"}, headers=HTML)
    assert missing.status_code == 404
    assert "<b>" not in missing.text


def test_forms_of_other_sites_are_refused(filled):
    for form in ({}, {"token": "0" * 64}, {"token": "\u00e9"}):
        for path in ("/judge", "/undo", "/identity/remove", "/admin/keys", "/search", "/clusters/confirm"):
            answer = filled.post(path, data={"identity": "id0", "same": "r0", "ids": "r0", **form}, headers=HTML)
            assert answer.status_code == 403, (path, answer.text)
    assert len(filled.get("/v1/records").json()["records"]) == 6
    assert identity_of(filled, "r0") == "id0"


@pytest.fixture(scope="module")
def signed(services, tmp_path_factory):
    """A client of a service with a key of each role."""
    state = tmp_path_factory.mktemp("state")
    store = KeyStore(state)
    texts = {role: store.create(role)[0] for role in ("read", "write", "admin")}
    client = services(state=state)
    client.texts = texts
    client.store = store
    return client


def sign_in(client, text, address="/"):
    client.cookies.clear()
    form = {"key": text, "next": address, "token": token(client, "/sign-in")}
    return client.post("/sign-in", data=form, headers={**HTML, "Origin": URL}, follow_redirects=False)


def test_sign_in_turns_a_key_into_a_session(signed):
    refused = signed.get("/", headers=HTML)
    assert refused.status_code == 401
    assert refused.headers["refresh"] == "0; url=/sign-in?next=/"
    answer = sign_in(signed, signed.texts["read"], "/identities")
    assert answer.headers["location"] == "/identities"
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(COOKIE))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert signed.texts["read"] not in cookie
    assert signed.get("/", headers=HTML).status_code == 200
    assert signed.get("/admin", headers=HTML).status_code == 403
    assert signed.get("/v1/stats").status_code == 401, "a cookie is for the page alone"
    assert "Not the same" not in signed.get("/", headers=HTML).text
    assert post(signed, "/judge", {"identity": "x", "same": "y"}).status_code == 403
    assert post(signed, "/sign-out", {}).status_code == 303
    signed.cookies.clear()
    assert signed.get("/", headers=HTML).status_code == 401


def test_wrong_keys_and_forms_are_refused(signed):
    assert "not valid" in sign_in(signed, "resight_00000000_wrong").text
    assert sign_in(signed, "").status_code == 401
    assert signed.post("/sign-in", data={"key": signed.texts["read"], "token": "0"}, headers=HTML).status_code == 403
    assert sign_in(signed, signed.texts["read"], "//evil.example").headers["location"] == "/"


def test_an_administrator_creates_and_deletes_keys(signed):
    sign_in(signed, signed.texts["admin"])
    text = post(signed, "/admin/keys", {"role": "read", "days": "", "note": "door"}).text
    created = re.search(r'class="key">(resight_(\w{8})_[^<]+)<', text)
    assert signed.store.find(created[1]).note == "door"
    assert created[1] not in signed.get("/admin", headers=HTML).text
    assert post(signed, "/admin/keys/revoke", {"key_id": created[2]}).status_code == 303
    assert signed.store.find(created[1]) is None


def test_sessions_end_with_time_and_with_their_key(tmp_path):
    store = KeyStore(tmp_path)
    _, key = store.create("read")
    sessions = Sessions(tmp_path)
    cookie = sessions.create(key)
    assert Sessions(tmp_path).find(cookie, store) == key, "another process has the same secret"
    assert (tmp_path / "session.secret").stat().st_mode & 0o077 == 0
    assert Sessions(None).find(cookie, store) is None
    for wrong in ("", "...", cookie[:-1], cookie.replace(key.id, "00000000"), cookie + "\u00e9", f"{key.id}.x.y.z"):
        assert sessions.find(wrong, store) is None
    assert sessions.find(sessions.create(key, now=0), store) is None
    store.revoke(key.id)
    assert sessions.find(cookie, store) is None


@pytest.mark.parametrize("text", ["//evil", "/\\evil", "https://evil", "evil", "", "/a\nb", "javascript:x"])
def test_only_own_paths_are_redirected_to(text):
    assert local_path(text) == "/"
    assert local_path("/identity?name=a") == "/identity?name=a"


def test_times_are_written_and_read():
    assert (time_text(None), time_text(12.0), time_text(1200.5)) == ("", "12 s", "1,200.5 s")
    assert time_text(1780237800.0) == "2026-05-31 14:30:00"
    assert parse_time(time_text(1780237800.0)) == 1780237800.0
    assert (parse_time("1,200.5 s"), parse_time(""), parse_time("2026-05-31T16:30+02:00")) == (1200.5, None, 1780237800)
    for wrong in ("soon", "1.2.3", "31.5.2026"):
        with pytest.raises(ValueError, match=r"write a time|could not convert"):
            parse_time(wrong)


def test_a_time_line_has_a_lane_for_each_camera():
    def record(name, camera, time):
        return Record(name, None, camera=camera, time=time)

    lanes = lanes_of([record("a", "c2", 0.0), record("b", "c1", 5.0), record("c", "c2", 10.0), record("d", None, None)])
    assert [lane.camera for lane in lanes] == ["c1", "c2", None]
    assert [[x for x, _ in lane.points] for lane in lanes] == [[50.0], [2.0, 98.0], []]
    assert lanes_of([record("a", "c", 7.0)])[0].points[0][0] == 50.0


def test_what_cannot_be_divided_is_one_group():
    vector = [1.0] + [0.0] * 3
    records = [Record(name, np.array(vector, np.float32), camera="c", tracklet="t") for name in "ab"]
    assert [len(group) for group in divide(records)] == [2]
    assert [len(group) for group in divide(records[:1])] == [1]
