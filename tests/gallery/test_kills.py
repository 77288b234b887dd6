"""The real command line, killed at a random moment. RESIGHT_KILLS=50 for as many kills of each verb as that; without
it one verb is killed once."""

import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from gallery_engines import INFO, WIDTH

from resight.data.sightings import Sighting, SightingTable
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.maintenance import verify
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, write_embeddings

KILLS = int(os.environ.get("RESIGHT_KILLS", "0"))
ROWS = 3000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Embeddings of 3,000 pictures that do not exist."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = SightingTable.of(
        Sighting({"rgb": f"/pictures/{n}.jpg"}, identity="ann" if n % 2 else "bob", camera="c1") for n in range(ROWS)
    )
    path = tmp_path_factory.mktemp("embeddings") / "e.parquet"
    write_embeddings(path, Embeddings(vectors, table, EmbeddingsInfo(embedding_id=INFO.embedding_id)))
    return path


@pytest.fixture(scope="module")
def filled(tmp_path_factory, file):
    folder = tmp_path_factory.mktemp("filled") / "g"
    SQLiteEngine.create(folder, INFO)
    assert command("add", folder, "--embeddings", file).wait() == 0
    return folder


def command(*arguments):
    code = "import sys; from resight.cli import main; print('begins', flush=True); sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "gallery", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def duration(*arguments):
    """Seconds from the beginning of a verb to its end."""
    running = command(*arguments)
    running.stdout.readline()
    began = time.monotonic()
    assert running.wait() == 0
    return time.monotonic() - began


def killed(seconds, rng, *arguments):
    """Run a verb and kill it at a random moment; whether it was still running."""
    running = command(*arguments)
    running.stdout.readline()
    time.sleep(seconds * rng.uniform(0.2, 1.05))
    running.kill()
    return running.wait() != 0


def identities(folder):
    engine = SQLiteEngine(folder)
    counts: dict[str, int] = {}
    for record in engine.scan():
        counts[record.identity] = counts.get(record.identity, 0) + 1
    assert verify(engine) == []
    engine.close()
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["add", "remove", "assign", "copy"])
def test_a_killed_verb_leaves_a_whole_gallery(tmp_path, file, filled, verb):
    if not KILLS and verb != "remove":
        pytest.skip("RESIGHT_KILLS is not set")
    rng, outcomes = random.Random(verb), set()
    whole = {"ann": ROWS // 2, "bob": ROWS // 2}
    shutil.copytree(filled, tmp_path / "timed")
    SQLiteEngine.create(tmp_path / "empty", INFO)
    arguments = {
        "add": lambda place: ["add", place, "--embeddings", file],
        "remove": lambda place: ["remove", place, "--identity", "bob"],
        "assign": lambda place: ["assign", place, "--of", "bob", "--identity", "ann"],
        "copy": lambda place: ["copy", place, tmp_path / "copied"],
    }[verb]
    template = tmp_path / "empty" if verb == "add" else filled
    shutil.copytree(template, tmp_path / "first")
    seconds = duration(*arguments(tmp_path / "first"))
    shutil.rmtree(tmp_path / "copied", ignore_errors=True)
    for number in range(max(1, KILLS)):
        place = tmp_path / f"g{number}"
        shutil.copytree(template, place)
        outcomes.add(killed(seconds, rng, *arguments(place)))
        counts = identities(place)
        if verb == "add":
            assert sum(counts.values()) <= ROWS
            assert command(*arguments(place)).wait() == 0  # again: nothing is doubled
            assert identities(place) == whole
        elif verb == "remove":
            assert counts in (whole, {"ann": ROWS // 2})
            assert "bob" in counts or not any(b"bob" in path.read_bytes() for path in place.iterdir())
        elif verb == "assign":
            assert counts in (whole, {"ann": ROWS})
        else:
            assert counts == whole
            if (tmp_path / "copied" / "gallery.sqlite").exists():
                assert identities(tmp_path / "copied") == whole
            shutil.rmtree(tmp_path / "copied", ignore_errors=True)
        shutil.rmtree(place)
    print(verb, f"{seconds:.2f} s", outcomes)
