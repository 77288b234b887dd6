"""No verb of the command line looks up a name or connects to another machine.

All verbs run in one process, and each socket that it, its workers or their threads open for the network is recorded.
"""

import json
import os
import socket
import subprocess
import sys

import golden_cases
import pytest
import torch
from conftest import picture, small_model, write_onnx

from resight.cli import VERBS

RECORDER = """
import os, socket

LOG, NETWORK = os.environ["RESIGHT_TEST_NETWORK"], (socket.AF_INET, socket.AF_INET6)


def is_loopback(host):
    return str(host or "localhost") in ("localhost", "::1") or str(host).startswith("127.")


def refuse(name, host):
    if is_loopback(host):
        return
    with open(LOG, "a") as file:
        file.write(f"{name} {host}\\n")
    raise OSError(f"no network in this test: {name} {host}")


def guard_function(name):
    original = getattr(socket, name)

    def guarded(host, *arguments, **options):
        refuse(name, host)
        return original(host, *arguments, **options)

    setattr(socket, name, guarded)


def guard_method(name):
    original = getattr(socket.socket, name)

    def guarded(self, *arguments):
        if self.family in NETWORK:
            refuse(name, arguments[-1][0])
        return original(self, *arguments)

    setattr(socket.socket, name, guarded)


for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
    guard_function(name)
for name in ("connect", "connect_ex", "sendto"):
    guard_method(name)
"""
RUNNER = """
import http.client, json, os, signal, sys, threading, time
from functools import partial
from types import SimpleNamespace


def end_when_ready(port):
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/v1/ready")
            assert connection.getresponse().status == 200
            os.kill(os.getpid(), signal.SIGTERM)
            return
        except ConnectionRefusedError:
            time.sleep(0.05)


if __name__ == "__main__":
    from resight.cli import main
    from resight.config.recipes import tiny, vary
    from resight.data.synthetic import synthetic
    from resight.report import demo

    plan = partial(synthetic.Plan, train=4, test=2, cameras=2)
    demo.synthetic = SimpleNamespace(Plan=plan, write=synthetic.write, read=synthetic.read)
    small = {"preprocessing": {"size": (64, 32)}, "sampling": {"identities": 2, "instances": 2}, "device": "cpu"}
    demo.tiny = lambda: vary(tiny(), **small)
    for command in json.load(open(sys.argv[1])):
        print("command:", *command, flush=True)
        if command[0] == "serve":
            threading.Thread(target=end_when_ready, args=(int(command[-1]),)).start()
        status = main(command)
        if status != 0:
            sys.exit(f"status {status} of {command}")
"""
CPU = ["--device", "cpu"]
TINY = [*CPU, "--preprocessing.size", "64", "32", "--sampling.identities", "3", "--sampling.instances", "2"]


@pytest.fixture
def folder(tmp_path):
    """A model, a gallery of pictures, and a checkpoint of the reference."""
    small_model(tmp_path / "model", cameras=("1", "2"), modalities=("rgb", "nir", "tir"), sie=("camera", "modality"))
    for n in range(12):
        picture(tmp_path / "images" / f"id{n % 4}" / f"{n}.jpg", n % 4, n)
    torch.save(golden_cases.load("deit_small_baseline").state, tmp_path / "reference.pth")
    write_onnx(tmp_path / "net.onnx")
    (tmp_path / "reference.yml").write_text(
        "MODEL:\n  TRANSFORMER_TYPE: deit_small_patch16_224_TransReID\n  SIE_CAMERA: True\n"
    )
    return tmp_path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def commands(painted):
    """At least one command of each verb, and each action of a verb that has actions; one uses what others wrote."""
    data = ["--dataset", "synthetic", "--root", str(painted)]
    of_gallery = [
        ["create", "g", "--model", "model", *CPU],
        ["add", "g", "images", "--identity-from-folder", *CPU],
        ["add", "h", "--model", "model", "--embeddings", "e.parquet", *CPU],
        ["search", "g", "images/id1/1.jpg", "--k", "3", *CPU],
        ["assign", "g", "--of", "id1", "--identity", "id2"],
        ["undo", "g"],
        ["cluster", "g", "--threshold", "0.5", "--all"],
        ["remove", "g", "--identity", "id3"],
        ["stats", "g"],
        ["verify", "g"],
        ["copy", "g", "k"],
        ["repair", "g", "repaired"],
        ["to-parquet", "g", "g.parquet"],
        ["from-parquet", "g.parquet", "again"],
    ]
    return [
        ["recipes", "list"],
        ["models", "list"],
        ["protocols", "list"],
        ["data", "list"],
        ["data", "inspect", "synthetic", str(painted), "--check"],
        ["data", "clean"],
        ["summary", "tiny"],
        ["demo", "--out", "demo", "--epochs", "1"],
        ["train", "tiny", "--root", str(painted), "--out", "run", "--schedule.epochs", "1", *TINY],
        ["lr-find", "tiny", "--steps", "3", "--root", str(painted), *TINY],
        ["evaluate", "model", *data, "--figures", "a.json", "--save-embeddings", "v.parquet", *CPU],
        ["evaluate", "v.parquet", "--figures", "b.json", *CPU],
        ["compare", "a.json", "b.json"],
        ["calibrate", "model", *data, "--false-match-rate", "0.1", *CPU],
        ["similarity", "images/id0/0.jpg", "images/id1/1.jpg", "--model", "model", *CPU],
        ["explain", "images/id0/0.jpg", "images/id1/1.jpg", "--model", "model", "--out", "why.png", *CPU],
        ["extract", "model", "images", "--identity-from-folder", "--out", "e.parquet", "--workers", "2", *CPU],
        *(["gallery", *action] for action in of_gallery),
        ["keys", "create", "state"],
        ["keys", "list", "state"],
        ["serve", "model", "--gallery", "g", *CPU, "--port", str(free_port())],
        ["export", "model", "--to", "onnx", "--out", "onnx"],
        ["export", "model", "--to", "openvino", "--out", "openvino"],
        ["import-onnx", "net.onnx", "--out", "imported", "--mean", "0", "0", "0", "--std", "1", "1", "1"],
        ["convert", "reference.pth", "--config", "reference.yml", "--out", "converted"],
        ["push", "model", "org/name", "--dry-run"],
    ]


@pytest.mark.slow
def test_no_verb_uses_the_network(folder, painted):
    for module in ("onnxruntime", "openvino"):
        pytest.importorskip(module)
    assert {command[0] for command in commands(painted)} == set(VERBS)
    log, path = folder / "network.log", folder / "path"
    path.mkdir()
    (path / "sitecustomize.py").write_text(RECORDER)
    (folder / "run.py").write_text(RUNNER)
    (folder / "commands.json").write_text(json.dumps(commands(painted)))
    removed = ("CI", "TF_BUILD", "JENKINS_URL", "HF_HUB_OFFLINE", "DO_NOT_TRACK")  # these silence usage statistics
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    environment |= {"RESIGHT_TEST_NETWORK": str(log), "PYTHONPATH": str(path), "HOME": str(folder)}
    environment |= {"RESIGHT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "run.py", "commands.json"], cwd=folder, env=environment, capture_output=True, text=True
    )
    recorded = log.read_text() if log.exists() else ""
    assert recorded == ""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    "code",
    [
        "socket.getaddrinfo('example.invalid', 80)",
        "socket.create_connection(('192.0.2.1', 80))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM).connect_ex(('2001:db8::1', 80))",
    ],
)
def test_the_recorder_sees(tmp_path, code):
    (tmp_path / "sitecustomize.py").write_text(RECORDER)
    log = tmp_path / "network.log"
    environment = {**os.environ, "RESIGHT_TEST_NETWORK": str(log), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", f"import socket; {code}"], env=environment, capture_output=True)
    assert done.returncode == 1
    assert any(host in log.read_text() for host in ("example.invalid", "192.0.2.1", "2001:db8::1"))
    local = "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    log.unlink()
    subprocess.run([sys.executable, "-c", f"import socket; {local}"], env=environment, check=True)
    assert not log.exists()
