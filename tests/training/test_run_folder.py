"""The folder of a run: what it has of a checkpoint is intact, or a resumed run refuses it."""

import json
import os
import random
import re
import shutil

import pytest
import torch
from bit_flips import FLIPS, flip_bit, truncate
from conftest import small_model
from training_helpers import run_to, small

from resight.data.catalog import read_dataset
from resight.device import resolve_compute
from resight.errors import CheckpointError, ConfigError
from resight.models.checkpoint import load_model
from resight.training import checkpoint_files
from resight.training.checkpoint_files import CheckpointFiles
from resight.training.loop import train
from resight.training.run_folder import RunFolder

STATE = {"position": {"epoch": 2, "step": 0}, "optimizer": {"momentum": torch.arange(50.0)}}


@pytest.fixture
def folder(tmp_path):
    """A run folder with one checkpoint, and shards in it."""
    folder = RunFolder.new(tmp_path / "run")
    folder.create(small(), resolve_compute(torch.device("cpu"), "fp32"))
    model, card = load_model(small_model(tmp_path / "model"))
    shards = folder.prepare_shards("epoch-0001", is_main=True)
    shards.mkdir()
    (shards / ".metadata").write_bytes(b"metadata")
    (shards / "__0_0.distcp").write_bytes(b"shard" * 9)
    folder.save("epoch-0001", model.state_dict(), card, STATE, best=True, shards=shards)
    return folder


def resume(folder):
    """What a resumed run reads."""
    opened, run = RunFolder.open(folder.path)
    state = opened.read_state()
    model, card = load_model(opened.last)
    return run, opened.read_compute(), state, model.state_dict(), card


def test_a_checkpoint_states_the_hashes_of_its_files(folder):
    stated = json.loads((folder.last / "checkpoint.json").read_text())
    assert stated["format"] == 2
    assert set(stated["files"]) == {"config.json", "training.pt", "shards/.metadata", "shards/__0_0.distcp"}
    assert sorted(path.name for path in folder.last.iterdir()) == [
        "checkpoint.json", "config.json", "model.safetensors", "shards", "training.pt",
    ]  # fmt: skip
    state = resume(folder)[2]
    assert state["position"] == STATE["position"]
    assert torch.equal(state["optimizer"]["momentum"], STATE["optimizer"]["momentum"])


@pytest.mark.parametrize(
    "name", ["training.pt", "shards/.metadata", "shards/__0_0.distcp", "config.json", "model.safetensors"]
)
def test_a_flipped_bit_or_a_missing_file_of_a_checkpoint_is_noticed(folder, name):
    file = folder.last / name
    flip_bit(file, 4 * file.stat().st_size)
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)} is corrupt.*: restore it from a copy"):
        resume(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        resume(folder)


def test_one_process_checks_the_shards(folder):
    flip_bit(folder.last / "shards" / "__0_0.distcp", 0)
    assert folder.read_state(check_shards=False) is not None
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp is corrupt"):
        folder.read_state()


def test_flipped_bits_of_a_checkpoint_are_noticed_or_harmless(folder, tmp_path):
    rng = random.Random(0)
    files = [path for path in sorted(folder.last.resolve().rglob("*")) if path.is_file()]
    names = [path.relative_to(folder.last.resolve()) for path in files]
    noticed, card = 0, resume(folder)[4]
    for n in range(FLIPS + 10):
        copy = RunFolder(shutil.copytree(folder.path, tmp_path / "copy", symlinks=True, dirs_exist_ok=True))
        file = copy.last / names[n % len(names)]
        if n < FLIPS:
            flip_bit(file, rng.randrange(8 * file.stat().st_size))
        else:
            truncate(file, rng)
        try:
            _, _, state, _, read = resume(copy)
        except CheckpointError:
            noticed += 1
        else:
            assert n < FLIPS
            assert (state["position"], read) == (STATE["position"], card)
        shutil.rmtree(copy.path)
    assert noticed > 0.8 * FLIPS + 10


@pytest.mark.parametrize("number", [1, 99, "2", None])
def test_another_format_is_refused(folder, number):
    compute = folder.path / "compute.json"
    before = compute.read_text()
    assert json.loads(before)["format"] == 2
    compute.write_text(json.dumps({**json.loads(before), "format": number}))
    has = "has no format number" if number is None else f"has format {json.dumps(number)}"
    for read in (lambda: RunFolder.open(folder.path), folder.read_compute):
        with pytest.raises(CheckpointError, match=rf"compute\.json {has}, and this .* reads format 2: start a new run"):
            read()
    compute.write_text(before)
    checkpoint = folder.last / "checkpoint.json"
    checkpoint.write_text(json.dumps({**json.loads(checkpoint.read_text()), "format": number}))
    with pytest.raises(CheckpointError, match=rf"checkpoint\.json {has}, and this .* reads format 2: start a new run"):
        folder.read_state()


def test_a_file_that_is_no_json_is_refused(folder):
    for text in (b"{", b"\xff", b"[]"):
        (folder.path / "compute.json").write_bytes(text)
        with pytest.raises(CheckpointError, match=r"compute\.json"):
            RunFolder.open(folder.path)
    (folder.path / "compute.json").unlink()
    assert RunFolder.open(folder.path)[0].read_compute() is None


def test_a_checkpoint_of_an_earlier_version_is_refused(folder):
    (folder.last / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.json cannot be read \(No such file or directory\)"):
        folder.read_state()


def test_a_link_to_a_checkpoint_that_is_gone_starts_no_new_run(folder):
    shutil.rmtree(folder.last.resolve())
    with pytest.raises(CheckpointError, match="last refers to a checkpoint that does not exist"):
        folder.read_state()


def test_a_checkpoint_with_weights_that_are_not_finite_keeps_the_one_before(folder):
    model, card = load_model(folder.last)
    weights = model.state_dict()
    weights["backbone.cls_token"][0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="weights that are NaN or infinite"):
        folder.save("epoch-0002", weights, card, STATE, best=True)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["epoch-0001"]
    assert resume(folder)[4].model == card.model


def test_a_checkpoint_is_on_the_disk_before_a_link_refers_to_it(folder, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_sync(descriptor)

    def replace(source, target):
        calls.append(f"rename to {target}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    model, card = load_model(folder.last)
    shards = folder.prepare_shards("epoch-0002", is_main=True)
    shards.mkdir()
    (shards / "__0_0.distcp").write_bytes(b"shard")
    calls.clear()
    folder.save("epoch-0002", model.state_dict(), card, STATE, best=True, shards=shards)
    target = folder.checkpoints / "epoch-0002"
    at = calls.index(f"rename to {target}")
    before, after = calls[:at], calls[at + 1 :]
    for name in ("model.safetensors", "config.json", "training.pt", "checkpoint.json", "shards/__0_0.distcp", "shards"):
        assert any(path.endswith(f".partial/{name}") for path in before)
    assert before[-1].endswith(".partial")
    links = [f"rename to {link}" for link in (folder.best, folder.last)]
    assert after == [str(folder.checkpoints), links[0], str(folder.path), links[1], str(folder.path)]


def test_a_run_is_not_resumed_from_a_corrupt_checkpoint(painted, tmp_path):
    run = small(schedule={"epochs": 1})
    run_to(tmp_path / "run", run, painted)
    folder, stored = RunFolder.open(tmp_path / "run")
    split = read_dataset(run.dataset, painted)
    state = folder.last / "training.pt"
    intact = state.read_bytes()
    flip_bit(state, 4 * len(intact))
    with pytest.raises(CheckpointError, match=r"training\.pt is corrupt.*restore it from a copy, or start a new run"):
        train(stored, split, folder)
    torch.save({"optimizer": {}}, state)
    files = CheckpointFiles.of(folder.last)
    (folder.last / checkpoint_files.CHECKPOINT).write_text(files.model_dump_json())
    with pytest.raises(CheckpointError, match="does not fit the run's configuration"):
        train(stored, split, folder)
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.open(tmp_path)
