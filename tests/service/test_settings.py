"""Settings from variables and flags, and the addresses that are refused without keys."""

import socket

import pytest

from resight.cli import main
from resight.errors import ConfigError
from resight.service import server
from resight.service.settings import ServiceSettings, public_settings, settings_from_environment


def test_every_setting_is_a_variable():
    values = {
        "model": "m", "gallery": "g", "host": "::1", "port": "81", "state": "s", "allowed_hosts": "a, b",
        "allowed_origins": "https://a", "thumbnails": "false", "retention_days": "2.5", "max_body_megabytes": "3",
        "max_megapixels": "4", "max_images": "5", "max_queue": "6", "requests_per_minute": "7", "request_seconds": "8",
        "drain_seconds": "9", "decoders": "2", "batch_size": "11", "device": "cpu", "precision": "fp32",
        "prior": "0.25", "mcp": "read",
    }  # fmt: skip
    assert set(values) == set(ServiceSettings.model_fields)
    read = settings_from_environment({f"RESIGHT_{name.upper()}": text for name, text in values.items()})
    defaults = ServiceSettings()
    assert all(getattr(read, name) != getattr(defaults, name) for name in values)
    assert read.allowed_hosts == ("a", "b")
    assert read.thumbnails is False
    assert settings_from_environment({"RESIGHT_PORT": "", "RESIGHT_CACHE": "x"}) == defaults


@pytest.mark.parametrize(("name", "value"), [("PORT", "x"), ("PORT", "70000"), ("PRIOR", "1"), ("MCP", "all")])
def test_a_bad_variable_is_named(name, value):
    with pytest.raises(ConfigError, match=f"RESIGHT_{name} is invalid"):
        settings_from_environment({f"RESIGHT_{name}": value})


def test_flags_win_over_variables(monkeypatch):
    served = []
    monkeypatch.setattr(server, "serve", served.append)
    monkeypatch.setenv("RESIGHT_PORT", "81")
    monkeypatch.setenv("RESIGHT_MAX_QUEUE", "9")
    monkeypatch.setenv("RESIGHT_THUMBNAILS", "false")
    assert main(["serve", "model", "--gallery", "g", "--port", "82", "--thumbnails"]) == 0
    settings = served[0]
    assert (str(settings.model), settings.gallery, settings.port) == ("model", "g", 82)
    assert (settings.max_queue, settings.thumbnails) == (9, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_the_own_machine_needs_no_keys(host):
    ServiceSettings(host=host).require_safe(False)
    assert host.lower() in ServiceSettings(host=host).hosts


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_addresses_require_keys(host, tmp_path, capsys):
    settings = ServiceSettings(host=host)
    with pytest.raises(ConfigError, match="keys are required"):
        settings.require_safe(False)
    command = ["serve", "model", "--gallery", "g", "--state", str(tmp_path)]
    if host:
        assert main([*command, "--host", host]) == 2
        assert "resight keys create" in capsys.readouterr().err
    if host in ("0.0.0.0", "::", ""):
        with pytest.raises(ConfigError, match="--allowed-hosts"):
            settings.require_safe(True)
        ServiceSettings(host=host, allowed_hosts=("a",)).require_safe(True)
    else:
        settings.require_safe(True)


def test_public_settings_have_no_paths_and_no_password():
    settings = ServiceSettings(gallery="postgresql://u:secret@h/d", model="/m", state="/s")
    assert not {"gallery", "model", "state"} & set(public_settings(settings))
    assert "secret" not in str(public_settings(settings))


def test_what_cannot_start_is_refused_in_one_sentence(tmp_path, capsys):
    def says(*words):
        assert main(["serve", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        return error

    assert "--gallery URL" in says("model", "--port", "0")
    assert "give a model folder" in says("--gallery", tmp_path / "none", "--port", "0")
    assert "no model folder" in says(tmp_path, "--gallery", tmp_path / "none", "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in says("--port", port, "--gallery", "g")
    assert "port" in says("m", "--gallery", "g", "--port", "-1")
