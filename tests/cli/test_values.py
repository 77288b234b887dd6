"""A bad value of any option of any verb is refused with status 2 and one sentence, not with a traceback."""

import subprocess
import sys

import pytest
from conftest import picture, small_model, write_onnx

from resight.cli import VERBS, main

CPU = ["--device", "cpu"]
DATA = ["--dataset", "own", "--root", "images"]
TINY = [
    "tiny",
    *CPU,
    *DATA,
    "--sampling.identities",
    "2",
    "--sampling.instances",
    "2",
    "--preprocessing.size",
    "64",
    "32",
]
TRAIN = ["train", *TINY, "--schedule.epochs", "1", "--out", "run"]
LR_FIND = ["lr-find", *TINY]
SIMILARITY = ["similarity", "a.jpg", "b.jpg", "--model", "model", *CPU]
EXTRACT = ["extract", "model", "images", "--out", "new.parquet", "--quiet", *CPU]
VIDEO = ["extract", "model", "file", "--boxes", "boxes.txt", "--out", "new.parquet", "--quiet", *CPU]
EVALUATE = ["evaluate", "model", *DATA, "--quiet", *CPU]
CALIBRATE = ["calibrate", "model", *DATA, "--quiet", *CPU]
SEARCH = ["gallery", "search", "g", "a.jpg", *CPU]
ADD = ["gallery", "add", "g", "--quiet", *CPU]
CLUSTER = ["gallery", "cluster", "g", "--all"]
SERVE = ["serve", "model", "--port", "0", *CPU, "--gallery", "g"]
EXPORT = ["export", "model", "--to", "onnx", "--out"]
EXPLAIN = ["explain", "a.jpg", "b.jpg", "--model", "model", "--out", "why.png", *CPU]
PUSH = ["push", "model", "--dry-run"]
IMPORT = ["import-onnx", "--mean", "0", "0", "0"]
CONVERT = ["convert", "file", "--out", "new"]
LONG = "n" * 300


def options(command, *values):
    """The command with each of the options, which are texts such as `--k 0`."""
    return [[*command, *value.split(" ")] for value in values]


def last(command, *values):
    """The command with each of the values at its end."""
    return [[*command, value] for value in values]


REFUSED = [
    ["trian"], ["\udce9"], ["a\nb"],
    # train, lr-find, summary and demo: the configuration
    *options(
        TRAIN,
        "--preprocessing.size 0 32", "--preprocessing.size -1 32", "--preprocessing.size 64",
        "--preprocessing.mean nan 0 0",
        "--preprocessing.std 0 1 1", "--model.backbone x", "--model.stride 0", "--model.sie-weight nan",
        "--model.sie place",
        "--model.sie-weight inf", "--model.drop-path 1", "--model.dropout -0.1", "--model.head x",
        "--model.head-scale inf",
        "--model.head-margin nan", "--seed -1", "--seed 1.5", "--seed 99999999999999999999", "--schedule.epochs 0",
        "--schedule.epochs -1", "--schedule.gamma nan", "--optimizer.lr nan", "--optimizer.lr inf", "--optimizer.lr 0",
        "--optimizer.clip inf", "--optimizer.ema 1", "--loss.triplet-margin nan", "--loss.id-weight inf",
        "--augmentation.pad -1", "--augmentation.erase 2", "--augmentation.flip nan", "--sampling.identities 0",
        "--sampling.instances 1", "--sampling.identities 1000", "--validation-fraction 1", "--validation-fraction nan",
        "--validation-fraction 0.999", "--micro-batch-size 0", "--evaluate-every -1", "--checkpoint-steps -1",
        "--device nowhere", "--weights file", "--weights folder", "--embedding.batch-size 0", "--evaluation.window nan",
        "--evaluation.protocol x", "--dataset x", "--dataset own+", "--root file", "--root nowhere", "--out file/x",
        "--bogus 1", "x", f"--root {LONG}",
    ),
    *last(["train", "--config"], "empty", "binary", "deep", "folder", "nowhere", LONG), ["train", "--config"],
    *last(["train", "--resume"], "empty", "folder", "nowhere", LONG), ["train", "--resume"], ["train", "nothing"],
    *options(LR_FIND, "--low nan", "--low 0", "--high nan", "--low 2", "--steps 0", "--steps -1",
    "--plot folder --steps 3"),
    *last(["summary"], "nothing", "--config"), ["summary", "--config", "deep"], ["summary", "tiny",
    "--schedule.epochs", "0"],
    *options(["demo"], "--epochs 0", "--epochs -1", "--epochs nan", "--seed -1", "--out images", "--out file/x"),
    # models
    *options(SIMILARITY, "--prior nan", "--prior inf", "--prior 0", "--prior 1", "--prior 7", "--batch-size 0",
    "--cameras x",
             "--model file", "--model nowhere", "--device nowhere", "--modalities rgb x", f"--model {LONG}"),
    ["similarity", "folder", "a.jpg", "--model", "model", *CPU], ["similarity", LONG, "a.jpg", "--model", "model",
    *CPU],
    *options(EXTRACT, "--workers 0", "--workers -1", "--workers 1.5", "--batch-size 0", "--batch-size -1",
             "--modalities x", "--out folder", "--out file/x", "--precision x", "--on-corrupt x", f"--out {LONG}"),
    *options(VIDEO, "--min-confidence nan", "--min-confidence 2", "--boxes nowhere", "--boxes folder", "--start x"),
    *last(["extract", "model", "--out", "new.parquet", *CPU], "folder", "nowhere", "binary.csv", LONG),
    *options(EVALUATE, "--k1 0", "--k2 -1", "--rerank-weight 2", "--rerank-weight nan", "--window nan", "--window inf",
             "--trials 0", "--expand-query -1", "--expand-power inf", "--protocol x", "--figures folder",
             "--figures file/x",
             "--rank-strip folder", "--save-embeddings e.parquet", "--half", "--batch-size 0", "--dataset x",
             "--root file"),
    *last(["evaluate"], "file", "nowhere", "folder", LONG), ["evaluate", "e.parquet", "--dataset", "own"],
    *options(CALIBRATE, "--false-match-rate 0", "--false-match-rate 1", "--false-match-rate nan",
    "--false-match-rate inf",
             "--false-match-rate 1e-300", "--plot folder --false-match-rate 0.1", "--batch-size 0"),
    *([["compare", name, name] for name in ("nowhere", "empty", "binary", "deep", "folder", "file", LONG)]),
    *last(EXPORT, "file/x"), *last([*EXPORT, "new", "--images"], "nowhere", "folder"),
    *options([*EXPORT, "new"], "--images images --max-images 0", "--target avx2", "--to x"),
    *options(CONVERT, "--options noequals", "--options A=[1", "--options A=*a", "--options A=!!python/object:os.system",
             "--config folder", "--config binary", "--config deep", "--options A=1 --dataset x", "--options A=1"),
    [*CONVERT, "--options", "A=" + "[" * 20_000], CONVERT,
    *last([*IMPORT, "--std", "1", "1", "1", "--out", "new"], "file", "folder", "nowhere", LONG),
    *options([*IMPORT, "net.onnx"], "--std 1 1 0 --out new", "--std 1 1 1 --out folder",
             "--std 1 1 1 --size 8 8 --out new"),
    *options(EXPLAIN, "--out folder", "--out file/x", "--cameras x", "--modalities rgb x", "--model nowhere"),
    ["explain", "a.jpg", "file", *EXPLAIN[3:]],
    *last(["push"], "nowhere", "folder", "model"), ["push", "nowhere", "org/name", "--dry-run"],
    *options(PUSH, "org", "org/name/x", "org/name@main", "org/name --revision ..", "org/name --figures file",
             "org/name --figures nowhere"),
    ["models"], ["models", "x"], ["models", "list", "--bogus"],
    # galleries
    *options(SEARCH, "--k 0", "--k -3", "--k 1.5", "--prior 0", "--prior 2", "--prior nan", "--metadata x", "--group x",
             "--query-modality x", "--after x", "--id x"),
    *options(CLUSTER, "--threshold 7", "--threshold -7", "--threshold nan", "--threshold inf",
    "--threshold 0.5 --neighbors 0",
             "--threshold 0.5 --neighbors -1", "--assign x"),
    *last(["gallery", "stats"], "file", "folder", "nowhere", "x://y", LONG), ["gallery", "search", "g", "folder", *CPU],
    *last(["gallery", "create", "--model", "model", *CPU], "file", "images", "file/x", "x://y"), ["gallery", "x"],
    *last(ADD, "nowhere", "binary.csv", LONG), *options(ADD, "--embeddings file", "--embeddings folder",
    "a.jpg --metadata x"),
    ["gallery", "assign", "g"], ["gallery", "undo", "g"], ["gallery", "remove", "g"], ["gallery", "copy", "g", "file"],
    ["gallery", "repair", "file", "new"], ["gallery", "repair", "g", "file"], ["gallery", "to-parquet", "g", "folder"],
    *([["gallery", "from-parquet", name, "new"] for name in ("file", "folder", "nowhere", "e.parquet")]),
    # the service
    *options(SERVE, "--port x", "--port -1", "--port 70000", "--prior 0", "--max-queue 0", "--retention-days 0",
             "--request-seconds nan", "--mcp x", "--host 0.0.0.0", "--host nowhere.invalid", "--decoders 0",
             "--device x", "--state file --host 192.0.2.1"),
    *last([*SERVE[:-1]], "x://y", "file", "images"), ["serve", "nowhere", "--gallery", "new", "--port", "0"],
    *options(["keys", "create", "new"], "--role x", "--days 0", "--days -1", "--days nan", f"--note {LONG}"),
    ["keys", "create", "file"], ["keys", "revoke", "folder", "none"], ["keys", "x"], ["keys", "list"],
    # lists
    *last(["data", "inspect", "own"], "file", "nowhere", "binary.csv", LONG), ["data", "inspect", "x",
    "images"], ["data", "x"],
    ["data", "inspect", "own", "images", "--out", "file"], ["data", "list", "x"], ["data", "clean", "x"],
    ["recipes"], ["recipes", "list", "x"], ["recipes", "list", "list"], ["protocols", "x"], ["protocols", "list",
    "list"],
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, pictures, a gallery and a file of embeddings; and files and a folder that are none of these."""
    root = tmp_path_factory.mktemp("values")
    small_model(root / "model", cameras=("1", "2"))
    for n in range(8):
        picture(root / "images" / f"id{n % 4}" / f"{n}.jpg", n % 4, n)
    for name in ("a.jpg", "b.jpg"):
        picture(root / name)
    write_onnx(root / "net.onnx")
    (root / "file").write_text("x")
    (root / "folder").mkdir()
    (root / "empty").write_text("")
    (root / "binary").write_bytes(b"\xff\xfe\x00")
    (root / "binary.csv").write_bytes(b"path\n\xff\xfe.jpg\n")
    (root / "deep").write_text("[" * 100_000)
    (root / "boxes.txt").write_text("1,1,0,0,10,10,1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main([*EXTRACT[:4], "e.parquet", "--identity-from-folder", *EXTRACT[5:]]) == 0
        assert main(["gallery", "create", "g", "--model", "model", *CPU]) == 0
        assert main([*ADD, "images", "--identity-from-folder"]) == 0
    return root


def test_bad_values_are_refused_in_one_sentence(folder, monkeypatch, capsys):
    assert {command[0] for command in REFUSED} >= set(VERBS)
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    for command in REFUSED:
        capsys.readouterr()
        status = main(command)
        lines = [line for line in capsys.readouterr().err.split("\n") if line.startswith("resight:")]
        assert (status, len(lines)) == (2, 1), command
        assert 20 < len(lines[0]) < 2000, command
    written = {path.name for path in folder.iterdir()} - before
    assert written <= {"new.parquet.parts"}, written


@pytest.mark.parametrize("verb", VERBS)
def test_empty_arguments_and_nul_are_refused(verb, capsys):
    for value, says in (("", "is empty"), ("a\0b", "NUL"), ("--out=", "is empty")):
        assert main([verb, "x", value]) == 2
        error = capsys.readouterr().err
        assert error.startswith("resight: ")
        assert says in error
        assert error.count("\n") == 1


def test_names_of_any_bytes_are_printed(folder):
    """The locale's encoding cannot write such a name; it is escaped."""
    command = [sys.executable, "-m", "resight.cli", "gallery", "verify", "g", "--identity", "\udce9\n\x1b[31m"]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 2)


def test_what_tyro_reports_is_one_sentence(capsys):
    for command, says in (
        (["train", "tiny", "--schedule.epochs",
        "0"], "schedule: epochs: Input should be greater than or equal to 1, not 0"),
        (["train", "tiny", "--seed", "x"], "Error parsing --seed: invalid literal for int() with base 10: 'x'"),
        (["train", "tiny", "--schedule.epoch",
        "1"], "Unrecognized options: --schedule.epoch, 1; Perhaps you meant: --sche"),
        (["similarity", "a"], "Missing from resight similarity: IMAGE Another image. (required) --model FOLDER"),
        (["gallery"], "Expected one of {create, add, "),
        (["gallery", "search", "g", "--k"], "Missing value for argument '--k'. Expected 1 values"),
        (["extract", "m", "--out", "x", "--precision",
        "x"], "invalid choice 'x' for argument '--precision'. Expected one of"),
    ):  # fmt: skip
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"resight: {says}")
        assert f"; resight {command[0]}" in error
        assert error.endswith(" --help lists the options\n")
        assert not set("╭│─") & set(error)
