"""What every part of a training needs, resolved once at its start."""

import json
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch
from training_helpers import ALONE, context_of, small

from resight import device
from resight.data.vocabulary import Vocabulary
from resight.device import resolve_compute
from resight.errors import CheckpointError
from resight.models.checkpoint import ModelCard
from resight.progress import Progress
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext
from resight.training.run_folder import RunFolder

VOCABULARY = Vocabulary(("a", "b"), ("1", "2"), ("front",), ("rgb", "nir"))


def test_a_context_states_the_sections_of_its_run():
    run = small(embedding={"flip": True, "batch_size": 7}, precision="bf16")
    context = context_of(run, VOCABULARY)
    assert context.card == ModelCard(
        model=run.model, preprocessing=run.preprocessing, vocabulary=VOCABULARY, embedding=run.embedding
    )
    assert context.compute == resolve_compute(torch.device("cpu"), "bf16", 7, training=True)
    assert (context.compute.precision, context.compute.batch_size) == ("bf16", 7)
    assert context.folder is None
    with pytest.raises(FrozenInstanceError):
        context.run = small()


def test_the_precision_of_training_is_the_runs(monkeypatch):
    """Not that of the section `embedding`, which is for those who use the model."""
    context = context_of(small(precision="fp32", embedding={"precision": "bf16"}), VOCABULARY)
    assert context.compute.precision == "fp32"
    for fast, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "bf16_layer_is_faster", lambda fast=fast: fast)
        context = context_of(small(precision="auto", embedding={"precision": "fp16"}), VOCABULARY)
        assert context.compute.precision == precision


def test_the_description_counts_the_images_of_a_batch():
    context = context_of(small(sampling={"identities": 5, "instances": 3}), VOCABULARY)
    assert context.description.endswith(", fp32; images of 64x32, batches of 30")  # 5 x 3 sightings x 2 modalities


def test_a_folder_that_was_started_decides_the_compute(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: pytest.fail("measured again"))
    folder, run = RunFolder(tmp_path / "run"), small(precision="auto")
    stored = replace(resolve_compute(torch.device("cpu"), "fp32", 5), threads=1)
    folder.create(run, stored)
    assert context_of(run, VOCABULARY, progress=Progress(), folder=folder).compute == stored
    assert capsys.readouterr().err == ""  # nothing differs, and nothing is said

    file = folder.path / "compute.json"
    file.write_text(json.dumps({"format": 2, **asdict(stored), "processor": "Z80"}))
    assert context_of(run, VOCABULARY, progress=Progress(), folder=folder).compute == replace(stored, processor="Z80")
    assert "a processor with Z80 so far; on this one" in capsys.readouterr().err

    monkeypatch.setattr(device, "bf16_layer_is_faster", lambda: True)
    file.write_text(json.dumps({"format": 2, **asdict(stored), "device": "cuda:1"}))
    assert context_of(run, VOCABULARY, progress=Progress(), folder=folder).compute.precision == "bf16"
    assert "computed on cuda:1 so far and is resumed on cpu" in capsys.readouterr().err

    file.write_text('{"format": 2, "device": "cpu"}')
    with pytest.raises(CheckpointError, match="delete it to have that chosen again"):
        context_of(run, VOCABULARY, folder=folder)


def test_every_process_computes_as_the_main_one():
    """A process takes what `of_main` hands it, whatever its own machine would choose."""
    handed = []

    class Second(DistributedContext):
        def of_main(self, value):
            handed.append(value)
            return None if value is None else replace(value, precision="bf16", threads=3)

    context = TrainContext.create(
        small(precision="fp32"), VOCABULARY, Second(1, 2, torch.device("cpu")), Progress(quiet=True)
    )
    assert (context.compute.precision, context.compute.threads) == ("bf16", 3)
    assert [compute.precision for compute in handed] == ["fp32"]
    assert not context.distributed.is_main
    assert ALONE.is_main
