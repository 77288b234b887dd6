"""Explanations: the attention from queries and keys, the similarity of patches, and what is refused."""

import numpy as np
import pytest
import torch
from conftest import picture, small_model, varied_model

import resight
from resight.data.image import decode, resize
from resight.errors import ConfigError
from resight.inference.embedder import Embedder
from resight.inference.explain import Explanation, explain
from resight.inference.similarity import Similarity


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return picture(folder / "a.jpg", 0, 0), picture(folder / "b.jpg", 0, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return resight.load(varied_model(tmp_path_factory.mktemp("model") / "m"), "cpu", "fp32")


def tokens_of(model, file, camera):
    """The tokens that enter the last block, [T, D], computed without the code under test."""
    image = resize(decode(file), model.card.preprocessing.size, model.card.preprocessing.test_interpolation)[None]
    image = (image / 255 - 0.5) / torch.tensor(model.card.preprocessing.std).view(1, 3, 1, 1)
    labels = {"camera": torch.tensor([model.card.vocabulary.cameras.index(camera)])}
    with torch.no_grad():
        x = model.model.backbone.tokens(image, labels)
        for block in model.model.backbone.blocks[:-1]:
            x = block(x)
    return x[0]


def naive_attention(block, tokens):
    """Softmax of the class token's query with every key, head by head; the mean over heads, of the patches alone."""
    x = block.norm1(tokens)
    q, k, _ = (x @ block.attn.qkv.weight.T + block.attn.qkv.bias).chunk(3, 1)
    heads, width = block.attn.split.heads, block.attn.split.width
    rows = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        rows.append(torch.softmax(q[0, part] @ k[:, part].T * width**-0.5, 0))
    mean = torch.stack(rows).mean(0)[1:]
    return (mean / mean.sum()).detach().numpy()


def test_attention_and_similarity_are_those_of_naive_loops(model, files):
    result = explain(model, *files, cameras=("c1", "c2"))
    tokens = [tokens_of(model, file, camera) for file, camera in zip(files, ("c1", "c2"), strict=True)]
    for attention, of_picture in zip(result.attention, tokens, strict=True):
        assert attention.shape == (4, 2)
        assert attention.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(
            attention.ravel(), naive_attention(model.model.backbone.blocks[-1], of_picture), atol=1e-5
        )
    patches = [of_picture[1:].detach().double().numpy() for of_picture in tokens]
    total = 0.0
    for i, p in enumerate(patches[0] - patches[0].mean(0)):
        for j, q in enumerate(patches[1] - patches[1].mean(0)):
            cosine = p @ q / np.linalg.norm(p) / np.linalg.norm(q)
            assert result.similarities[i, j] == pytest.approx(cosine, abs=1e-4)
            total += result.attention[0].ravel()[i] * result.attention[1].ravel()[j] * cosine
    assert result.patch_similarity == pytest.approx(total, abs=1e-5)
    for shown in result.maps:
        assert shown.shape == (4, 2)
        assert shown.sum() == pytest.approx(result.patch_similarity, abs=1e-6)


def test_the_comparison_is_that_of_the_embeddings_and_the_model_is_as_before(model, files):
    before = model.embed(list(files), camera=["c1", "c2"])
    result = explain(model, *files, cameras=("c1", "c2"))
    assert result.comparison.similarity == pytest.approx(float(before[0] @ before[1]), abs=1e-5)
    assert not model.model.backbone.blocks[-1].attn.explicit
    assert not model.model.backbone.blocks[-1].attn.weights._forward_hooks
    np.testing.assert_array_equal(model.embed(list(files), camera=["c1", "c2"]), before)


def test_half_precision_explains_the_same(model, files):
    half = resight.load(model.folder, "cpu", "bf16")
    full, rounded = (explain(embedder, *files, cameras=("c1", "c2")) for embedder in (model, half))
    for attention, other in zip(full.attention, rounded.attention, strict=True):
        assert other.dtype == np.float32
        np.testing.assert_allclose(attention, other, atol=0.02)
    np.testing.assert_allclose(full.similarities, rounded.similarities, atol=0.05)


def test_a_picture_resembles_itself_patch_by_patch(model, files):
    result = explain(model, files[0], files[0])
    np.testing.assert_allclose(np.diag(result.similarities), 1, atol=1e-4)
    np.testing.assert_allclose(*result.attention, atol=1e-5)
    first = result.pairs(1)[0]
    assert first.first == first.second


def test_pairs_are_the_largest_terms_and_do_not_overlap():
    generator = np.random.default_rng(0)
    attention = tuple(generator.dirichlet(np.ones(24)).reshape(6, 4).astype(np.float32) for _ in range(2))
    similarities = generator.uniform(-1, 1, (24, 24)).astype(np.float32)
    result = Explanation(Similarity(0.5, None, None), attention, similarities)
    pairs = result.pairs(20)
    terms = [pair.contribution for pair in pairs]
    assert terms == sorted(terms, reverse=True)
    assert terms[0] == pytest.approx(float(result.contributions.max()))
    assert terms[-1] >= 0.1 * terms[0]
    assert len(pairs) > 2
    for n, pair in enumerate(pairs):
        (i, j), (k, m) = pair.first, pair.second
        assert pair.similarity == similarities[4 * i + j, 4 * k + m]
        assert pair.contribution == pytest.approx(attention[0][i, j] * attention[1][k, m] * pair.similarity)
        for other in pairs[:n]:
            assert max(np.abs(np.subtract(pair.first, other.first))) > 1
            assert max(np.abs(np.subtract(pair.second, other.second))) > 1
    assert Explanation(result.comparison, attention, -np.abs(similarities)).pairs() == []


@pytest.mark.parametrize(
    "settings",
    [{"sie": (), "pooling": "mean"}, {"part_tokens": 2, "sie": ()}, {"jpm": True, "jpm_parts": 2, "jpm_groups": 2},
     {"backbone": "eva02_tiny_patch14_224", "sie": ()}],
    ids=["mean pooling", "part tokens", "jpm", "rotary positions"],
)  # fmt: skip
def test_other_transformers(tmp_path, files, settings):
    result = explain(resight.load(small_model(tmp_path / "m", **settings), "cpu", "fp32"), *files)
    rows, columns = result.attention[0].shape
    assert result.similarities.shape == (rows * columns, rows * columns)
    assert [float(attention.sum()) for attention in result.attention] == pytest.approx([1, 1], abs=1e-5)
    assert all((attention > 0).all() for attention in result.attention)


def test_each_picture_passes_the_backbone_of_its_modality(tmp_path, files):
    before = resight.load(small_model(tmp_path / "m", modalities=("rgb", "nir"), sie=()), "cpu", "fp32")
    card = before.card.model_copy(update={"model": before.card.model.changed(separate_backbones=True)})
    network = card.build()
    network.backbone.nets[1].blocks[-1].attn.qkv.weight.data.mul_(40)
    rgb, nir = explain(
        Embedder(network, card, digest=before.card.weights_sha256), files[0], files[0], modalities=("rgb", "nir")
    ).attention
    again = explain(
        Embedder(network, card, digest=before.card.weights_sha256), files[0], files[0], modalities=("rgb", "rgb")
    ).attention
    np.testing.assert_array_equal(rgb, again[1])
    assert np.abs(rgb - nir).max() > 0.01


def test_what_cannot_be_explained_is_one_sentence(tmp_path, model, files):
    network = resight.load(small_model(tmp_path / "cnn", backbone="resnet50", sie=()), "cpu", "fp32")
    with pytest.raises(ConfigError, match="backbone resnet50 has no class token or patch tokens"):
        explain(network, *files)
    both = {"rgb": files[0], "nir": files[1]}
    several = resight.load(small_model(tmp_path / "two", modalities=("rgb", "nir")), "cpu", "fp32")
    with pytest.raises(ConfigError, match="two pictures of one modality each"):
        explain(several, both, files[0])
    with pytest.raises(ConfigError, match="prior probability must lie between"):
        explain(model, *files, prior=2)
