"""One model: images of any form, sightings of several modalities, labels known or not, and the id of its embeddings."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture, small_model
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch.nn import functional as F

import resight
from resight.config.sections import Embedding, Model, Preprocessing
from resight.data.augment.augment import normalize
from resight.data.image import decode, resize
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import Vocabulary
from resight.device import resolve_compute
from resight.errors import CheckpointError, ConfigError, PictureError
from resight.files import write_folder
from resight.inference.embedder import Embedder
from resight.models.blocks import fold_and_cast_weights
from resight.models.checkpoint import ModelCard, fill_model_folder, load_model
from resight.models.sie import SIE
from resight.retrieval.calibration import Calibration

CPU = torch.device("cpu")
NAMES = ("rgb", "nir", "tir")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two modalities, fused by `concat`."""
    path = tmp_path_factory.mktemp("model") / "m"
    return small_model(path, modalities=("rgb", "tir"), sie=("camera", "modality"), jpm=True)


@pytest.fixture(scope="module")
def trimodal(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model") / "m", modalities=NAMES, sie=("camera", "modality"), jpm=True)


@pytest.fixture(scope="module")
def embedder(folder):
    """Its embeddings of a picture are those of the network, without places for other modalities."""
    return resight.load(folder, "cpu", "fp32", fusion="mean")


@pytest.fixture
def paths(tmp_path):
    return [picture(tmp_path / f"{n}.png", n, size=(30 + n, 70)) for n in range(5)]


def naive(embedder, path, camera, modality, mirror=False):
    """One picture by itself, float32 [D]; labels by number, or -1."""
    x = resize(decode(path), (64, 32), "bilinear")[None]
    x = normalize(x, embedder.card.preprocessing.mean, embedder.card.preprocessing.std)
    x = x.flip(-1) if mirror else x
    side_info = {"camera": torch.tensor([camera]), "view": torch.tensor([-1]), "modality": torch.tensor([modality])}
    with torch.no_grad():
        return F.normalize(embedder.model.embed(x, side_info))[0]


def copy_model(folder, out, weights=None, **changes) -> Path:
    """A copy of a model folder with other weights, or another section of its card."""
    network, card = load_model(folder)
    state = weights or network.state_dict()
    write_folder(out, lambda path: fill_model_folder(path, state, card.model_copy(update=changes)))
    return out


# Pictures and sightings


def test_pictures_of_any_form_give_the_same(embedder, paths):
    expected = naive(embedder, paths[1], 0, 0).numpy()
    image = Image.open(paths[1]).convert("RGB")
    array = np.array(image)
    forms = [paths[1], str(paths[1]), paths[1].read_bytes(), image, array, torch.from_numpy(array).permute(2, 0, 1)]
    for form in forms:
        embeddings = embedder.embed(form, camera="c1")
        assert (embeddings.shape, embeddings.dtype) == ((1, embedder.width), np.float32)
        assert_allclose(embeddings[0], expected, atol=1e-5)
    assert_allclose(embedder.embed(forms, camera="c1"), np.repeat(expected[None], 6, 0), atol=1e-5)


def test_tensors_of_the_models_size_are_not_prepared_again(embedder, paths, monkeypatch):
    prepared = [resize(decode(path), (64, 32), "bilinear") for path in paths]
    expected = embedder.embed(paths)
    assert_array_equal(embedder.embed([prepared[0], *paths[1:]]), expected)
    with monkeypatch.context() as patch:
        patch.setattr("resight.inference.decoding.resize", None)
        assert_array_equal(embedder.embed(prepared), expected)
    with pytest.raises(PictureError, match="uint8"):
        embedder.embed([prepared[0], prepared[1].double()])


def test_one_picture_is_a_list_of_one_and_a_sighting_of_one_modality(folder, paths):
    for fusion in ("concat", "mean"):
        embedder = resight.load(folder, "cpu", "fp32", fusion=fusion)
        expected = embedder.embed(paths[0])
        assert expected.shape == (1, embedder.width)
        sighting = Sighting({"rgb": paths[0]})
        for form in ([paths[0]], {"rgb": paths[0]}, [{"rgb": paths[0]}], sighting, SightingTable.of([sighting])):
            assert_array_equal(embedder.embed(form), expected)
        for modality in ([None], ["rgb"], "rgb"):
            assert_array_equal(embedder.embed(paths[0], modality=modality), expected)
            assert_array_equal(embedder.embed([paths[0]], modality=modality), expected)


def test_each_picture_has_its_own_labels(embedder, paths):
    embeddings = embedder.embed(
        paths, camera=["c1", "c2", None, "c9", "c2"], modality=["rgb", "tir", "tir", "rgb", None]
    )
    for row, path, camera, modality in zip(embeddings, paths, (0, 1, -1, -1, 1), (0, 1, 1, 0, 0), strict=True):
        assert_allclose(row, naive(embedder, path, camera, modality), atol=1e-5)
    assert embedder.embed([]).shape == (0, embedder.width)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_a_sighting_of_three_modalities_is_one_row(trimodal, paths, fusion, flip):
    embedder = resight.load(trimodal, "cpu", "fp32", flip=flip, fusion=fusion)
    whole = Sighting(dict(zip(NAMES, paths[:3], strict=True)), camera="c2")
    partial = Sighting({"rgb": paths[3], "tir": paths[4]})
    embeddings = embedder.embed([whole, partial])
    width = embedder.model.width
    assert embeddings.shape == (2, embedder.width) == (2, 3 * width if fusion == "concat" else width)
    for row, sighting, camera in zip(embeddings, (whole, partial), (1, -1), strict=True):
        places = torch.zeros(3, width)
        for name, path in sighting.images.items():
            number = NAMES.index(name)
            places[number] = naive(embedder, path, camera, number)
            if flip:
                places[number] = F.normalize(places[number] + naive(embedder, path, camera, number, mirror=True), dim=0)
        expected = F.normalize(places.flatten() if fusion == "concat" else places.sum(0), dim=0)
        assert_allclose(row, expected, atol=1e-5)
    if fusion == "concat":
        assert not embeddings[1, width : 2 * width].any()  # nir is absent
    assert embedder.embed(whole).shape == (1, embedder.width)


def test_a_table_is_embedded_with_its_labels_and_progress(embedder, paths):
    sightings = [Sighting({"rgb": path}, camera=camera) for path, camera in zip(paths, "12121", strict=True)]
    table = SightingTable.of(Sighting(s.images, camera=f"c{s.camera}") for s in sightings)
    counts = []
    small = Embedder(embedder.model, embedder.card, embedder.settings, resolve_compute(CPU, "fp32", batch_size=2))
    embeddings = small.embed(table, progress=counts.append)
    assert counts == [2, 4, 5]
    assert_allclose(embeddings, embedder.embed(paths, camera=["c1", "c2", "c1", "c2", "c1"]), atol=1e-5)


def test_an_unknown_modality_is_one_clear_sentence(folder, tmp_path, paths):
    embedder = resight.load(folder, "cpu", "fp32")
    calls = ((paths[0], "nir"), ({"nir": paths[0]}, None), ([paths[0], Sighting({"nir": paths[0]})], None))
    for images, modality in calls:
        with pytest.raises(ConfigError, match=r"^the model knows no modality 'nir', only rgb, tir$"):
            embedder.embed(images, modality=modality)
    without_rgb = small_model(tmp_path / "m", modalities=("nir", "tir"))
    with pytest.raises(ConfigError, match="name each picture's modality"):
        resight.load(without_rgb, "cpu", "fp32").embed(paths)
    mean = resight.load(without_rgb, "cpu", "fp32", fusion="mean").embed(paths)
    assert_allclose(np.linalg.norm(mean, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3)), "uint8 .h, w, 3. in RGB, or grey .h, w., not float64"),
        (np.zeros((4, 4)), "the array is a float64 picture, and 8 bits are needed"),
        (np.zeros((2, 4, 4, 3), np.uint8), "uint8 .h, w, 3. in RGB"),
        (np.zeros((0, 4, 3), np.uint8), "uint8 .h, w, 3. in RGB"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "uint8 .3, h, w. in RGB"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "uint8 .3, h, w. in RGB"),
        (b"", "is empty"),
        (b"no", "is no picture"),
        (7, "not int"),
        ([None], "not NoneType"),
        ("no.jpg", "no.jpg cannot be read"),
    ],
)
def test_what_is_no_picture_is_named(embedder, bad, message):
    with pytest.raises(PictureError, match=message):
        embedder.embed(bad)


def test_a_file_that_is_no_picture_is_named(embedder, paths, tmp_path):
    (tmp_path / "x.jpg").write_text("no")
    with pytest.raises(PictureError, match=r"x\.jpg is no picture"):
        embedder.embed([*paths, tmp_path / "x.jpg"])
    with pytest.raises(ConfigError, match="2 labels of camera are given for 1 pictures"):
        embedder.embed([paths[0]], camera=["c1", "c2"])


# Side information


def test_an_unknown_camera_is_the_mean_or_nothing(folder, paths):
    mean, off = (resight.load(folder, "cpu", "fp32", unknown=unknown) for unknown in ("mean", "off"))
    assert_allclose(mean.embed(paths, camera="c2"), off.embed(paths, camera="c2"), atol=1e-6)
    without = off.embed(paths)
    assert abs(without - mean.embed(paths)).max() > 1e-3
    table = off.model.backbone.sie.table
    assert_allclose(mean.embed(paths), _with_table(mean, table.view(2, 2, -1).mean(0, keepdim=True), paths), atol=1e-5)
    assert_allclose(without, _with_table(off, torch.zeros(1, 2, table.shape[1]), paths), atol=1e-5)


def _with_table(embedder, rows, paths):
    """Embeddings where both cameras have these rows for the two modalities."""
    table = embedder.model.backbone.sie.table
    before = table.data.clone()
    table.data = rows.expand(2, -1, -1).reshape(table.shape).clone()
    try:
        return embedder.embed(paths, camera="c1")
    finally:
        table.data = before


def test_side_information_can_be_left_out_in_training_at_random():
    torch.manual_seed(0)
    sie = SIE({"camera": 3}, 4, 1.0, dropout=0.3)
    labels = {"camera": torch.arange(3000) % 3}
    rows = sie.train()(labels)[:, 0]
    hidden = (rows - sie.table.mean(0)).abs().amax(1) < 1e-6
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(rows[~hidden], sie.table[labels["camera"]][~hidden])
    torch.testing.assert_close(sie.eval()(labels)[:, 0], sie.table[labels["camera"]])


def test_unknown_labels_are_those_that_side_information_was_not_trained_for(tmp_path):
    sightings = SightingTable.of(
        Sighting({"rgb": Path("a")}, camera=camera, view=view)
        for camera, view in (("c2", "v1"), ("c9", "v8"), (None, None), ("c7", "v1"), ("c9", "v1"))
    )
    embedder = resight.load(small_model(tmp_path / "a"), "cpu", "fp32")
    assert embedder.unknown_labels(sightings) == {"camera": ["c7", "c9"]}  # it has no side information of views
    assert embedder.unknown_labels(sightings.take([0, 2])) == {}
    none = resight.load(small_model(tmp_path / "b", sie=()), "cpu", "fp32")
    settings = {"sie": ("camera", "modality"), "modalities": ("rgb", "tir")}
    one = resight.load(small_model(tmp_path / "c", cameras=("c1",), **settings), "cpu", "fp32")
    assert none.unknown_labels(sightings) == one.unknown_labels(sightings) == {}  # one camera: every answer is the same


# Precision, compilation and memory


def test_mirror_images_are_averaged(folder, embedder, paths):
    mirrored = [np.array(Image.open(p).convert("RGB"))[:, ::-1] for p in paths]
    both = F.normalize(torch.from_numpy(embedder.embed(paths) + embedder.embed(mirrored))).numpy()
    flipped = resight.load(folder, "cpu", "fp32", flip=True, fusion="mean").embed(paths)
    assert_allclose(flipped, both, atol=2e-3)  # mirrored after resizing, not before


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precisions_share_an_id_and_are_near_one_another(folder, embedder, paths, precision):
    low = resight.load(folder, "cpu", precision, fusion="mean")
    assert low.embedding_id == embedder.embedding_id
    embeddings = low.embed(paths)
    assert embeddings.dtype == np.float32
    assert (embeddings * embedder.embed(paths)).sum(1).min() > 0.999
    assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_vit", "vit_small_patch14_dinov2", "resnet50"])
def test_weights_in_sixteen_bits_give_what_autocast_gives(backbone):
    """With layer scales folded into them, where there are some."""
    settings = {} if backbone == "resnet50" else {"jpm": True, "sie": ("camera",)}
    preprocessing = Preprocessing(size=(64, 32) if backbone != "vit_small_patch14_dinov2" else (56, 28))
    torch.manual_seed(0)
    card = ModelCard(
        model=Model(backbone=backbone, **settings),
        preprocessing=preprocessing,
        vocabulary=Vocabulary(("a",), ("c", "d")),
    )
    network = card.build().eval()
    for name, value in network.named_parameters():
        if name.endswith("gamma"):
            value.data.normal_(1, 0.3)
    x, labels = torch.randn(3, 3, *preprocessing.size), torch.tensor([0, 1, -1])
    side_info = {"camera": labels, "view": -torch.ones_like(labels), "modality": torch.zeros_like(labels)}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = network.embed(x, side_info)
        fold_and_cast_weights(network.backbone, torch.bfloat16)
        assert_allclose(network.embed(x, side_info), expected, atol=1e-6)
    assert not [name for name, _ in network.named_parameters() if name.endswith("gamma")]


@pytest.mark.slow
def test_compiled_it_gives_the_same(tmp_path, paths):
    """A network of one block, since the compiler takes seconds for each kernel.

    A batch of 3 is filled up to 4, the only size that is compiled.
    """
    folder = small_model(tmp_path / "m", sie=())
    compiled, exact = resight.load(folder, "cpu", "bf16", compile=True), resight.load(folder, "cpu", "fp32")
    for embedder in (compiled, exact):
        del embedder.model.backbone.blocks[:-1]
    labels = ["c1", None, "c2"]
    embeddings = compiled.embed(paths[:3], camera=labels)
    assert (embeddings * exact.embed(paths[:3], camera=labels)).sum(1).min() > 0.999
    assert_allclose(compiled.embed(paths[:3], camera=labels), embeddings, atol=1e-6)
    assert embeddings.shape == (3, exact.width)


def test_more_pictures_than_a_batch_and_a_device_without_memory(folder, paths, monkeypatch):
    embedder = resight.load(folder, "cpu", "fp32")
    many = [paths[n % 5] for n in range(70)]
    expected = embedder.embed(paths)[np.arange(70) % 5]
    assert_allclose(embedder.embed(many), expected, atol=1e-5)
    network, sizes = embedder.model.embed, []

    def small(x, side_info):
        if len(x) > 9:
            raise torch.OutOfMemoryError("no more")
        sizes.append(len(x))
        return network(x, side_info)

    monkeypatch.setattr(embedder, "_network", small)
    assert_allclose(embedder.embed(many), expected, atol=1e-5)
    assert embedder.batch_size == 8
    sizes.clear()
    assert_allclose(embedder.embed(many), expected, atol=1e-5)
    assert sizes == [8] * 8 + [6]  # without a second failure
    monkeypatch.setattr(embedder, "_network", lambda x, side_info: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(torch.OutOfMemoryError):
        embedder.embed(paths)


# Settings, and the id of embeddings


def test_settings_are_those_of_the_card_unless_others_are_given(folder, paths, tmp_path):
    section = Embedding(precision="fp32", flip=True, fusion="mean", unknown="off", batch_size=3)
    card = copy_model(folder, tmp_path / "m", embedding=section)
    embedder = resight.load(card, "cpu")
    assert (embedder.settings, embedder.fusion, embedder.batch_size) == (section, "mean", 3)
    given = resight.load(folder, "cpu", "fp32", flip=True, fusion="mean", unknown="off", batch_size=3)
    assert embedder.embedding_id == given.embedding_id
    assert_array_equal(embedder.embed(paths), given.embed(paths))
    plain = resight.load(card, "cpu", flip=False, fusion="concat", unknown="mean", batch_size=32)
    assert plain.embedding_id == resight.load(folder, "cpu", "fp32").embedding_id
    assert_array_equal(plain.embed(paths), resight.load(folder, "cpu", "fp32").embed(paths))


@pytest.mark.parametrize(
    "options",
    [{"flip": True}, {"fusion": "mean"}, {"unknown": "off"}],
)
def test_the_id_changes_with_every_setting_that_changes_a_vector(folder, options):
    plain = resight.load(folder, "cpu", "fp32").embedding_id
    assert resight.load(folder, "cpu", "fp32", **options).embedding_id != plain


@pytest.mark.parametrize(
    "options",
    [{"precision": "bf16"}, {"precision": "auto"}, {"batch_size": 2}, {"fusion": "concat"}, {"compile": True}],
)
def test_the_id_stays_with_every_other_setting(folder, options):
    embedder = resight.load(folder, "cpu", "fp32")
    assert len(embedder.embedding_id) == 16
    assert int(embedder.embedding_id, 16) >= 0
    assert resight.load(folder, "cpu", **{"precision": "fp32", **options}).embedding_id == embedder.embedding_id


def test_the_id_changes_with_weights_and_preprocessing(folder, tmp_path):
    ids = [resight.load(folder).embedding_id]
    assert resight.load(shutil.copytree(folder, tmp_path / "copy")).embedding_id == ids[0]
    network, card = load_model(folder)
    changes = {"mean": (0.5, 0.5, 0.4), "std": (0.5, 0.5, 0.4), "test_interpolation": "bicubic"}
    for name, value in changes.items():
        preprocessing = card.preprocessing.model_copy(update={name: value})
        ids.append(resight.load(copy_model(folder, tmp_path / name, preprocessing=preprocessing)).embedding_id)
    weights = network.state_dict()
    weights["backbone.cls_token"] = weights["backbone.cls_token"] + 1e-6
    ids.append(resight.load(copy_model(folder, tmp_path / "weights", weights=weights)).embedding_id)
    cameras = Vocabulary(card.vocabulary.identities, ("c2", "c1"), (), card.vocabulary.modalities)
    ids.append(resight.load(copy_model(folder, tmp_path / "cameras", vocabulary=cameras)).embedding_id)
    assert len(set(ids)) == len(ids)
    preprocessing = card.preprocessing.model_copy(update={"train_interpolation": "bilinear"})
    in_training = copy_model(folder, tmp_path / "training", preprocessing=preprocessing)
    assert resight.load(in_training).embedding_id == ids[0]


def test_a_live_model_has_the_id_of_its_folder(folder):
    network, card = load_model(folder)
    card = card.model_copy(update={"weights_sha256": None})
    assert Embedder(network, card).embedding_id == resight.load(folder, "cpu", "bf16").embedding_id
    network.backbone.cls_token.data += 1e-3
    assert Embedder(network, card).embedding_id != resight.load(folder).embedding_id


def test_a_calibration_is_used_for_its_embeddings_alone(folder):
    def calibration(embedding_id):
        return Calibration(
            slope=1, offset=0, similarity=(-1.0, 1.0), probability=(0.1, 0.9), threshold=0, false_match_rate=0.1,
            true_match_rate=1, dataset="x", embedding_id=embedding_id, same=1, different=1,
        )  # fmt: skip

    network, card = load_model(folder)
    assert Embedder(network, card).calibration_for_use() is None
    own, other = calibration(Embedder(network, card).embedding_id), calibration("0" * 16)
    assert Embedder(network, card, calibration=own).calibration_for_use() is own
    assert Embedder(network, card, calibration=calibration(None)).calibration_for_use() is not None
    with pytest.raises(ConfigError, match="calibration is of embeddings 0000000000000000"):
        Embedder(network, card, calibration=other).calibration_for_use()
    with pytest.raises(ConfigError, match="run resight calibrate"):
        Embedder(network, card, Embedding(flip=True), calibration=own).calibration_for_use()


# The model is left as it is


def test_an_embedder_does_not_change_the_model_that_it_wraps(folder, paths):
    network, card = load_model(folder)
    network.train()
    network.backbone.norm.eval()  # a part that is frozen
    modes = {name: module.training for name, module in network.named_modules()}
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [value.requires_grad for value in network.parameters()]
    sie = network.backbone.sie
    embedder = Embedder(network, card, Embedding(precision="bf16", unknown="off", flip=True))
    random = torch.get_rng_state()
    embeddings = embedder.embed(paths)
    assert embedder.embedding_id
    with pytest.raises(PictureError):
        embedder.embed([*paths, b"no"])
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert sie.unknown == "mean"
    assert network.state_dict().keys() == weights.keys()
    for name, value in network.state_dict().items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name])
    assert torch.equal(torch.get_rng_state(), random)
    assert [value.requires_grad for value in network.parameters()] == trained
    assert all(value.grad is None for value in network.parameters())
    off = resight.load(folder, "cpu", "bf16", unknown="off", flip=True)
    assert (embeddings * off.embed(paths)).sum(1).min() > 0.999  # in evaluation mode, without side information


def test_a_loaded_model_has_the_answer_of_its_settings_for_good(folder, paths):
    """Threads that embed at the same time do not take it from one another."""
    embedder = resight.load(folder, "cpu", "fp32", unknown="off")
    expected = embedder.embed(paths)
    with embedder.evaluation_mode():
        pass
    assert embedder.model.backbone.sie.unknown == "off"
    assert_array_equal(embedder.embed(paths), expected)


def test_a_row_of_preprocessed_images(embedder, paths):
    x = normalize(resize(decode(paths[0]), (64, 32), "bilinear")[None], (0.5,) * 3, (0.5,) * 3)
    row = embedder.embed_tensor(x)
    assert_allclose(row, embedder.embed(paths[0]), atol=1e-6)
    raw = embedder.embed_tensor(x, normalize=False)
    assert_allclose(F.normalize(raw), row, atol=1e-6)
    assert abs(float(raw.norm()) - 1) > 0.01


def test_a_folder_that_is_no_model_and_a_device_that_is_not_there(folder, tmp_path):
    with pytest.raises(CheckpointError, match="is no model folder"):
        resight.load(tmp_path)
    absent = "cuda:77"
    with pytest.raises(ConfigError, match=f"no device '{absent}'"):
        resight.load(folder, absent)
