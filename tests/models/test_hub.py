"""Models on the Hub, against a local server: downloads with revisions, publishing, refusals, and what is never sent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import picture, small_model
from fake_hub import TOKEN, FakeHub
from safetensors.torch import load_file, save
from training_helpers import small

import resight
from resight.cli import main
from resight.config.sections import Model
from resight.errors import CheckpointError, ConfigError
from resight.models.backbones.build import build_backbone
from resight.models.hub.address import HubAddress, parse_address, parse_timm_address
from resight.models.hub.download import download_model
from resight.models.pretrained import load_pretrained

NAME = "lab/vehicles"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The server, which the client uses in place of the Hub, with an empty cache."""
    constants = pytest.importorskip("huggingface_hub").constants
    with FakeHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def refused(capsys, *command: object) -> str:
    """The one sentence that refuses a command."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("resight: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    return lines[0]


def test_addresses():
    assert parse_address("hf://a/b") == HubAddress("a/b")
    assert parse_address("hf://a/b.c@v1") == HubAddress("a/b.c", "v1")
    assert parse_address("hf://a/b@refs/pr/1").revision == "refs/pr/1"
    assert parse_address(Path("hf://a/b@v1")) == HubAddress("a/b", "v1")  # pathlib makes one slash of two
    assert parse_timm_address("hf-hub:timm/resnet18.a1_in1k@main") == HubAddress("timm/resnet18.a1_in1k", "main")
    assert str(HubAddress("a/b", "v1")) == "hf://a/b@v1"
    for wrong in ("hf://", "hf://a", "hf://a/b/c", "hf://a/b@", "hf://a/..", "hf://a/b--c", "hf://-a/b", "hf://a/b c",
                  "hf://a/b@../x", "hf://a/b@--x", "hf://a/" + "b" * 100, "hf://a/b.git"):  # fmt: skip
        with pytest.raises(ConfigError):
            parse_address(wrong)


def test_a_model_is_loaded_by_its_address_and_its_revision(hub, tmp_path):
    first, second = small_model(tmp_path / "first"), small_model(tmp_path / "second", mean=(0.4, 0.5, 0.6))
    repository_files = content(first) | {"pytorch_model.bin": b"\x80pickle", "run.pt": b"\x80", "README.md": b"# a"}
    commit = hub.add(NAME, repository_files)
    hub.repositories[NAME].refs["v1"] = commit
    hub.repositories[NAME].commit(content(second))
    image = picture(tmp_path / "a.jpg")
    for address, folder in ((f"hf://{NAME}@v1", first), (f"hf://{NAME}@{commit}", first), (f"hf://{NAME}", second)):
        embedder, local = resight.load(address, "cpu", "fp32"), resight.load(folder, "cpu", "fp32")
        assert embedder.embedding_id == local.embedding_id
        np.testing.assert_array_equal(embedder.embed(image), local.embed(image))
    assert set(hub.downloads()) == {"config.json", "model.safetensors", "README.md"}


def test_a_model_in_the_cache_is_used_without_the_hub(hub, tmp_path, monkeypatch, capsys):
    hub.add(NAME, content(small_model(tmp_path / "model")))
    folder = download_model(HubAddress(NAME))
    capsys.readouterr()
    sent = len(hub.downloads())
    assert download_model(HubAddress(NAME)) == folder
    assert len(hub.downloads()) == sent
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.modules["huggingface_hub"].constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert download_model(HubAddress(NAME)) == folder
    assert len(hub.requests) == asked
    with pytest.raises(CheckpointError, match=r"hf://lab/other is not in the cache .* HF_HUB_OFFLINE forbids"):
        download_model(HubAddress("lab/other"))


def test_verbs_take_an_address_in_place_of_a_folder(hub, tmp_path, capsys):
    model = small_model(tmp_path / "model")
    hub.add(NAME, content(model))
    image = picture(tmp_path / "a.jpg")
    for verb in (
        ["similarity", image, image, "--model", f"hf://{NAME}", "--device", "cpu"],
        ["extract", f"hf://{NAME}", image, "--out", tmp_path / "e.parquet", "--device", "cpu"],
        ["gallery", "create", tmp_path / "g", "--model", f"hf://{NAME}", "--device", "cpu"],
    ):
        assert main([str(word) for word in verb]) == 0
    with resight.open_gallery(tmp_path / "g", device="cpu") as gallery:
        assert gallery.info.embedding_id == resight.load(model, "cpu").embedding_id
        assert gallery.embedder.embed(image).shape == (1, 64)


REFUSED = {
    "lab/none": "the Hub has no repository hf://lab/none, or it is private: check the name, or log in with `hf auth",
    "lab/secret": "the Hub has no repository hf://lab/secret, or it is private",
    "lab/gated": "hf://lab/gated is gated: accept its terms on its page of the Hub, then log in",
    "lab/model@v9": "hf://lab/model@v9 has no such revision",
    "lab/words": "hf://lab/words has no model that resight reads: no config.json or reid_config.json of one",
    "lab/language": "config.json has no format number",
    "lab/timm": "hf://lab/timm is a network of timm, not a model for re-identification: fine-tune it with "
    "--model.backbone hf-hub:lab/timm",
    "lab/pickle": "hf://lab/pickle has no model.safetensors; weights are read from .safetensors files alone",
    "lab/corrupt": "model.safetensors is corrupt, its SHA-256 is not the one in config.json",
    "../x": "a model on the Hub is named hf://ORG/NAME or hf://ORG/NAME@REVISION, not",
}


def test_what_cannot_be_loaded_is_refused_in_one_sentence(hub, tmp_path, capsys):
    files = content(small_model(tmp_path / "model"))
    hub.add("lab/model", files)
    hub.add("lab/secret", files, private=True)
    hub.add("lab/gated", files, gated=True)
    hub.add("lab/words", {"README.md": b"# words", "weights.bin": b"\x80"})
    hub.add("lab/language", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""})
    hub.add("lab/timm", {"config.json": b'{"architecture": "resnet18", "pretrained_cfg": {}}'})
    hub.add("lab/pickle", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80"})
    hub.add("lab/corrupt", files | {"model.safetensors": files["model.safetensors"][:-1] + b"x"})
    image = picture(tmp_path / "a.jpg")
    for name, says in REFUSED.items():
        assert says in refused(capsys, "similarity", image, image, "--model", f"hf://{name}", "--device", "cpu")
    sent = set(hub.downloads())
    assert not {"weights.bin", "pytorch_model.bin"} & sent


def test_a_private_model_is_loaded_with_a_token(hub, tmp_path, monkeypatch):
    hub.add(NAME, content(small_model(tmp_path / "model")), private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert resight.load(f"hf://{NAME}", "cpu").width == 64


def test_a_hub_that_is_down_or_away_is_named(hub, tmp_path, capsys, monkeypatch):
    image = picture(tmp_path / "a.jpg")
    hub.status = 418
    says = refused(capsys, "similarity", image, image, "--model", "hf://a/b", "--device", "cpu")
    assert "the Hub answered with status 418 for hf://a/b: try again later" in says
    monkeypatch.setattr(sys.modules["huggingface_hub"].constants, "ENDPOINT", "http://127.0.0.1:9")
    says = refused(capsys, "similarity", image, image, "--model", "hf://a/b", "--device", "cpu")
    assert "the Hub cannot be reached for hf://a/b, and is not in the cache of this machine" in says


# Publishing


def test_a_published_model_is_the_same_when_it_is_loaded(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    model = small_model(tmp_path / "model")
    (model / "private-notes.txt").write_text("not for the Hub")
    command = ["push", model, NAME, "--private", "--message", "First model", "--licence", "mit"]
    assert main([str(word) for word in command]) == 0
    assert f"load it with hf://{NAME}" in capsys.readouterr().out
    repository = hub.repositories[NAME]
    assert repository.private
    commit = repository.refs["main"]
    assert repository.messages[commit] == "First model"
    files = repository.commits[commit]
    assert set(files) == {".gitattributes", "model.safetensors", "config.json", "README.md"}
    for name in ("model.safetensors", "config.json"):
        assert files[name] == (model / name).read_bytes()
    assert hub.stored  # the weights went as LFS
    assert resight.load(f"hf://{NAME}", "cpu").embedding_id == resight.load(model, "cpu").embedding_id


def test_a_branch_is_created_and_main_is_left_alone(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add(NAME, {"README.md": b"# before"})
    published = resight.push(small_model(tmp_path / "model"), NAME, revision="candidate")
    assert published.url is not None
    assert published.url.endswith(hub.repositories[NAME].refs["candidate"])
    assert hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]] == {"README.md": b"# before"}
    assert resight.load(f"hf://{NAME}@candidate", "cpu").width == 64


def test_a_dry_run_sends_nothing(hub, tmp_path, capsys):
    model = small_model(tmp_path / "model")
    assert main(["push", str(model), NAME, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("---\nlibrary_name: resight\n")
    assert f"{(model / 'model.safetensors').stat().st_size:,} bytes  model.safetensors" in printed
    assert f"nothing was uploaded to {NAME}" in printed
    assert hub.requests == []


def test_refused_uploads(hub, tmp_path, capsys, monkeypatch):
    model = small_model(tmp_path / "model")
    says = refused(capsys, "push", model, NAME)
    assert "nothing was published: the Hub does not permit to write lab/vehicles (401): log in with" in says
    for options, sentence in (
        (["only-a-name"], "a model on the Hub is named ORG/NAME, not 'only-a-name'"),
        ([f"{NAME}@v1"], "give the branch as --revision"),
        ([NAME, "--revision", "a b"], "a revision is a branch, tag or commit, not 'a b'"),
        ([NAME, "--message", " "], "the message of a commit cannot be empty"),
        ([NAME, "--licence", "My Licence"], "licence: "),
        ([NAME, "--figures", tmp_path / "none.json"], "none.json cannot be read: No such file"),
    ):
        assert sentence in refused(capsys, "push", model, *options)
    assert "is no model folder" in refused(capsys, "push", tmp_path, NAME)
    (model / "model.safetensors").write_bytes(b"x" * 100)
    assert "model.safetensors is corrupt" in refused(capsys, "push", model, NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.status = 507
    assert hub.repositories == {}
    says = refused(capsys, "push", small_model(tmp_path / "other"), NAME)
    assert "nothing was published: the Hub answered with status 507 for lab/vehicles: try again later" in says


def test_environment_variables_name_the_hub(hub, tmp_path):
    """The command in a process of its own, with HF_ENDPOINT as users set it."""
    model = small_model(tmp_path / "model")
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    code = f"import resight.cli; status = resight.cli.main(['push', {str(model)!r}, '{NAME}', '--json'])"
    code += f"; print(); print(status, resight.load('hf://{NAME}', 'cpu').embedding_id)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed, loaded = done.stdout.rsplit("\n\n", 1)
    assert json.loads(printed)["repository"] == NAME
    assert loaded.split() == ["0", resight.load(model, "cpu").embedding_id]


# timm's names


def timm_repository(name: str, **changes: object) -> dict[str, bytes]:
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=5)
    settings = {
        "input_size": [3, 160, 160],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
    }
    config = {
        "architecture": name,
        "num_classes": 5,
        "pretrained_cfg": {**settings, "num_classes": 5, "classifier": "fc"},
    }
    return {"config.json": json.dumps(config | changes).encode(), "model.safetensors": save(net.state_dict())}


def test_a_network_of_timm_on_the_hub_is_converted(hub, tmp_path):
    hub.add("lab/net", timm_repository("resnet10t") | {"pytorch_model.bin": b"\x80"})
    conversion = resight.convert_checkpoint("hf-hub:lab/net", size=(64, 32))
    assert conversion.card.model.backbone == "resnet10t"
    assert conversion.card.preprocessing.mean == (0.1, 0.2, 0.3)
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=5).eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        expected, ours = (
            net.forward_head(net.forward_features(images), pre_logits=True),
            conversion.model.embed(images, {}),
        )
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert set(hub.downloads()) == {"config.json", "model.safetensors"}


def test_networks_of_timm_that_are_refused(hub, tmp_path, capsys):
    good = timm_repository("resnet10t")
    hub.add("lab/other", timm_repository("resnet10t", architecture="nonet"))
    hub.add("lab/args", timm_repository("resnet10t", model_args={"width": 3}))
    hub.add("lab/pickle", {"config.json": good["config.json"], "pytorch_model.bin": b"\x80"})
    hub.add("lab/misfit", good | {"model.safetensors": save({"a": torch.ones(2)})})
    hub.add("lab/empty", {"README.md": b""})
    hub.add("lab/text", {"config.json": b"{"})
    for name, says in {
        "lab/other": f"is no network that timm {timm.__version__} has",
        "lab/args": "changes resnet10t by width, which is not supported",
        "lab/pickle": "has no model.safetensors; weights are read from .safetensors files alone",
        "lab/misfit": "does not fit the model; missing: backbone.net.conv1.0.weight",
        "lab/empty": "has no config.json, so it is no network of timm",
        "lab/text": "its config.json is no JSON",
        "lab/none": "the Hub has no repository hf://lab/none",
        "none": "is named hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION",
    }.items():
        assert says in refused(capsys, "convert", f"hf-hub:{name}", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_training_starts_from_a_network_of_the_hub(hub, painted, tmp_path, monkeypatch):
    """The backbone and `weights timm` are those of the repository; a resumed run needs no Hub."""
    hub.add("lab/net", timm_repository("resnet10t"))
    run = small(
        model={"backbone": "hf-hub:lab/net", "sie": (), "jpm": False, "dropout": 0.0}, weights="timm",
        out=tmp_path / "run", root=painted, optimizer={"lr": 1e-9, "weight_decay": 0.0}, schedule={"epochs": 1},
    )  # fmt: skip
    resight.train(run)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (stored["model"]["backbone"], stored["weights"]) == ("resnet10t", "hf-hub:lab/net")
    torch.manual_seed(0)
    expected = timm.create_model("resnet10t", num_classes=5).state_dict()["layer1.0.conv1.weight"]
    trained = load_file(tmp_path / "run" / "best" / "model.safetensors")["backbone.net.layer1.0.conv1.weight"]
    torch.testing.assert_close(trained, expected, rtol=0, atol=1e-6)
    assert any(step.name == "mAP" for section in resight.summarize(run).sections for step in section.steps)


def test_training_starts_from_a_published_model(hub, tmp_path):
    hub.add(NAME, content(small_model(tmp_path / "model")))
    settings = Model(backbone="test_vit", sie=("camera",))
    counts = {"camera": 2, "view": 0, "modality": 1}
    backbone = build_backbone(settings, (64, 32), counts)
    load_pretrained(backbone, f"hf://{NAME}", "test_vit")
    expected = load_file(tmp_path / "model" / "model.safetensors")
    torch.testing.assert_close(backbone.state_dict()["norm.weight"], expected["backbone.norm.weight"])
    torch.testing.assert_close(backbone.state_dict()["pos_embed"], expected["backbone.pos_embed"])


def test_a_teacher_of_the_hub_is_checked_before_images_are_read(hub, tmp_path, capsys):
    hub.add(NAME, content(small_model(tmp_path / "fused", modalities=("rgb", "nir"), sie=(), fusion="gate")))
    arguments = ("train", "edge", "--root", tmp_path / "no-data", "--out", tmp_path / "run", "--device", "cpu")
    assert "the Hub has no repository hf://nobody/none" in refused(capsys, *arguments, "--teacher", "hf://nobody/none")
    assert "fuses the modalities of a sighting" in refused(capsys, *arguments, "--teacher", f"hf://{NAME}")
    assert not (tmp_path / "run").exists()
