"""Sightings with missing modalities through a network that fuses them: embedding, extraction, export, gallery."""

import numpy as np
import pytest
import torch
from conftest import picture
from inference_helpers import card_of, sensitive_model, short_embedder
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as F

import resight
from resight.cli import main
from resight.data.image import decode, resize
from resight.data.sightings import Sighting, SightingTable
from resight.data.subsets import all_subsets
from resight.errors import ConfigError
from resight.inference import runtime
from resight.inference.embedder import Embedder
from resight.inference.embeddings import read_embeddings
from resight.inference.export import export

MODALITIES = ("rgb", "nir", "tir")
CARD = {"modalities": MODALITIES, "sie": ("modality",)}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Four objects, in three pictures each of another size than the model's."""
    folder = tmp_path_factory.mktemp("files")
    return {
        f"o{n}": {m: picture(folder / m / f"o{n}.png", 3 * n + k, k, (48, 80)) for k, m in enumerate(MODALITIES)}
        for n in range(4)
    }


@pytest.fixture(scope="module")
def sightings(files) -> list[Sighting]:
    """Every subset of modalities twice, of the four objects in turn."""
    subsets = all_subsets(MODALITIES) * 2
    return [
        Sighting({m: files[f"o{n % 4}"][m] for m in subset.split("+")}, identity=f"o{n % 4}", camera=f"c{1 + n // 7}")
        for n, subset in enumerate(subsets)
    ]


def embedder_of(kind: str, **settings) -> Embedder:
    embedder = short_embedder(card_of(**CARD, fusion=kind, **settings))
    generator = torch.Generator().manual_seed(1)
    for parameter in embedder.model.fusion.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    for neck in embedder.model.necks:
        neck.running_mean.normal_(generator=generator)
        neck.running_var.uniform_(0.5, 2, generator=generator)
    return embedder


def naive_embedding(embedder: Embedder, sighting: Sighting) -> np.ndarray:
    """One sighting by itself, through the network's own modules."""
    known = embedder.card.vocabulary.modalities
    names = [name for name in known if name in sighting.images]
    size = embedder.card.preprocessing.size
    pixels = torch.stack([resize(decode(sighting.images[name]), size, "bilinear") for name in names])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (embedder.card.preprocessing.mean, (0.5, 0.5, 0.5)))
    modality = torch.tensor([known.index(name) for name in names])
    unknown = torch.full((len(names),), -1)
    rows = torch.tensor([[names.index(name) if name in names else -1 for name in known]])
    with torch.inference_mode(), embedder.evaluation_mode():
        side_info = {"camera": unknown, "view": unknown, "modality": modality}
        features, tokens = embedder.model.backbone.features_and_tokens((pixels / 255 - mean) / std, side_info)
        fused = embedder.model.fusion(features, tokens, rows)
        vectors = fused.features
        if embedder.card.model.feature == "after":
            vectors = [torch.zeros_like(vector) for vector in vectors]
            for branch, neck in enumerate(embedder.model.necks):
                for m in range(len(known)):
                    centered = fused.images[branch][0, m] - neck.running_mean[m]
                    scaled = centered / (neck.running_var[m] + 1e-5).sqrt() * neck.weight[m]
                    vectors[branch] += fused.weights[0, m] * scaled
        return F.normalize(embedder.model.backbone.combine(vectors))[0].numpy()


@pytest.mark.parametrize(
    ("kind", "jpm", "feature"),
    [("mean", False, "after"), ("gate", True, "before"), ("attention", True, "before"), ("attention", True, "after")],
)
def test_a_sighting_is_embedded_by_itself_whatever_else_is_in_the_batch(kind, jpm, feature, sightings):
    embedder = embedder_of(kind, jpm=jpm, feature=feature)
    vectors = embedder.embed(sightings)
    assert vectors.shape == (14, embedder.model.width)
    assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for number in (0, 2, 3, 5, 6, 13):
        assert_allclose(vectors[number], naive_embedding(embedder, sightings[number]), atol=2e-6)
    assert_allclose(embedder.embed(sightings[::-1])[::-1], vectors, atol=2e-6)
    embedder.batch_size = 4
    assert_allclose(embedder.embed(sightings), vectors, atol=2e-6)


@pytest.mark.parametrize("kind", ["mean", "gate", "attention"])
def test_one_modality_equals_that_modalitys_own_path(kind, files):
    embedder = embedder_of(kind, jpm=True)
    for modality in MODALITIES:
        image = files["o1"][modality]
        alone = embedder.embed(Sighting({modality: image}))
        assert_array_equal(alone, embedder.embed(image, modality=modality))
        pixels = resize(decode(image), embedder.card.preprocessing.size, "bilinear")[None]
        mean, std = embedder.card.preprocessing.mean, embedder.card.preprocessing.std
        normalized = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        unknown, number = torch.full((1,), -1), torch.tensor([MODALITIES.index(modality)])
        image_path = embedder.embed_tensor(normalized, {"camera": unknown, "view": unknown, "modality": number})
        assert_allclose(alone, image_path, atol=1e-6)


def test_what_is_missing_does_not_pass_the_backbone(sightings):
    embedder = embedder_of("attention")
    passed = []
    hook = embedder.model.backbone.patch_embed.register_forward_hook(lambda module, x, y: passed.append(len(x[0])))
    embedder.embed(sightings)
    hook.remove()
    assert sum(passed) == sum(len(sighting.images) for sighting in sightings)


def test_a_batch_that_does_not_fit_is_halved_between_sightings(sightings, monkeypatch):
    embedder = embedder_of("gate")
    expected = embedder.embed(sightings)
    inner = embedder._network

    def limited(images, side_info, rows):
        if len(images) > 7:
            raise torch.OutOfMemoryError("too many")
        return inner(images, side_info, rows)

    monkeypatch.setattr(embedder, "_network", limited)
    assert_allclose(embedder.embed(sightings), expected, atol=2e-6)
    assert embedder.batch_size < 24


@pytest.mark.parametrize("feature", ["before", "after"])
def test_a_concatenation_has_zeros_for_what_is_missing(feature, sightings):
    embedder = embedder_of("concat", feature=feature, jpm=False)
    vectors = embedder.embed(sightings)
    known, width = embedder.card.vocabulary.modalities, embedder.model.width
    assert vectors.shape == (14, 3 * width)
    for vector, sighting in zip(vectors, sightings, strict=True):
        parts = vector.reshape(3, width)
        assert [bool(part.any()) for part in parts] == [name in sighting.images for name in known]
        if len(sighting.images) == 1:  # exactly the vector of that image
            image = embedder.model
            name = next(iter(sighting.images))
            alone = Embedder(image, embedder.card, embedder.settings.changed(fusion="mean")).embed(sighting)
            assert_allclose(parts[known.index(name)], alone[0], atol=2e-6)
    assert embedder.concatenates
    assert not embedder_of("gate").concatenates


def test_modalities_the_model_does_not_know_are_named(files):
    embedder = embedder_of("mean")
    with pytest.raises(ConfigError, match="the model knows no modality 'depth', only rgb, nir, tir"):
        embedder.embed(Sighting({"depth": files["o0"]["rgb"]}))
    with pytest.raises(ConfigError, match="sighting 0 has no picture"):
        embedder.embed({})
    with pytest.raises(ConfigError, match=r"trained without model\.fusion"):
        Embedder(short_embedder(card_of(**CARD)).model, card_of(**CARD), card_of().embedding.changed(fusion="learned"))


@pytest.mark.parametrize(("kind", "to"), [("attention", "onnx"), ("gate", "openvino"), ("concat", "onnx")])
def test_one_graph_embeds_every_subset_as_the_model_does(kind, to, sightings, files, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    embedder = embedder_of(kind)
    images = [path for images in files.values() for path in images.values()]
    exported = export(embedder, tmp_path / "x", to, images)
    assert exported.cosine > 0.9999
    model = runtime.load(exported.folder)
    assert model.width == embedder.width
    products = (model.embed(sightings) * embedder.embed(sightings)).sum(1)
    # Every subset twice, in one batch. Files are resized by two libraries, and this network enlarges what that changes.
    assert products.min() > 0.999
    assert (model.embed(sightings[:1]) * embedder.embed(sightings[:1])).sum() > 0.999
    assert model.embedding_id == embedder.embedding_id
    opened = resight.load(exported.folder)
    assert opened.concatenates == embedder.concatenates == (kind == "concat")
    assert_allclose(opened.embed(sightings), embedder.embed(sightings), atol=1e-5)  # images resized by one library


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return sensitive_model(tmp_path_factory.mktemp("model") / "m", card_of(**CARD, fusion="gate"))


def test_extraction_has_a_row_for_each_sighting(model_folder, sightings, tmp_path):
    table = SightingTable.of(sightings)
    table.write(tmp_path / "t.csv")
    resight.extract(model_folder, [tmp_path / "t.csv"], tmp_path / "e.parquet")
    stored = read_embeddings(tmp_path / "e.parquet")[0]
    embedder = resight.load(model_folder)
    assert stored.info.fusion == "learned"
    assert stored.info.embedding_id == embedder.embedding_id
    assert_allclose(stored.vectors, embedder.embed(table), atol=1e-3)
    assert [set(s.images) for s in stored.sightings] == [set(s.images) for s in sightings]


def test_a_gallery_of_sightings_is_searched_and_clustered_with_any_subset(
    model_folder, files, sightings, tmp_path, capsys
):
    embedder = resight.load(model_folder, precision="fp32")
    with resight.create_gallery(str(tmp_path / "g"), embedder) as gallery:
        report = gallery.ingest(SightingTable.of(sightings))
        assert report.added == 14
        answers = gallery.search([{"rgb": files["o0"]["rgb"], "tir": files["o0"]["tir"]}, sightings[6]], k=14)
        for row, query in zip(answers, ({"rgb", "tir"}, {"rgb", "nir", "tir"}), strict=True):
            best = row[0]
            assert best.similarity == pytest.approx(1, abs=1e-4)
            assert set(best.record.images) == query
            assert len({answer.record.id for answer in row}) == 14
        clustering = gallery.cluster(threshold=0.99, include_named=True)
        assert sum(clustering.sizes) == 14
        gallery.assign([answers[0][0].record.id], "mine")
    images = [f"rgb={files['o0']['rgb']}", f"tir={files['o0']['tir']}"]
    assert main(["gallery", "search", str(tmp_path / "g"), "--image", *images, "--k", "1"]) == 0
    printed = capsys.readouterr().out
    assert "mine" in printed
    assert "1.0000" in printed
    strip = ["--rank-strip", str(tmp_path / "strip.png")]
    assert main(["gallery", "search", str(tmp_path / "g"), "--image", *images, *strip]) == 0
    assert (tmp_path / "strip.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image", "rgb"], "--image is MODALITY=FILE, such as tir=b.png, not 'rgb'"),
        (["--image", "rgb=a.jpg", "rgb=b.jpg"], "--image has the modality rgb twice"),
        (["--image", "depth=a.jpg"], "the model knows no modality 'depth', only rgb, nir, tir"),
        (["--image", "rgb=a.jpg", "--query-modality", "tir"], "leave --query-modality out"),
        (["b.jpg", "--image", "rgb=a.jpg"], "give query images, or --image of one sighting, or --id"),
    ],
)
def test_a_wrong_query_of_one_sighting_is_one_sentence(words, said, model_folder, tmp_path, capsys):
    with resight.create_gallery(str(tmp_path / "g"), resight.load(model_folder)):
        pass
    assert main(["gallery", "search", str(tmp_path / "g"), *words]) == 2
    assert said in capsys.readouterr().err
