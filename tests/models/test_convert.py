"""Reference checkpoints through `resight convert`, and what must be refused."""

import pickle

import golden_cases
import pytest
import torch
from conftest import picture
from timm.layers.drop import DropPath

from resight import convert_checkpoint, load, read_dataset
from resight.cli import main
from resight.config.optimization import Optimizer
from resight.config.sections import Model, Preprocessing
from resight.data.vocabulary import Vocabulary
from resight.errors import ConfigError
from resight.files import write_folder
from resight.models.checkpoint import ModelCard, fill_model_folder, load_model
from resight.models.convert.options import read_options
from resight.training.optimizer import parameter_groups


def refused(capsys, *arguments) -> str:
    """Runs a command that must be refused; returns its one sentence."""
    assert main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("resight: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture
def reference(tmp_path):
    """A small reference checkpoint and its options."""
    golden = golden_cases.load("deit_small_baseline")
    torch.save(golden.state, tmp_path / "reference.pth")
    options = [f"{name}={value}" for name, value in golden.options.items()]
    return tmp_path / "reference.pth", options


def test_the_command_writes_a_model_folder(reference, tmp_path, capsys):
    checkpoint, options = reference
    assert main(["convert", str(checkpoint), "--out", str(tmp_path / "ours"), "--options", *options]) == 0
    out = capsys.readouterr().out
    assert "left out base.fc.weight: ImageNet's classifier" in out
    model, card = load_model(tmp_path / "ours")
    assert card.vocabulary.cameras == tuple(str(i) for i in range(1, 16))
    assert not model.training
    before = (tmp_path / "ours" / "config.json").read_text()
    assert "is not written over" in refused(
        capsys, "convert", checkpoint, "--out", tmp_path / "ours", "--options", *options
    )
    assert (tmp_path / "ours" / "config.json").read_text() == before


def test_options_of_the_yaml_and_weights_that_do_not_fit(reference, tmp_path, capsys):
    checkpoint, _ = reference
    yaml = tmp_path / "r.yml"
    yaml.write_text(
        "MODEL:\n  TRANSFORMER_TYPE: 'deit_small_patch16_224_TransReID'\n  SIE_CAMERA: True\n  STRIDE_SIZE: [16, 16]\n"
        "INPUT:\n  SIZE_TRAIN: [256, 128]\nOUTPUT_DIR: 'x'\n"
    )
    out = ["--out", tmp_path / "ours"]
    assert main(["convert", str(checkpoint), "--config", str(yaml), *map(str, out)]) == 0
    wide = ["--config", yaml, "--options", "MODEL.TRANSFORMER_TYPE=vit_base_patch16_224_TransReID"]
    says = refused(capsys, "convert", checkpoint, *wide, "--out", tmp_path / "wide")
    assert "does not fit the model; of another shape: backbone" in says
    assert "is [1, 1, 384] instead of [1, 1, 768]" in says
    assert "the file looks like TransReID without JPM and MODEL.TRANSFORMER_TYPE=deit_small_patch16_224" in says
    jpm = ["--config", yaml, "--options", "MODEL.JPM=True"]
    says = refused(capsys, "convert", checkpoint, *jpm, "--out", tmp_path / "jpm")
    assert "MODEL.JPM is True, and the checkpoint has no branches of JPM" in says
    assert not (tmp_path / "wide").exists()
    out = ["--out", tmp_path / "other"]
    assert "--gem is not used with the reference's options" in refused(
        capsys, "convert", checkpoint, "--config", yaml, "--gem", *out
    )
    assert "is not one of vit_base" in refused(
        capsys, "convert", checkpoint, "--options", "MODEL.TRANSFORMER_TYPE=swin", *out
    )


class Bomb:
    def __reduce__(self):
        return (print, ("boom: code in a pickle was run",))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, capsys):
    with (tmp_path / "bomb.pth").open("wb") as file:
        pickle.dump({"classifier.weight": Bomb()}, file)
    torch.save({"classifier.weight": Bomb()}, tmp_path / "bomb2.pth")
    for name in ("bomb.pth", "bomb2.pth"):
        command = ["convert", tmp_path / name, "--options", "MODEL.JPM=True", "--out", tmp_path / "ours"]
        assert main([str(a) for a in command]) == 2
        captured = capsys.readouterr()
        assert "could run code" in captured.err
        assert "boom" not in captured.out + captured.err
    (tmp_path / "noise.pth").write_bytes(b"\x00\x01nothing")
    says = refused(capsys, "convert", tmp_path / "noise.pth", "--options", "MODEL.JPM=True", "--out", tmp_path / "ours")
    assert "noise.pth" in says


def with_side_info(reference, folder, rows):
    """The reference checkpoint with an SIE of so many rows."""
    state = torch.load(reference[0], weights_only=True)
    state["base.sie_embed"] = torch.randn(rows, 1, 384)
    torch.save(state, folder / "other.pth")
    return folder / "other.pth"


SMALL = {"MODEL.TRANSFORMER_TYPE": "deit_small_patch16_224_TransReID", "MODEL.SIE_CAMERA": True}


@pytest.mark.parametrize(
    ("names", "dataset", "rows", "first", "last"),
    [
        ("market1501", None, 6, "market1501:1", "market1501:6"),
        ("('dukemtmc')", None, 8, "dukemtmc:1", "dukemtmc:8"),
        ("occ_duke", None, 8, "dukemtmc:1", "dukemtmc:8"),
        ("msmt17", None, 15, "msmt17:1", "msmt17:15"),
        ("veri", None, 20, "veri776:001", "veri776:020"),
        ("something", None, 6, "1", "6"),
        (None, None, 6, "1", "6"),
        ("market1501", "dukemtmc", 8, "dukemtmc:1", "dukemtmc:8"),
        (None, "occluded-duke", 8, "dukemtmc:1", "dukemtmc:8"),
        (None, "own", 3, "1", "3"),
    ],
)
def test_cameras_are_named_after_the_data_set(reference, tmp_path, names, dataset, rows, first, last):
    checkpoint = with_side_info(reference, tmp_path, rows)
    options = SMALL if names is None else SMALL | {"DATASETS.NAMES": names}
    cameras = convert_checkpoint(checkpoint, options, dataset=dataset).card.vocabulary.cameras
    assert (len(cameras), cameras[0], cameras[-1]) == (rows, first, last)


def test_a_data_set_that_is_not_in_the_catalog_is_refused(reference, tmp_path):
    with pytest.raises(ConfigError, match="no data set named 'market'; known are: market1501"):
        convert_checkpoint(reference[0], SMALL, dataset="market")


def test_cameras_and_views_of_veri_are_those_of_the_reader(reference, tmp_path):
    checkpoint = with_side_info(reference, tmp_path, 20 * 8)
    options = SMALL | {"MODEL.SIE_VIEW": True, "DATASETS.NAMES": "veri"}
    known = convert_checkpoint(checkpoint, options, cameras=20).card.vocabulary
    assert (len(known.cameras), len(known.views)) == (20, 8)
    for folder in ("image_train", "image_query", "image_test"):
        for camera in (1, 20):
            picture(tmp_path / folder / f"0030_c{camera:03d}_00049745_0.jpg")
    rows = (f"/VeRi\\image_test/0030_c{camera:03d}_00049745_0.jpg 1 -1 {view}\n" for camera, view in ((1, 0), (20, 7)))
    (tmp_path / "keypoint_train.txt").write_text("".join(rows))
    query = read_dataset("veri776", tmp_path).query
    assert [known.cameras.index(camera) for camera in query.column("camera")] == [0, 19]
    assert [known.views.index(view) for view in query.column("view")] == [0, 7]
    with pytest.raises(ConfigError, match="give the number of cameras with --cameras"):
        convert_checkpoint(checkpoint, options, cameras=7)


def test_a_converted_market_model_knows_the_cameras_of_market(reference, market, tmp_path, capsys):
    command = ["convert", str(with_side_info(reference, tmp_path, 6)), "--out", str(tmp_path / "ours"), "--options"]
    assert main([*command, *reference[1], "DATASETS.NAMES=market1501"]) == 0
    assert "cameras are named market1501:1 to market1501:6" in capsys.readouterr().out
    embedder = load(tmp_path / "ours", "cpu")
    assert embedder.unknown_labels(read_dataset("market1501", market).query) == {}
    with_camera, without = (embedder.embed(picture(tmp_path / "a.jpg"), camera=c) for c in ("market1501:6", None))
    assert abs(with_camera - without).max() > 1e-3


def test_the_yaml_is_flattened_to_the_references_names(tmp_path):
    (tmp_path / "r.yml").write_text(
        "MODEL:\n  STRIDE_SIZE: '(12, 12)'\n  JPM: True\nINPUT:\n  SIZE_TRAIN: [256, 128]\nX: 1\n"
    )
    expected = {"MODEL.STRIDE_SIZE": "(12, 12)", "MODEL.JPM": True, "INPUT.SIZE_TRAIN": [256, 128], "X": 1}
    assert read_options(tmp_path / "r.yml") == expected
    for content, says in (
        ("- a", "no sections such as MODEL"),
        ("a: [", "cannot be read as YAML"),
    ):
        (tmp_path / "bad.yml").write_text(content)
        with pytest.raises(ConfigError, match=says):
            read_options(tmp_path / "bad.yml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_options(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"MODEL.ID_LOSS_TYPE": "sphere"}, "MODEL.ID_LOSS_TYPE 'sphere' is not one of softmax"),
        ({"MODEL.STRIDE_SIZE": [12, 16]}, r"MODEL\.STRIDE_SIZE \(12, 16\)"),
        ({"MODEL.TRANSFORMER_TYPE": "swin"}, "is not one of vit_base"),
    ],
)
def test_options_that_are_not_supported_are_refused(reference, option, says):
    with pytest.raises(ConfigError, match=says):
        convert_checkpoint(reference[0], SMALL | option)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_vit", {"sie": ("camera",), "jpm": True, "jpm_parts": 2}),
        ("test_vit", {"head": "arcface", "stride": 8}),
        ("legacy_vit_small", {}),
        ("resnet50", {}),
        ("vit_small_patch14_reg4_dinov2", {"sie": ("camera",)}),
    ],
)
def test_a_model_is_loaded_without_random_weights(tmp_path, backbone, options):
    vocabulary = Vocabulary(("a", "b"), ("1", "2"))
    settings, preprocessing = Model(backbone=backbone, **options), Preprocessing(size=(56, 28))
    card = ModelCard(model=settings, preprocessing=preprocessing, vocabulary=vocabulary)
    original = card.build().eval()
    write_folder(tmp_path / "m", lambda partial: fill_model_folder(partial, original.state_dict(), card))
    state = torch.get_rng_state()
    loaded, _ = load_model(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    (tmp_path / "m" / "model.safetensors").write_bytes(b"")  # the weights are in memory of their own
    for name, parameter in original.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)
        assert loaded.get_parameter(name).requires_grad == parameter.requires_grad
    images, camera = torch.randn(2, 3, 56, 28), {"camera": torch.tensor([0, 1])}
    with torch.inference_mode():
        assert torch.equal(loaded.embed(images, camera), original.embed(images, camera))
    paths = [[m.drop_prob for m in model.modules() if isinstance(m, DropPath)] for model in (loaded, original)]
    assert paths[0] == paths[1]


def test_the_references_large_rate_of_the_classifier_alone_is_a_setting():
    shapes = {"backbone.sie.table": (3, 2), "necks.0.weight": (2,), "heads.0.weight": (3, 2), "heads.4.weight": (3, 2)}
    parameters = [(name, torch.nn.Parameter(torch.ones(shape))) for name, shape in shapes.items()]
    groups = parameter_groups(parameters, Optimizer(lr=0.008, classifier_lr_factor=2, head_lr_factor=3))
    rates = {name: group["lr"] for group in groups for name in group["names"]}
    expected = dict(zip(shapes, (0.024, 0.024, 0.048, 0.048), strict=True))
    assert rates == pytest.approx(expected)
