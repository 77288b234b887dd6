"""`resight explain`: what it prints and draws."""

import json

import pytest
from conftest import picture, small_model, varied_model
from PIL import Image

import resight
from resight.cli import main
from resight.inference.explain import explain


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a model and two images."""
    folder = tmp_path_factory.mktemp("desk")
    varied_model(folder / "m")
    for n, name in enumerate(("a.jpg", "b.jpg")):
        picture(folder / name, 0, n)
    return folder


def run(desk, *options):
    words = [str(desk / "a.jpg"), str(desk / "b.jpg"), "--model", str(desk / "m"), "--device", "cpu"]
    return main(["explain", *words, "--precision", "fp32", *map(str, options)])


def test_the_pairs_are_printed_and_drawn(desk, capsys):
    out = desk / "new" / "why.png"
    assert run(desk, "--out", out, "--cameras", "c1", "c2") == 0
    model = resight.load(desk / "m", "cpu", "fp32")
    expected = explain(model, desk / "a.jpg", desk / "b.jpg", ("c1", "c2"))
    printed = capsys.readouterr().out.splitlines()
    value, patches = expected.comparison.similarity, expected.patch_similarity
    assert printed[0] == f"similarity {value:.4f}; of the patches {patches:.4f}"
    assert printed[-1] == f"drawing: {out}"
    assert expected.pairs()
    assert printed[1:-1] == [
        f"row {pair.first[0] + 1}, column {pair.first[1] + 1} resembles row {pair.second[0] + 1}, column "
        f"{pair.second[1] + 1}: similarity {pair.similarity:.4f}"
        for pair in expected.pairs()
    ]
    assert Image.open(out).size[0] > 800


def test_json_has_the_maps(desk, capsys):
    assert run(desk, "--out", desk / "b.png", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert sum(map(sum, document["attention"][0])) == pytest.approx(1, abs=1e-4)
    assert sum(map(sum, document["maps"][1])) == pytest.approx(document["patch_similarity"], abs=1e-4)


def test_a_backbone_without_tokens_is_refused(desk, tmp_path, capsys):
    small_model(tmp_path / "cnn", backbone="resnet50", sie=())
    assert run(desk, "--out", tmp_path / "x.png", "--model", tmp_path / "cnn") == 2
    assert "backbone resnet50 has no class token or patch tokens" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
