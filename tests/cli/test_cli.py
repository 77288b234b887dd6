"""The command line: help within a moment, one clear sentence for bad input, nothing written over."""

import json
import subprocess
import sys
import time

import pytest
from safetensors.torch import save_file

import resight
from resight.cli import VERBS, main
from resight.config.recipes import RECIPES
from resight.data.catalog import CATALOG
from resight.retrieval.protocols import PROTOCOLS

TINY = ["train", "tiny", "--device", "cpu", "--sampling.identities", "3", "--sampling.instances", "2"]
TINY += ["--schedule.epochs", "1", "--preprocessing.size", "64", "32"]


def refused(capsys, *arguments) -> str:
    """Runs a command that must be refused; returns its one sentence."""
    assert main([str(a) for a in arguments]) == 2
    says = capsys.readouterr().err
    assert says.startswith("resight: ")
    assert says.count("\n") == 1
    return says


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"resight {resight.__version__}\n"
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    out = capsys.readouterr().out
    assert out.count("usage: resight VERB [OPTIONS]") == 3
    for verb, says in VERBS.items():
        assert f"{verb:12s}{says}" in out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_verb_has_help(verb, flag, capsys):
    try:
        status = main([verb, flag])
    except SystemExit as ended:  # tyro prints the help of options and ends
        status = ended.code
    assert status == 0
    captured = capsys.readouterr()
    assert f"usage: resight {verb}" in captured.out
    assert captured.err == ""


def test_help_of_an_action_lists_its_options(capsys):
    for command, option in ((["gallery", "search"], "--k"), (["data", "inspect"], "--check")):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        assert option in capsys.readouterr().out


def test_help_of_a_verb_with_actions_lists_them(capsys):
    actions = {
        "gallery": "create add search assign undo cluster remove map stats verify copy repair to-parquet from-parquet",
        "data": "inspect split clean list",
    }
    for verb, names in actions.items():
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        assert "{" + ",".join(names.split()) + "}" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("verb", "names"),
    [("recipes", RECIPES), ("protocols", PROTOCOLS), ("data", CATALOG)],
    ids=["recipes", "protocols", "data"],
)
def test_lists_have_one_line_for_each_name(verb, names, capsys):
    assert main([verb, "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert all(len(line.split()) > 2 for line in lines)  # with words about it
    assert main([verb, "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == list(names)
    if verb == "data":
        assert document["sysu-mm01"] == "sysu-all"
        assert set(document.values()) <= set(PROTOCOLS)


def test_a_listing_verb_without_list_says_the_command(capsys):
    for verb in ("recipes", "protocols"):
        assert f"the command is: resight {verb} list" in refused(capsys, verb)
        assert f"the command is: resight {verb} list" in refused(capsys, verb, "lists")


@pytest.mark.parametrize("command", [["-m", "resight.cli", "--help"], ["-c", "import resight"]])
def test_starting_imports_nothing_heavy(command):
    code = "import sys, runpy; sys.argv = ['resight', '--help']; "
    code += "runpy.run_module('resight.cli', run_name='x'); " if "-m" in command else "import resight; "
    code += "assert not {'torch', 'numpy', 'pyarrow', 'pydantic', 'tyro'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    assert time.perf_counter() - began < 5  # the 0.3 s are asserted in benchmarks/startup.py; this only catches torch


def test_train_then_evaluate_with_a_rank_strip(painted, tmp_path, capsys):
    assert main([*TINY, "--root", str(painted), "--out", str(tmp_path / "run")]) == 0
    assert f"model: {tmp_path / 'run' / 'best'}" in capsys.readouterr().out
    strip, figures = tmp_path / "new" / "strip.png", tmp_path / "figures.json"
    command = ["evaluate", str(tmp_path / "run" / "best"), "--dataset", "synthetic", "--root", str(painted)]
    command += ["--device", "cpu", "--flip", "on", "--figures", str(figures), "--rank-strip", str(strip)]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "protocol market: every query against the whole gallery; 16 queries, 16 gallery sightings" in out
    assert "Not ranked (rule same-camera): the query's own file, and " in out
    assert set(json.loads(figures.read_text())) > {"mAP", "mINP", "R1", "cmc", "settings"}
    assert strip.read_bytes().startswith(b"\x89PNG")


def test_corrupt_pictures_are_refused_or_skipped(painted, tmp_path, capsys):
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
    assert "1 corrupt picture skipped" in capsys.readouterr().err


def test_data_inspect(market, tmp_path, capsys):
    assert main(["data", "inspect", "market1501", str(market), "--check", "--out", str(tmp_path / "tables")]) == 0
    out = capsys.readouterr().out
    assert "Market-1501" in out
    assert "can be decoded" in out
    assert "42" in out
    assert (tmp_path / "tables" / "gallery.parquet").exists()
    (market / "query" / "0007_c1s1_000000_00.jpg").write_bytes(b"")
    assert main(["data", "inspect", "market1501", str(market), "--check"]) == 2
    captured = capsys.readouterr()
    assert "0007_c1s1_000000_00.jpg is empty" in captured.out
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("resight: 1 of the ")
    assert main(["data", "inspect", "market1501", str(market), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(part["part"], part["sightings"]) for part in document["parts"]] == [
        ("train", 24),
        ("query", 8),
        ("gallery", 10),
    ]


def test_unknown_names_list_the_known(capsys, market):
    assert "no verb named 'trian'; known are: demo, train, lr-find" in refused(capsys, "trian")
    assert "known are: tiny, own, edge, cuhk03" in refused(capsys, "train", "tinny")
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
    assert "give the images of cuhk03 with --root" in refused(capsys, "train", "cuhk03")
    assert "is no run folder" in refused(capsys, "train", "--resume", tmp_path)
    assert "cannot be read" in refused(capsys, "train", "--config", tmp_path / "none.json")
    assert "triplet_weight are both 0" in refused(capsys, *TINY, "--loss.id-weight", "0", "--loss.triplet-weight", "0")


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


def test_options_are_checked_before_a_picture_is_read(capsys, market, tmp_path):
    command = [*TINY, "--dataset", "market1501", "--root", market / "none", "--out", tmp_path / "run"]
    assert "no protocol named 'marke'" in refused(capsys, *command, "--evaluation.protocol", "marke")
    assert "no backbone named 'vit_hug'" in refused(capsys, *command, "--model.backbone", "vit_hug")
    crossing = ["--evaluation.protocol", "sysu-all", "--embedding.fusion", "concat"]
    assert "use --embedding.fusion mean" in refused(capsys, *command, *crossing)
    assert not (tmp_path / "run").exists()


def test_old_names_of_options_and_verbs_are_refused(capsys, market):
    for verb in ("shapes", "lr", "lrfind", "link"):
        assert f"no verb named {verb!r}" in refused(capsys, verb)
    for options in (["--piece", "4"], ["--recompute"], ["--shard"], ["--held-out", "0.1"], ["--damaged", "skip"]):
        says = refused(capsys, *TINY, "--dataset", "market1501", "--root", market, *options)
        assert f"Unrecognized options: {options[0]}" in says


TERMINATED = """
import sys, time
from pathlib import Path
from resight import cli
from resight.files import write_folder

def write(folder):
    (folder / "part").write_text("x")
    print("writing", flush=True)
    time.sleep(60)

cli._run = lambda words: write_folder(Path(sys.argv[1]), write)
sys.exit(cli.main(["convert"]))
"""


def test_a_terminated_command_leaves_nothing_incomplete(tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path / "out")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "writing\n"
    assert [path.name.startswith(".out.") for path in tmp_path.iterdir()] == [True]
    running.terminate()
    _, error = running.communicate(timeout=20)
    assert running.returncode == 143
    assert error == ""
    assert list(tmp_path.iterdir()) == []
