"""A reference checkpoint, read by the public converter, gives the reference's numbers."""

from functools import cache
from pathlib import Path

import golden_cases
import pytest
import torch
from numpy.testing import assert_allclose

from resight.config.sections import Loss
from resight.losses.objective import objective
from resight.models.checkpoint import load_model
from resight.models.convert.convert import convert_checkpoint

load = cache(golden_cases.load)


def difference(a, b) -> float:
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return float((a - b).norm() / b.norm())


def side_info(spec):
    labels = {kind: torch.tensor(spec[kind]) for kind in ("camera", "view")}
    return labels | {"modality": labels["view"]}


def converted(golden, folder: Path, prefix: str = "", **options):
    path = folder / "reference.pth"
    torch.save({prefix + key: value for key, value in golden.state.items()}, path)
    return convert_checkpoint(path, golden.options, **options)


@pytest.mark.parametrize("name", golden_cases.MODELS)
def test_embedding(name, tmp_path):
    golden = load(name)
    converted(golden, tmp_path, prefix="module.").write(tmp_path / "ours")
    model, card = load_model(tmp_path / "ours")
    assert card.preprocessing.size == tuple(golden.spec["size"])
    with torch.inference_mode():
        embedding = model.embed(golden.images, side_info(golden.spec))
    assert difference(embedding, golden.expected["eval_embedding"]) < 1e-5


@pytest.mark.parametrize("name", golden_cases.MODELS)
def test_training_step(name, tmp_path):
    golden = load(name)
    model = converted(golden, tmp_path).model.train()
    identity = torch.from_numpy(golden.expected["labels"])
    out = model(golden.images, side_info(golden.spec), identity)
    for i, (feature, logits) in enumerate(zip(out.features, out.logits, strict=True)):
        assert difference(feature.detach(), golden.expected[f"train_feature_{i}"]) < 1e-5
        assert difference(logits.detach(), golden.expected[f"train_logits_{i}"]) < 1e-5
    loss = objective(out.features, out.logits, identity, Loss())
    assert_allclose(loss.id.item(), golden.expected["id_loss"], rtol=1e-5)
    assert_allclose(loss.triplet.item(), golden.expected["triplet_loss"], rtol=1e-5)
    loss.total.backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    expected = {ours(key, golden): norm for key, norm in golden.spec["grad_norms"].items()}
    for key, norm in expected.items():
        assert_allclose(norms.pop(key), norm, rtol=1e-3, atol=1e-6, err_msg=key)
    assert not norms, "parameters with a gradient that the reference's have not"


def ours(key: str, golden) -> str:
    """The reference's parameter name as ours, written down apart from the converter."""
    if golden.options.get("MODEL.JPM"):
        pairs = {"b1.0": "backbone.blocks.11", "b1.1": "backbone.norm", "b2.0": "backbone.jpm.block"}
        pairs |= {"b2.1": "backbone.jpm.norm"}
        for theirs, mine in pairs.items():
            if key.startswith(theirs + "."):
                return key.replace(theirs, mine, 1)
    if key == "base.sie_embed":
        return "backbone.sie.table"
    name, _, rest = key.partition(".")
    kind, _, branch = name.partition("_")
    modules = {"base": "backbone", "classifier": f"heads.{branch or 0}", "bottleneck": f"necks.{branch or 0}"}
    return f"{modules[kind]}.{rest}"


def test_view_as_modality(tmp_path):
    golden = load("seed_trimodal_view3_224")
    conversion = converted(golden, tmp_path, view_is_modality=True)
    assert conversion.card.vocabulary.modalities == ("rgb", "nir", "tir")
    with torch.inference_mode():
        embedding = conversion.model.embed(golden.images, {"modality": torch.tensor(golden.spec["view"])})
    assert difference(embedding, golden.expected["eval_embedding"]) < 1e-5
