"""The authors' own code against ours: each case of ../shared/golden/weights through the command, and its embeddings."""

import copy

import published_cases
import pytest
import torch
from torch import nn

import resight
from resight.cli import main

OPTIONS = {  # what no key tells; the others are converted without options
    "pass_pretrained_vit_small": ["--size", "384", "128"],
    "transreid_ssl_pretrained_vit_small": ["--size", "384", "128"],
}
TRANSFORMERS = ("clip_reid_vit", "pass", "personvit", "transreid_ssl")
CASES = [name for name in published_cases.NAMES if name.startswith(TRANSFORMERS)]


def difference(a, b) -> float:
    b = torch.from_numpy(b)
    return float((a - b).norm() / b.norm())


def gelu_for_quick_gelu(model):
    for block in model.backbone.blocks:
        block.mlp.act = nn.GELU()


def no_side_information(model):
    model.backbone.sie.table.data.zero_()


def large_epsilon_of_layer_norms(model):
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


MISTAKES = {  # and by what the README says that it changes the embedding
    "clip_reid_vit": (gelu_for_quick_gelu, 1.3e-2),
    "clip_reid_vit_sie_stride12": (no_side_information, 0.46),
    "transreid_ssl_vit_small_ics": (large_epsilon_of_layer_norms, 6e-5),
}


@pytest.mark.slow
@pytest.mark.skipif(not CASES, reason="../shared/golden/weights is not here")
@pytest.mark.parametrize("name", CASES or ["none"])
def test_a_published_model_embeds_as_the_authors_code(name, tmp_path, capsys):
    case = published_cases.load(name)
    file = case.save(tmp_path / "published.pth")
    assert main(["convert", str(file), "--out", str(tmp_path / "model"), *OPTIONS.get(name, ())]) == 0
    assert "assumed: " in capsys.readouterr().out
    embedder = resight.load(tmp_path / "model", "cpu", "fp32")
    assert embedder.card.preprocessing.size == tuple(case.spec["size"])
    for kind in ("mean", "std"):
        assert list(getattr(embedder.card.preprocessing, kind)) == case.spec["preprocessing"][kind]
    embedding = embedder.embed_tensor(case.images, case.side_info, normalize=False)
    assert embedding.shape == case.expected["eval_embedding"].shape
    assert difference(embedding, case.expected["eval_embedding"]) < 1e-5
    if "embedding_after_neck" in case.expected:
        embedder.model.feature = "after"
        embedding = embedder.embed_tensor(case.images, case.side_info, normalize=False)
        assert difference(embedding, case.expected["embedding_after_neck"]) < 1e-5
        embedder.model.feature = "before"
    # A mistake changes it by what it should, within a factor of 2.
    if name in MISTAKES:
        mistake, stated = MISTAKES[name]
        wrong = copy.deepcopy(embedder.model)
        mistake(wrong)
        labels = case.side_info or {"camera": torch.zeros(len(case.images)).long()}
        with torch.inference_mode():
            change = difference(wrong.embed(case.images, labels), case.expected["eval_embedding"])
        assert stated / 2 < change < 2 * stated, change
