"""The table of permissions against the routes that exist, and every route with no, wrong, weak and expired keys."""

from datetime import UTC, datetime, timedelta

import pytest
from service_helpers import jpeg, refused

from resight.service.security import keys
from resight.service.security.permissions import PERMISSIONS, find_permission

pytest_plugins = ("service_fixtures",)
LOWER = {"write": ["read"], "admin": ["read", "write"], "read": []}
IDS = [f"{row.method} {row.path}" for row in PERMISSIONS]


def routes(router):
    """Method and path of every route, those of included routers and mounted applications too."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router)
        elif hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods or ["POST"])
        else:
            yield from routes(route.app)


@pytest.fixture(scope="module")
def guarded(services, tmp_path_factory):
    """A client of a service with a key of each role, an expired one, and all tools."""
    state = tmp_path_factory.mktemp("state")
    store = keys.KeyStore(state)
    texts = {role: store.create(role, days=1)[0] for role in keys.ROLES}
    texts["expired"], expired = store.create("admin", days=1)
    past = expired.changed(expires=datetime.now(UTC) - timedelta(seconds=1))
    store._write({**store._by_id, expired.id: past})
    client = services(state=state, mcp="write", requests_per_minute=None)
    client.texts = texts
    return client


def call(client, row, key):
    path = row.path.replace("{record_id:path}", "none").replace("{key_id}", "none").replace("{name}", "page.css")
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return client.request(row.method, path, headers=headers)


def test_the_table_has_every_route_and_no_other(guarded):
    existing = set(routes(guarded.app.router))
    assert {(row.method, row.path) for row in PERMISSIONS} == existing & {(r.method, r.path) for r in PERMISSIONS}
    own = {(method, path) for method, path in existing if path != "/mcp"}
    assert own == {(row.method, row.path) for row in PERMISSIONS if row.path != "/mcp"}


def test_a_route_that_is_not_in_the_table_cannot_be_reached(guarded):
    @guarded.app.get("/v1/forgotten")
    def forgotten():
        return "reached"

    assert (
        guarded.get("/v1/forgotten", headers={"Authorization": f"Bearer {guarded.texts['admin']}"}).status_code == 404
    )
    assert find_permission("GET", "/v1/forgotten") is None


@pytest.mark.parametrize("row", PERMISSIONS, ids=IDS)
def test_who_may_call_a_route(guarded, row):
    texts = guarded.texts
    if row.access == "public":
        is_form = row.method == "POST"  # the sign-in form, which a page of ours must have shown
        assert call(guarded, row, None).status_code == (403 if is_form else 200)
        return
    for key in (None, "resight_00000000_wrong", texts["admin"][:-1], texts["expired"], "", "\u00e9"):
        answer = call(guarded, row, key and key.encode())
        refused(answer, 401, "valid key")
        assert answer.headers["www-authenticate"] == "Bearer"
    for role in LOWER[row.access]:
        refused(call(guarded, row, texts[role]), 403, f"requires the role {row.access}")
    assert call(guarded, row, texts[row.access]).status_code not in (401, 403)


def test_a_revoked_key_is_refused_at_once(guarded):
    store = keys.KeyStore(guarded.service.settings.state)  # as another process has it
    text, key = store.create("read")
    headers = {"Authorization": f"Bearer {text}"}
    assert guarded.get("/v1/stats", headers=headers).status_code == 200
    store.revoke(key.id)
    refused(guarded.get("/v1/stats", headers=headers), 401)


def test_keys_are_managed_by_administrators(guarded):
    headers = {"Authorization": f"Bearer {guarded.texts['admin']}"}
    created = guarded.post("/v1/keys", json={"role": "read", "days": 2, "note": "door"}, headers=headers)
    assert created.status_code == 201
    body = created.json()
    assert body["stored"]["note"] == "door"
    assert guarded.get("/v1/stats", headers={"Authorization": f"Bearer {body['key']}"}).status_code == 200
    listed = guarded.get("/v1/keys", headers=headers)
    assert body["key"] not in listed.text
    assert body["key"].split("_", 2)[2] not in (guarded.service.settings.state / "keys.json").read_text()
    assert guarded.delete(f"/v1/keys/{body['stored']['id']}", headers=headers).status_code == 200
    refused(guarded.delete(f"/v1/keys/{body['stored']['id']}", headers=headers), 404)
    assert guarded.get("/v1/stats", headers={"Authorization": f"Bearer {body['key']}"}).status_code == 401


def test_the_audit_log_has_counts_and_no_names(guarded):
    headers = {"Authorization": f"Bearer {guarded.texts['write']}"}
    guarded.post("/v1/records", data={"id": "secret-id", "identity": "Ann Secret"}, files={"image": jpeg()},
                 headers=headers)  # fmt: skip
    guarded.post(
        "/v1/search", files={"image": ("secret.jpg", jpeg())}, data={"identity": "Ann Secret"}, headers=headers
    )
    guarded.get("/v1/timeline?identity=Ann%20Secret", headers=headers)
    guarded.delete("/v1/records/secret-id", headers=headers)
    file = guarded.service.settings.state / "audit.jsonl"
    assert "ecret" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    lines = guarded.get("/v1/audit?limit=3", headers={"Authorization": f"Bearer {guarded.texts['admin']}"}).json()
    key = guarded.texts["write"].split("_")[1]
    assert [(line["key"], line["method"], line["route"], line["status"]) for line in lines["lines"]] == [
        (key, "POST", "/v1/search", 200), (key, "GET", "/v1/timeline", 200),
        (key, "DELETE", "/v1/records/{record_id:path}", 200),
    ]  # fmt: skip
    assert lines["lines"][0]["answers"] == 1
    assert lines["lines"][2]["removed"] == 1
