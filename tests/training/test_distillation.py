"""Training with a teacher."""

import json
import shutil

import pytest
import torch
from conftest import small_model, varied_model
from test_distributed import VOCABULARY, alone, batch, close, grads, launcher, losses, train_pair  # noqa: F401
from torch.nn import functional as F
from training_helpers import context_of, run_to, same, small, weights

import resight
from resight.cli import main
from resight.config.recipes import RECIPES, tiny, vary
from resight.data.catalog import read_dataset
from resight.data.vocabulary import Vocabulary
from resight.errors import CheckpointError, ConfigError
from resight.losses.objective import objective
from resight.models.checkpoint import load_model
from resight.training import loop
from resight.training.inputs import Inputs
from resight.training.loop import train
from resight.training.resolve import resolve
from resight.training.run_folder import RunFolder
from resight.training.state import start
from resight.training.step import gradients

MODALITIES = ("nir", "rgb", "tir")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network with other weights, another image size, and other preprocessing than the student's."""
    return varied_model(
        tmp_path_factory.mktemp("teacher") / "m", modalities=MODALITIES, mean=(0.3, 0.5, 0.6), sie=("modality",)
    )


def student(teacher, **changes):
    return small(teacher=str(teacher), **changes)


def state_of(teacher, micro_batch_size=None, **model):
    run = vary(tiny(), preprocessing={"size": (64, 32)}, model={"sie": ("camera",), "drop_path": 0.0, **model})
    run = vary(run, device="cpu", precision="fp32", micro_batch_size=micro_batch_size, teacher=str(teacher))
    context = context_of(run, VOCABULARY)
    return context, start(context)


def test_targets_are_the_teachers_embeddings_of_the_same_pixels(teacher):
    """Of uint8 images, normalized for the student: those that `embed` gives for the images themselves."""
    embedder = resight.load(teacher, "cpu", "fp32", fusion="mean")
    _, state = state_of(teacher)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, 64, 32), generator=generator, dtype=torch.uint8)
    distiller = state.distiller
    images = (pixels / 255 - torch.tensor(distiller.mean).view(3, 1, 1)) / torch.tensor(distiller.std).view(3, 1, 1)
    side_info = {
        "camera": torch.tensor([0, 1, -1] * 2),
        "view": torch.full((6,), -1),
        "modality": torch.zeros(6).long(),
    }
    # They are rgb, which is the student's modality 0 and the teacher's 1.
    expected = torch.from_numpy(embedder.embed(list(pixels)))
    for size in (None, 4, 1):
        targets = distiller.targets(images, side_info, size)
        torch.testing.assert_close(targets, expected, atol=1e-5, rtol=0)
        assert not targets.is_inference()
        assert not targets.requires_grad


def test_images_are_resized_for_the_teacher(tmp_path):
    teacher = small_model(tmp_path / "m")  # 64 x 32
    run = vary(tiny(), preprocessing={"size": (96, 48)}, model={"sie": ()}, device="cpu", precision="fp32")
    state = start(context_of(vary(run, teacher=str(teacher)), VOCABULARY))
    images = torch.randn(2, 3, 96, 48)
    side_info = {kind: torch.zeros(2).long() for kind in ("camera", "view", "modality")}
    smaller = F.interpolate(images, (64, 32), mode="bilinear", antialias=True)  # the same mean and deviation
    known = {"camera": torch.full((2,), -1), "view": torch.full((2,), -1), "modality": torch.zeros(2).long()}
    expected = resight.load(teacher, "cpu", "fp32").embed_tensor(smaller, known)
    torch.testing.assert_close(state.distiller.targets(images, side_info, None), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("feature", ["before", "after"])
@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_the_gradients_are_those_of_the_whole_loss(teacher, micro_batch_size, feature):
    """Of the objective plus the distillation losses, by one graph over the whole batch."""
    images, side_info, identity = batch()
    side_info = side_info | {"view": torch.full((len(images),), -1)}
    context, state = state_of(teacher, jpm=False, feature=feature)
    out = state.model(images, side_info, identity)
    targets = state.distiller.targets(images, side_info, None)
    embeddings = out.features[0]
    if feature == "after":
        embeddings = (embeddings - embeddings.mean(0)) / (embeddings.var(0, correction=0) + 1e-5).sqrt()
        embeddings = embeddings * state.model.necks[0].weight
    expected_loss = state.distiller.loss(state.model, out.features, targets)
    projected = F.normalize(embeddings)
    projected, centered = (F.normalize(x - x.mean(0)) for x in (projected, targets))
    cosine = (projected * centered).sum(1)
    assert expected_loss.embedding.item() == pytest.approx((1 - cosine).mean().item(), abs=1e-5)
    losses = objective(out.features, out.logits, identity, context.run.loss)
    (losses.total + expected_loss.total).backward()
    expected, running = grads(state), state.model.necks[0].running_mean.clone()

    context, state = state_of(teacher, micro_batch_size, jpm=False, feature=feature)
    learned = gradients(context, state, Inputs(images, side_info, identity), identity, (0,))
    assert learned.loss.total.item() == pytest.approx((losses.total + expected_loss.total).item(), rel=1e-5)
    close(grads(state), expected)
    torch.testing.assert_close(state.model.necks[0].running_mean, running)  # the neck saw the batch once


def test_the_projection_is_trained_and_is_not_in_the_model(teacher, painted, tmp_path):
    """With JPM the student's embedding is longer than the teacher's."""
    run_to(tmp_path / "run", student(teacher, schedule={"epochs": 1}), painted)
    run_to(tmp_path / "plain", small(schedule={"epochs": 1}), painted)
    distilled, plain = weights(tmp_path / "run"), weights(tmp_path / "plain")
    assert distilled.keys() == plain.keys()
    assert not same(distilled, plain)
    stored = torch.load(tmp_path / "run" / "last" / "training.pt", weights_only=True)
    projection = stored["distillation"]["weight"]
    width = load_model(tmp_path / "run" / "best")[0].width
    assert projection.shape == (load_model(teacher)[0].width, width)
    vocabulary = load_model(tmp_path / "run" / "best")[1].vocabulary
    initial = start(context_of(student(teacher), vocabulary)).distiller.projection.weight
    assert (projection - initial).norm() > 1e-3 * initial.norm()
    names = {file.name for file in (tmp_path / "run" / "last").iterdir()}
    assert names == {"model.safetensors", "config.json", "training.pt", "checkpoint.json"}
    teacher_size = (teacher / "model.safetensors").stat().st_size
    optimizer_state = 3 * sum(value.numel() * 4 for value in distilled.values())
    assert (tmp_path / "run" / "last" / "training.pt").stat().st_size < optimizer_state + teacher_size / 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["distillation"] > 0
    expected = 10 * lines[0]["distillation_embedding"] + 10 * lines[0]["distillation_distance"]
    assert lines[0]["distillation"] == pytest.approx(expected, rel=1e-4)


def test_a_run_is_resumed_to_the_bit(teacher, painted, tmp_path, monkeypatch):
    run = student(teacher, schedule={"epochs": 2}, checkpoint_steps=1, sampling={"identities": 2})
    run_to(tmp_path / "whole", run, painted)

    class StopHereError(Exception):
        pass

    def stop(context, state, name, best):
        saved(context, state, name, best)
        if name == "epoch-0002-step-000001":
            raise StopHereError

    saved = loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", stop)
    with pytest.raises(StopHereError):
        run_to(tmp_path / "broken", run, painted)
    monkeypatch.undo()
    folder, stored = RunFolder.open(tmp_path / "broken")
    train(stored, read_dataset(run.dataset, painted), folder)
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))
    states = [torch.load(tmp_path / name / "last" / "training.pt", weights_only=True) for name in ("broken", "whole")]
    assert torch.equal(*(state["distillation"]["weight"] for state in states))


@pytest.mark.slow
def test_two_processes_learn_from_a_teacher_as_one(launcher, teacher, painted, tmp_path):  # noqa: F811
    options = ("--teacher", str(teacher), "--schedule.epochs", "3", "--optimizer.clip", "1")
    train_pair(launcher, painted, tmp_path / "two", *options)
    alone(painted, tmp_path / "one", "--micro-batch-size", "36", *options)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    figures = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert figures[0]["distillation"] == pytest.approx(figures[1]["distillation"], abs=1e-4)
    assert (tmp_path / "two" / "teacher.json").read_text() == (tmp_path / "one" / "teacher.json").read_text()


def test_a_run_is_not_resumed_with_another_teacher(teacher, painted, tmp_path, capsys):
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    run_to(tmp_path / "run", student(copy, root=painted, schedule={"epochs": 1}), painted)
    facts = json.loads((tmp_path / "run" / "teacher.json").read_text())
    assert facts["embedding_id"] == resight.load(copy, "cpu", flip=False).embedding_id
    shutil.rmtree(copy)
    small_model(copy, modalities=MODALITIES)
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"started with a teacher whose embedding_id is {facts['embedding_id']}" in error
    assert "restore that teacher, or start a new run" in error
    assert "Traceback" not in error
    (tmp_path / "run" / "teacher.json").unlink()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert "teacher.json does not state the embedding_id of the run's teacher" in capsys.readouterr().err


def test_a_teacher_that_is_missing_or_unreadable(teacher, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    shutil.copytree(teacher, broken)
    (broken / "config.json").write_text("{")
    for folder in (tmp_path / "none", tmp_path / "empty", broken):
        arguments = ["train", "tiny", "--teacher", str(folder), "--root", str(tmp_path), "--out", str(tmp_path / "run")]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert str(folder) in error
        assert "Traceback" not in error
        assert not (tmp_path / "run").exists()
    weightless = tmp_path / "weightless"
    shutil.copytree(teacher, weightless)
    (weightless / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        start(context_of(student(weightless), Vocabulary(("a", "b"), (), (), MODALITIES)))


def test_a_teacher_that_does_not_fit(teacher, tmp_path):
    fused = small_model(tmp_path / "fused", modalities=MODALITIES, sie=(), fusion="gate")
    with pytest.raises(ConfigError, match=r"fuses the modalities of a sighting \(model\.fusion gate\)"):
        resolve(student(fused))
    with pytest.raises(ConfigError, match=r"the student has model\.fusion: leave teacher or model\.fusion out"):
        resolve(student(teacher, model={"fusion": "mean", "jpm": False}))
    with pytest.raises(ConfigError, match="--fsdp and --teacher exclude each other"):
        resolve(student(teacher, fsdp=True))
    rgb = small_model(tmp_path / "rgb")
    with pytest.raises(ConfigError, match="the teacher knows no modality nir, only rgb"):
        start(context_of(student(rgb), Vocabulary(("a", "b"), (), (), MODALITIES)))


def test_options_that_exclude_each_other():
    with pytest.raises(ConfigError, match="the section distillation is for a teacher"):
        small(distillation={"embedding_weight": 1.0})
    nothing = {"embedding_weight": 0, "distance_weight": 0, "similarity_weight": 0}
    with pytest.raises(ConfigError, match="nothing is learned from the teacher"):
        small(teacher="x", distillation=nothing)
    with pytest.raises(ConfigError, match="greater than or equal to 0"):
        small(teacher="x", distillation={"embedding_weight": -1})


def test_a_student_learns_the_teachers_similarities(teacher, painted, tmp_path):
    """Of images of identities that are not in training, better than a student without a teacher."""
    options = {"schedule": {"epochs": 12}, "augmentation": {"erase": 0.0}, "loss": {"triplet_weight": 0.0}}
    options |= {"model": {"jpm": False, "drop_path": 0.0, "dropout": 0.0}, "sampling": {"identities": 6}}
    run_to(tmp_path / "with", student(teacher, **options), painted)
    run_to(tmp_path / "without", small(**options), painted)
    table = read_dataset("synthetic", painted).query
    images = [image for sighting in table for image in sighting.images.items()]

    def similarities(folder):
        embedder = resight.load(folder, "cpu", "fp32", flip=False)
        vectors = embedder.embed([path for _, path in images], modality=[name for name, _ in images])
        return torch.from_numpy(vectors @ vectors.T)

    target = similarities(teacher)
    differences = {
        name: (similarities(tmp_path / name / "best") - target).square().mean().item() for name in ("with", "without")
    }
    assert differences["with"] < 0.5 * differences["without"], differences


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "osnet_x0_25", "efficientnet_b0"])
def test_small_backbones_learn_from_a_teacher(teacher, backbone):
    size = {"preprocessing": {"size": (64, 32)}}
    run = vary(RECIPES["edge"](), device="cpu", precision="fp32", teacher=str(teacher), weights=None, **size)
    run = vary(run, model={"backbone": backbone})
    context = context_of(run, VOCABULARY)
    state = start(context)
    state.model.train()
    images, side_info, identity = batch()
    side_info = side_info | {"view": torch.full((len(images),), -1)}
    learned = gradients(context, state, Inputs(images, side_info, identity), identity, (0,))
    assert learned.distillation.total.isfinite()
    assert state.distiller.projection.weight.grad.norm() > 0
    assert sum(p.numel() for p in state.model.backbone.parameters()) < 6e6
