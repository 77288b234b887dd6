"""Keys as they are stored, and the verb that manages them."""

import json
import stat

import pytest

from resight.cli import main
from resight.errors import ConfigError
from resight.service.security.keys import KeyStore


def test_a_key_is_stored_as_a_hash_that_only_its_owner_can_read(tmp_path):
    store = KeyStore(tmp_path / "state")
    assert len(store) == 0
    text, key = store.create("write", days=1, note="gate")
    stored = (tmp_path / "state" / "keys.json").read_text()
    assert text not in stored
    assert text.split("_", 2)[2] not in stored
    assert stat.S_IMODE((tmp_path / "state" / "keys.json").stat().st_mode) == 0o600
    assert store.find(text) == key
    for wrong in ("", text[:-1], text + "x", key.sha256, key.id, "\ud800"):
        assert store.find(wrong) is None


def test_roles_include_those_below():
    key = KeyStore(None)
    assert len(key) == 0
    with pytest.raises(ConfigError, match="--state"):
        key.create("read")


def test_two_processes_share_the_file(tmp_path):
    first, second = KeyStore(tmp_path), KeyStore(tmp_path)
    text, key = first.create("read")
    assert second.find(text) == key
    other, _ = second.create("admin")
    assert first.find(other) is not None
    second.revoke(key.id)
    assert first.find(text) is None
    assert [entry.role for entry in first.entries()] == ["admin"]


def test_bad_values_and_a_corrupt_file_are_refused(tmp_path):
    store = KeyStore(tmp_path)
    for days in (0, -1, 1e9, float("nan")):
        with pytest.raises(ConfigError, match="valid for more than 0"):
            store.create("read", days)
    with pytest.raises(ConfigError, match="200 characters"):
        store.create("read", note="x" * 201)
    with pytest.raises(ConfigError, match="no key 'none'"):
        store.revoke("none")
    (tmp_path / "keys.json").write_text("[1]")
    with pytest.raises(ConfigError, match="corrupt"):
        KeyStore(tmp_path)


def test_the_verb(tmp_path, capsys):
    state = str(tmp_path / "state")
    assert main(["keys", "list", state]) == 0
    assert capsys.readouterr().out == "no keys\n"
    assert main(["keys", "create", state, "--role", "admin", "--days", "30", "--note", "me"]) == 0
    text = capsys.readouterr().out.strip()
    key = KeyStore(tmp_path / "state").find(text)
    assert key.role == "admin"
    assert main(["keys", "list", state, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert listed[0]["id"] == key.id
    assert "sha256" not in listed[0]
    assert main(["keys", "list", state]) == 0
    assert key.id in capsys.readouterr().out
    assert main(["keys", "revoke", state, key.id]) == 0
    assert main(["keys", "revoke", state, key.id]) == 2
    assert capsys.readouterr().err == f"resight: there is no key {key.id!r}\n"
