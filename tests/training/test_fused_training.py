"""Training with a fusion inside the network: gradients, what passes the backbone, and what is drawn."""

import pytest
import torch
from training_helpers import context_of, run_to, same, small, weights

from resight.config.recipes import tiny, vary
from resight.config.sections import Augmentation
from resight.data.augment.augment import augment, drop_by_identity, drop_modalities
from resight.data.catalog import read_dataset
from resight.data.loader import Batch
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.losses.objective import objective
from resight.progress import Progress
from resight.training.inputs import Inputs
from resight.training.loop import train
from resight.training.resolve import resolve
from resight.training.run_folder import RunFolder
from resight.training.state import start
from resight.training.step import gradients, train_step

VOCABULARY = Vocabulary(tuple("abcd"), ("1", "2"), (), ("rgb", "nir", "tir"))
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 0, 0]]).bool()


def state_of(kind, micro_batch_size=None, **model):
    model = {"jpm": False, "sie": ("modality",), "drop_path": 0.0, "dropout": 0.0, "fusion": kind, **model}
    loss = {"fused_weight": 0.3}
    run = small(model=model, micro_batch_size=micro_batch_size, augmentation={"erase": 0.0}, loss=loss)
    context = context_of(run, VOCABULARY)
    state = start(context)
    generator = torch.Generator().manual_seed(1)
    for parameter in state.model.fusion.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return context, state


def batch_of(present=PRESENT):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (len(present), 3, 3, 64, 32), generator=generator, dtype=torch.uint8)
    unknown = torch.full((len(present),), -1)
    return Batch(images, present, torch.arange(len(present)) // 2, unknown, unknown)


def inputs_of(batch):
    images = batch.images[batch.present].float() / 255
    identity = batch.identity[batch.present.nonzero(as_tuple=True)[0]]
    return Inputs(images, batch.side_info(), identity, batch.rows())


def grads(state):
    return {name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None}


def normalized_by_modality(neck, rows, modality):
    """BatchNorm of each modality's rows, written out."""
    result = torch.empty_like(rows)
    for number in range(3):
        mine = modality == number
        part = rows[mine]
        result[mine] = (part - part.mean(0)) / (part.var(0, unbiased=False) + 1e-5).sqrt() * neck.weight[number]
    return result


def logits_of_images(model, branch, rows, modality):
    """One classifier for all images, or with `concat` one for each modality."""
    head = model.heads[branch]
    if model.fusion.kind != "concat":
        return rows @ head.weight.T
    return torch.stack([head.of_modality[m].weight @ row for row, m in zip(rows, modality.tolist(), strict=True)])


def naive_loss(context, state, batch):
    """One graph over everything: the loss of the images, and the loss of the sightings."""
    inputs, model = inputs_of(batch), state.model
    features, tokens = model.backbone.features_and_tokens(inputs.images, inputs.side_info)
    fused = model.fusion(features, tokens, inputs.rows)
    sighting, number = batch.present.nonzero(as_tuple=True)
    of_images, of_sightings = [], []
    for branch, feature in enumerate(features):
        attended = fused.images[branch][sighting, number]
        modality = torch.cat([inputs.side_info["modality"], number])
        normalized = normalized_by_modality(model.necks[branch], torch.cat([feature, attended]), modality)
        is_wide = model.fusion.kind == "concat"
        of_images.append(logits_of_images(model, branch, normalized[: len(feature)], inputs.side_info["modality"]))
        rows = [torch.zeros(feature.shape[1] * (3 if is_wide else 1))] * 8
        for row, one, which in zip(normalized[len(feature) :], sighting, number, strict=True):
            if is_wide:
                parts = [torch.zeros_like(row)] * 3
                parts[which] = row
                rows[one] = rows[one] + torch.cat(parts)
            else:
                rows[one] = rows[one] + fused.weights[one, which] * row
        heads = model.fused_heads if is_wide else model.heads
        of_sightings.append(torch.stack(rows) @ heads[branch].weight.T)
    settings, modality = context.run.loss, inputs.side_info["modality"]
    loss = objective(features, of_images, inputs.identity, settings, None, modality).total
    return loss + settings.fused_weight * objective(fused.features, of_sightings, batch.identity, settings).total


@pytest.mark.parametrize(
    ("kind", "micro_batch_size", "jpm"),
    [
        ("mean", None, False),
        ("gate", 5, True),
        ("attention", 4, False),
        ("attention", None, True),
        ("concat", 6, False),
    ],
)
def test_the_gradients_are_those_of_one_graph_over_everything(kind, micro_batch_size, jpm):
    batch = batch_of()
    context, state = state_of(kind, jpm=jpm)
    loss = naive_loss(context, state, batch)
    loss.backward()
    expected = grads(state)

    context, state = state_of(kind, micro_batch_size, jpm=jpm)
    learned = gradients(context, state, inputs_of(batch), batch.identity, (0,))
    # A row with no other positive has the distance to itself, the root of a rounding error: not more exact than this.
    assert learned.loss.total.item() == pytest.approx(loss.item(), rel=1e-4)
    actual = grads(state)
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5, name


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_only_images_that_are_present_pass_the_backbone(micro_batch_size):
    context, state = state_of("attention", micro_batch_size)
    passed = []
    state.model.backbone.patch_embed.register_forward_hook(lambda module, inputs, out: passed.append(len(inputs[0])))
    values = train_step(context, state, batch_of(), (slice(0, 8), 8))
    passes = 1 if micro_batch_size is None else 2  # one without and one with gradient
    assert sum(passed) == passes * int(PRESENT.sum())
    assert int(values["images"]) == int(PRESENT.sum())
    assert micro_batch_size is None or max(passed) <= micro_batch_size


def test_micro_batches_have_whole_sightings():
    inputs = inputs_of(batch_of())
    parts = inputs.parts(4)
    counts = PRESENT.sum(1).tolist()
    assert parts[0] == (slice(0, 3), slice(0, 1))  # 3 images, and 2 more would be 5
    assert [part.stop - part.start for part, _ in parts] == [sum(counts[s.start : s.stop]) for _, s in parts]
    assert parts[-1][1].stop == len(counts)
    assert parts[-1][0].stop == sum(counts)
    assert inputs.parts(1)[0] == (slice(0, 3), slice(0, 1))  # a sighting is never divided
    images, _, rows = inputs.of(*parts[1])
    assert rows.max() == len(images) - 1


def test_a_step_drops_modalities_and_passes_fewer_images():
    context, state = state_of("gate")
    full = batch_of(torch.ones(8, 3).bool())
    run = vary(context.run, augmentation={"drop_modality": 1.0})
    object.__setattr__(context, "run", run)
    values = train_step(context, state, full, (slice(0, 8), 8))
    assert 8 <= int(values["images"]) < 24


def test_drops_leave_one_to_all_but_one_of_the_modalities():
    generator = torch.Generator().manual_seed(0)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]]).bool().repeat(2000, 1)
    kept = drop_modalities(present, 1.0, generator)
    assert not (kept & ~present).any()
    counts = kept.view(2000, 3, 3).sum(2)
    assert set(counts[:, 0].tolist()) == {1, 2}
    assert set(counts[:, 1].tolist()) == {1}
    assert set(counts[:, 2].tolist()) == {1}
    assert counts[:, 0].float().mean() == pytest.approx(1.5, abs=0.05)
    each = kept.view(2000, 3, 3)[:, 0].float().mean(0)
    assert each.tolist() == pytest.approx([0.5] * 3, abs=0.05)
    some = drop_modalities(present, 0.25, generator).view(2000, 3, 3)[:, 0]
    assert (some.sum(1) < 3).float().mean() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(drop_modalities(present, 0.0, generator), present)


def test_parts_of_a_batch_lose_what_the_whole_batch_loses():
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1]]).bool().repeat(10, 1)
    whole = drop_modalities(present, 0.7, torch.Generator().manual_seed(3))
    parts = [slice(0, 13), slice(13, 27), slice(27, 40)]
    separate = [drop_modalities(present[p], 0.7, torch.Generator().manual_seed(3), (p, 40)) for p in parts]
    assert torch.equal(torch.cat(separate), whole)
    assert not torch.equal(separate[1], drop_modalities(present[13:27], 0.7, torch.Generator().manual_seed(3)))


def test_all_sightings_of_an_identity_lose_the_same_modalities():
    present = torch.ones(6000, 3).bool()
    present[4000:, 0] = False
    identity = torch.arange(6000) // 2
    kept = drop_by_identity(present, identity, (0.5, 0.2, 0.0), torch.Generator().manual_seed(0))
    assert torch.equal(kept[::2], kept[1::2])
    assert kept[:4000].float().mean(0).tolist() == pytest.approx([0.5, 0.8, 1.0], abs=0.03)
    assert kept[4000:, 0].sum() == 0
    assert kept[:, 2].all()
    alone = drop_by_identity(present[:, :1], identity, (1.0,), torch.Generator().manual_seed(0))
    assert torch.equal(alone, present[:, :1])  # nothing would be left
    middle = drop_by_identity(present[7:13], identity[7:13], (0.5, 0.2, 0.0), torch.Generator().manual_seed(0))
    assert torch.equal(middle, kept[7:13])
    assert not torch.equal(drop_by_identity(present, identity, (0.5, 0.2, 0.0), torch.Generator().manual_seed(1)), kept)


def test_a_step_passes_fewer_images_of_a_modality_that_is_dropped():
    context, state = state_of("concat")
    passed = []
    state.model.backbone.patch_embed.register_forward_hook(lambda module, inputs, out: passed.append(len(inputs[0])))
    run = vary(context.run, augmentation={"drop_by_modality": {"rgb": 1.0}})
    object.__setattr__(context, "run", run)
    values = train_step(context, state, batch_of(torch.ones(8, 3).bool()), (slice(0, 8), 8))
    assert int(values["images"]) == sum(passed) == 16


def test_a_modality_to_drop_that_no_image_has_is_refused():
    run = vary(tiny(), augmentation={"drop_by_modality": {"rgb": 0.1, "sonar": 0.5}})
    with pytest.raises(ConfigError, match="has 'sonar', and the training set's modalities are rgb, nir, tir"):
        context_of(run, VOCABULARY)


def test_misregistration_shifts_each_modality_by_itself():
    images = torch.zeros(40, 3, 3, 32, 32, dtype=torch.uint8)
    images[..., 12:20, 12:20] = 255  # a square, whose corner shows the shift
    settings = Augmentation(flip=0, pad=2, erase=0, misregistration=3)
    out = augment(images, settings, (0.0,) * 3, (1.0,) * 3, torch.Generator().manual_seed(0))
    corners = (out[:, :, 0] > 0.5).flatten(2).int().argmax(2)  # [40, 3]
    row, column = corners // 32, corners % 32
    assert ((row - row[:, :1]).abs() <= 6).all()
    assert (row != row[:, :1]).any()
    assert (column != column[:, :1]).any()
    assert ((row - 12).abs() <= 5).all()
    assert (row - 12).abs().max() > 3
    registered = augment(images, Augmentation(flip=0, pad=2, erase=0), (0.0,) * 3, (1.0,) * 3, torch.Generator())
    assert torch.equal(registered[:, 0], registered[:, 1])


def test_a_fused_run_resumes_to_the_same_weights(painted, tmp_path):
    changes = {"dataset": "synthetic", "model": {"fusion": "attention", "jpm": False}}
    run = small(**changes, augmentation={"drop_modality": 0.5}, schedule={"epochs": 2, "warmup_epochs": 0})
    run_to(tmp_path / "whole", run, painted)

    class StopError(Exception):
        pass

    class Stopping(Progress):
        def log(self, text):
            if text.startswith("epoch   2"):
                raise StopError

    split = read_dataset("synthetic", painted)
    with pytest.raises(StopError):
        train(run, split, RunFolder.new(tmp_path / "parts"), Stopping(quiet=True))
    train(run, split, RunFolder.open(tmp_path / "parts")[0])
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_separate_backbones_learn_from_their_own_modality():
    context, state = state_of("gate", separate_backbones=True)
    only_nir = torch.tensor([[0, 1, 0]] * 8).bool()
    gradients(context, state, inputs_of(batch_of(only_nir)), batch_of(only_nir).identity, (0,))
    moved = {name.split(".")[2] for name in grads(state) if name.startswith("backbone.nets.")}
    assert moved == {"1"}


def test_concatenation_and_a_search_across_modalities_exclude_each_other():
    run = small(dataset="sysu-mm01", model={"fusion": "concat"})
    with pytest.raises(ConfigError, match=r"searches one modality with another, and model\.fusion concat"):
        resolve(run)
    assert resolve(small(dataset="synthetic", model={"fusion": "gate"})).embedding.fusion == "learned"
    with pytest.raises(ConfigError, match=r"without model\.fusion"):
        resolve(small(dataset="synthetic", embedding={"fusion": "learned"}))
