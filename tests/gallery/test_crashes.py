"""Operations on a gallery that are ended by SIGKILL before calls that change files, or by a power cut.

crash_shim.c is preloaded to count and record the calls; crash_driver.py runs the operations and checks what is left.
RESIGHT_CRASH_STEP=1 tries every call (about an hour with an index, two minutes without); otherwise a sample is tried.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STEP = os.environ.get("RESIGHT_CRASH_STEP")


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "crash_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "crash_shim.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


@pytest.fixture
def memory():
    """A folder in memory, where there is one: the calls are the same, and waiting for the disk is left out."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="resight-crashes-", dir=parent) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "step", "names", "least"),
    [
        ("exact", 11, "add,replace,assign,merge,undo,remove,ingest", 50),
        ("power", 31, "add,replace,assign,merge,undo,remove,ingest", 40),
        ("index", 90, "add,remove", 6),
    ],
)
def test_every_interrupted_operation_is_done_or_not_done(shim, memory, kind, step, names, least):
    """It opens and verifies; nothing acknowledged is lost, nothing removed comes back or stays in a file."""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(HERE / "crash_driver.py"), str(memory), STEP or str(step), kind, names]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    counts = json.loads(run.stdout)
    print(counts)
    assert len(counts) == len(names.split(","))
    assert all(counts.values())
    assert sum(counts.values()) >= least
