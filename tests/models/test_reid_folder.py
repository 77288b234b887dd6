"""Folders of roboflow's `reid`: read as `reid` itself computes, and what is refused."""

import json

import numpy as np
import pytest
import timm
import torch
from conftest import picture
from PIL import Image
from safetensors.torch import save_file
from test_published_cnn import model_of, theirs_of_osnet

import resight
from resight.cli import main

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
THEIRS = {
    "input_size": [64, 32], **IMAGENET, "interpolation": "bilinear", "to_rgb": True, "resize_mode": "stretch",
    "pad_value": 114,
}  # fmt: skip


def folder_of(path, architecture: str, state, **preprocessing: object):
    """A folder as `ReIDModel.save_pretrained` writes it."""
    path.mkdir()
    card = {"architecture": architecture, "preprocessing": THEIRS | preprocessing}
    (path / "reid_config.json").write_text(json.dumps(card, indent=2))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path / "weights.safetensors")
    return path


def pixels_of(file, size, mean, std) -> torch.Tensor:
    """A picture as `reid` prepares it: resized by Pillow, divided by 255, and normalised."""
    image = Image.open(file).convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(image, np.float32) / 255
    return torch.from_numpy((array - np.float32(mean)) / np.float32(std)).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def osnet():
    return model_of("osnet_x0_25")


def test_an_osnet_of_reid_embeds_as_there(osnet, tmp_path):
    path = folder_of(tmp_path / "reid", "osnet_x0_25", theirs_of_osnet(osnet.state_dict()), mean=[0.4, 0.5, 0.6])
    image = picture(tmp_path / "a.jpg", size=(50, 90))
    embedder = resight.load(path, "cpu", "fp32")
    pixels = pixels_of(image, (64, 32), [0.4, 0.5, 0.6], IMAGENET["std"])
    with torch.inference_mode():
        expected = osnet.embed(pixels, {})
    torch.testing.assert_close(embedder.embed_tensor(pixels, normalize=False), expected, rtol=1e-5, atol=1e-6)
    expected = torch.nn.functional.normalize(expected).numpy()
    assert float((embedder.embed(image) * expected).sum()) > 0.9999  # resized within a grey level of Pillow


def test_a_folder_of_reid_goes_where_a_model_goes(osnet, tmp_path, capsys):
    path = folder_of(tmp_path / "reid", "osnet_x0_25", theirs_of_osnet(osnet.state_dict()), normalize_embeddings=True)
    image = picture(tmp_path / "a.jpg")
    embedder = resight.load(path, "cpu", "fp32")
    assert main(["convert", str(path), "--out", str(tmp_path / "model")]) == 0
    assert "read as a folder of reid: osnet_x0_25" in capsys.readouterr().out
    converted = resight.load(tmp_path / "model", "cpu", "fp32")
    assert converted.embedding_id == embedder.embedding_id
    options = ["--out", str(tmp_path / "e.parquet"), "--device", "cpu"]
    assert main(["extract", str(path), str(image), *options]) == 0
    with resight.create_gallery(tmp_path / "gallery", embedder):
        pass
    with resight.open_gallery(tmp_path / "gallery", device="cpu", precision="fp32") as gallery:
        np.testing.assert_array_equal(gallery.embedder.embed(image), converted.embed(image))


def test_a_network_of_timm_embeds_as_timm(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=0).eval()
    path = folder_of(tmp_path / "reid", "timm:resnet10t", net.state_dict(), interpolation="bicubic")
    embedder = resight.load(path, "cpu", "fp32")
    assert embedder.card.preprocessing.test_interpolation == "bicubic"
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        expected = net(images)
    torch.testing.assert_close(embedder.embed_tensor(images, normalize=False), expected, rtol=1e-5, atol=1e-6)


def test_folders_that_are_refused(osnet, tmp_path, capsys):
    state = theirs_of_osnet(osnet.state_dict())
    head = timm.create_model("mobilenetv3_small_050", num_classes=0)  # a convolution after its pooling

    def refusal(name: str, architecture: str, weights=state, **preprocessing: object) -> str:
        path = folder_of(tmp_path / name, architecture, weights, **preprocessing)
        return refused(path)

    def refused(path, *options: str) -> str:
        assert main(["convert", str(path), "--out", str(tmp_path / "model"), *options]) == 2
        assert not (tmp_path / "model").exists()
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "supported are OSNets (osnet_x" in refusal("sbs", "fastreid_sbs_resnest50")
    assert "preprocessing.resize_mode" in refusal("letterbox", "osnet_x0_25", resize_mode="letterbox")
    assert "preprocessing.interpolation" in refusal("nearest", "osnet_x0_25", interpolation="nearest")
    assert "preprocessing.to_rgb" in refusal("bgr", "osnet_x0_25", to_rgb=False)
    assert "preprocessing.input_size" in refusal("size", "osnet_x0_25", input_size=[0, 10**9])
    assert "says osnet_x1_0, and the weights are of osnet_x0_25" in refusal("other", "osnet_x1_0")
    assert "layers after its feature map that are not supported" in refusal(
        "head", "timm:mobilenetv3_small_050", head.state_dict()
    )
    assert "missing: backbone.net." in refusal("empty", "timm:resnet10t", {"conv1.0.weight": torch.ones(2)})
    good = folder_of(tmp_path / "good", "osnet_x0_25", state)
    assert "--pooling is not used: reid_config.json has all settings" in refused(good, "--pooling", "mean")
    (good / "reid_config.json").write_text("{")
    assert "describes no model that is supported" in refused(good)
    (good / "weights.safetensors").unlink()
    (good / "reid_config.json").write_text(json.dumps({"architecture": "osnet_x0_25"}))
    assert "there is no checkpoint at" in refused(good)
