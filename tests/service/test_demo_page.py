"""`resight demo --serve`: what it trains, stores and reuses, and what it prints."""

import shutil
from functools import partial

import pytest

from resight.cli import main
from resight.data.synthetic import synthetic
from resight.gallery.open import open_gallery
from resight.service import demo
from resight.service.settings import ServiceSettings

pytest_plugins = ("service_fixtures",)


@pytest.fixture
def trained(model, monkeypatch):
    """Training is replaced by a copy of a model; the folders where it was called."""
    calls = []

    def run_demo(out, seed, epochs, progress):
        calls.append((out, seed, epochs))
        synthetic.write(out / "pictures", synthetic.Plan(train=2, test=5, cameras=2, shots=2))
        shutil.copytree(model, out / "run" / "best")
        (out / "run" / "best" / "calibration.json").unlink()

    monkeypatch.setattr(demo, "run_demo", run_demo)
    return calls


def test_the_gallery_is_made_once(trained, tmp_path):
    prepare = partial(demo.prepare_demo, tmp_path / "demo", 3, 1)
    settings = prepare()
    assert settings == ServiceSettings(model=tmp_path / "demo/run/best", gallery=str(tmp_path / "demo/gallery"))
    assert prepare() == settings
    assert trained == [(tmp_path / "demo", 3, 1)]
    with open_gallery(settings.gallery) as gallery:
        stats = gallery.stats()
        records = list(gallery.engine.scan())
    assert all(record.thumbnail and record.time for record in records)
    assert stats.records == len({record.time for record in records})
    assert stats.identities == 3, "two of the five identities are there to be confirmed"
    assert stats.unknown == stats.records * 2 / 5


def test_the_address_is_printed_and_served(trained, tmp_path, capsys, monkeypatch):
    served = []
    monkeypatch.setattr(demo, "serve", served.append)
    assert main(["demo", "--serve", "--port", "8123", "--out", str(tmp_path / "demo")]) == 0
    assert "the page: http://127.0.0.1:8123/ " in capsys.readouterr().out
    assert [(settings.port, settings.host) for settings in served] == [(8123, "127.0.0.1")]
