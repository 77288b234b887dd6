"""The command line as a user meets it: quick help, one clear sentence for bad input, nothing written over."""

import json
import pickle
import subprocess
import sys
import time

import golden_cases
import pytest
import torch
from safetensors.torch import save_file

from resight.cli import VERBS, main
from resight.config.recipes import tiny, vary
from resight.models.checkpoint import load_model

TINY = ["train", "tiny", "--device", "cpu", "--sampling.identities", "3", "--sampling.instances", "2"]
TINY += ["--schedule.epochs", "1", "--preprocessing.size", "64", "32"]


def refused(capsys, *arguments) -> str:
    """Runs a command that must be refused; returns its one sentence."""
    assert main([str(a) for a in arguments]) == 2
    says = capsys.readouterr().err
    assert says.startswith("resight: ")
    assert says.count("\n") == 1
    return says


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    for verb in VERBS:
        if verb not in ("data", "train", "lr"):
            with pytest.raises(SystemExit) as ended:
                main([verb, "--help"])
            assert ended.value.code == 0


@pytest.mark.parametrize("command", [["-m", "resight.cli", "--help"], ["-c", "import resight"]])
def test_starting_imports_nothing_heavy(command):
    code = "import sys, runpy; sys.argv = ['resight', '--help']; "
    code += "runpy.run_module('resight.cli', run_name='x'); " if "-m" in command else "import resight; "
    code += "assert not {'torch', 'numpy', 'pyarrow', 'pydantic', 'tyro'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    assert time.perf_counter() - began < 5  # the 0.3 s are asserted in benchmarks/startup.py; this only catches torch


@pytest.mark.slow
def test_train_evaluate_and_look(painted, tmp_path, capsys):
    assert main([*TINY, "--root", str(painted), "--out", str(tmp_path / "run")]) == 0
    assert f"model: {tmp_path / 'run' / 'best'}" in capsys.readouterr().out
    strip, figures = tmp_path / "look" / "strip.png", tmp_path / "figures.json"
    command = ["evaluate", str(tmp_path / "run" / "best"), "--dataset", "synthetic", "--root", str(painted)]
    assert main([*command, "--device", "cpu", "--flip", "--json", str(figures), "--strip", str(strip)]) == 0
    out = capsys.readouterr().out
    assert "protocol market: every query against the whole gallery; 16 queries, 16 gallery sightings" in out
    assert "left out of a query's ranking are its own file and its identity under its own camera" in out
    assert set(json.loads(figures.read_text())) > {"mAP", "mINP", "R1", "cmc", "settings"}
    assert strip.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_skips_damaged_pictures_when_told(painted, tmp_path, capsys):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(painted, root)
    bad = sorted((root / "train_171" / "NI").iterdir())[3]
    bad.write_bytes(bad.read_bytes()[:300])
    says = refused(capsys, *TINY, "--root", root, "--out", tmp_path / "run")
    assert f"{bad} is cut short" in says
    assert "--on-corrupt skip" in says
    assert not (tmp_path / "run").exists()
    assert main([*TINY, "--root", str(root), "--out", str(tmp_path / "run"), "--on-corrupt", "skip"]) == 0
    assert "1 damaged pictures skipped" in capsys.readouterr().err


def test_data_inspect(market, tmp_path, capsys):
    assert main(["data", "inspect", "market1501", str(market), "--check", "--out", str(tmp_path / "tables")]) == 0
    out = capsys.readouterr().out
    assert "Market-1501" in out
    assert "all 42 pictures can be decoded" in out
    assert (tmp_path / "tables" / "gallery.parquet").exists()
    (market / "query" / "0007_c1s1_000000_00.jpg").write_bytes(b"")
    assert "1 of 42 pictures are damaged" in refused(capsys, "data", "inspect", "market1501", market, "--check")


def test_unknown_names_list_the_known(capsys, market):
    assert "known are: demo, train" in refused(capsys, "trian")
    assert "known are: tiny, own, cuhk03" in refused(capsys, "train", "tinny")
    assert "known are: market1501" in refused(capsys, "train", "tiny", "--dataset", "market")
    assert "known are: market1501" in refused(capsys, "data", "inspect", "market", market)
    says = refused(capsys, "train", "tiny", "--dataset", "market1501", "--root", market, "--model.backbone", "vit_hug",
                   "--sampling.identities", "3")  # fmt: skip
    assert "no backbone named 'vit_hug'; known are: resnet50" in says


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (
            lambda root: (root / "bounding_box_test").rename(root / "gallery"),
            "found bounding_box_train/, gallery/, query/",
        ),
        (lambda root: (root / "query" / "0007_c1s1_000000_00.jpg").write_bytes(b""), "is empty"),
        (lambda root: (root / "query" / "0008_c1s1_000000_00.jpg").write_bytes(b"hello"), "is no picture"),
        (lambda root: cut(root / "query" / "0009_c2s1_000000_00.jpg"), "is cut short"),
        (lambda root: one_camera(root), "removed every match of 4"),
    ],
)
def test_bad_data_is_refused_before_training(market, tmp_path, capsys, break_it, says):
    break_it(market)
    command = [*TINY, "--dataset", "market1501", "--root", market, "--out", tmp_path / "run"]
    assert says in refused(capsys, *command)
    assert not (tmp_path / "run").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:400])


def one_camera(root):
    for folder in ("query", "bounding_box_test"):
        for path in (root / folder).glob("*_c2*"):
            path.unlink()


def test_a_missing_folder_and_a_missing_option(capsys, tmp_path):
    assert "there is no folder" in refused(capsys, *TINY, "--dataset", "market1501", "--root", tmp_path / "nowhere")
    assert "say where cuhk03 is with --root" in refused(capsys, "train", "cuhk03")
    assert "is no run folder" in refused(capsys, "train", "--resume", tmp_path)
    assert "cannot be read" in refused(capsys, "train", "--from", tmp_path / "none.json")
    with pytest.raises(SystemExit) as ended:  # tyro itself says what is wrong with an option
        main([*TINY, "--loss.id-weight", "0", "--loss.triplet-weight", "0"])
    assert ended.value.code == 2
    assert "triplet_weight are both 0" in capsys.readouterr().err


def test_a_batch_that_p_by_k_cannot_make(capsys, market, tmp_path):
    command = ["train", "tiny", "--dataset", "market1501", "--root", market, "--out", tmp_path / "run"]
    assert "batches of 8 x 4" in refused(capsys, *command)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_written(capsys, market, tmp_path):
    (tmp_path / "file").write_text("x")
    command = [*TINY, "--dataset", "market1501", "--root", market, "--out", tmp_path / "file" / "run"]
    assert "cannot be written: a part of the path is a file" in refused(capsys, *command)
    readonly = ["--out", "/proc/resight"]  # root may write to any folder but this
    assert "/proc/resight" in refused(capsys, *command[:-2], *readonly)


@pytest.fixture
def reference(tmp_path):
    """A small reference checkpoint and its options."""
    golden = golden_cases.load("deit_small_baseline")
    torch.save(golden.state, tmp_path / "reference.pth")
    options = [f"{name}={value}" for name, value in golden.options.items()]
    return tmp_path / "reference.pth", options


@pytest.mark.slow
def test_convert(reference, tmp_path, capsys):
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


@pytest.mark.slow
def test_convert_with_the_yaml_and_what_does_not_fit(reference, tmp_path, capsys):
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
    jpm = ["--config", yaml, "--options", "MODEL.JPM=True"]
    assert "missing: backbone.blocks.11" in refused(capsys, "convert", checkpoint, *jpm, "--out", tmp_path / "jpm")
    assert not (tmp_path / "wide").exists()
    assert "--options MODEL.JPM=True" in refused(capsys, "convert", checkpoint, *out)
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
        eval_model = capsys.readouterr()
        assert "its pickle would run code" in eval_model.err
        assert "boom" not in eval_model.out
    (tmp_path / "noise.pth").write_bytes(b"\x00\x01nothing")
    says = refused(capsys, "convert", tmp_path / "noise.pth", "--options", "MODEL.JPM=True", "--out", tmp_path / "ours")
    assert "noise.pth" in says


def test_pretrained_weights_of_another_width(capsys, market, tmp_path):
    import timm

    save_file(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    command = [*TINY, "--dataset", "market1501", "--root", market, "--weights", tmp_path / "w.safetensors"]
    says = refused(capsys, *command, "--out", tmp_path / "run")
    assert "does not fit the model; of another shape: " in says
    assert "no checkpoint at" in refused(
        capsys, *command[:-1], tmp_path / "none.safetensors", "--out", tmp_path / "run2"
    )
    assert not (tmp_path / "run").exists()


def test_shapes(capsys):
    assert main(["shapes", "transreid-trimodal"]) == 0
    out = capsys.readouterr().out
    for shape in (
        "[2, 3, 224, 224]", "[2, 196, 768]", "[2, 197, 768]", "[3, 2, 12, 197, 64]", "[2, 12, 197, 197]",
        "[2, 1, 768]", "[2, 768]", "[2, 751]", "model/blocks.py:",
    ):  # fmt: skip
        assert shape in out
    assert main(["shapes", "transreid-market"]) == 0
    out = capsys.readouterr().out
    assert "[8, 12, 1, 53]" in out  # four parts of 52 patches and the class token, which alone asks
    assert "[2, 3840]" in out


def test_demo_recipe_is_a_three_modality_transreid():
    run = vary(tiny())
    assert run.model.sie == ("modality",)
    assert run.model.jpm
