"""Sentences that a user reads: each states what happened, without a wrong or a cryptic word."""

import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import lines, refused
from conftest import picture, small_model

import resight
from resight.cli import main
from resight.cli.extract import _continuation as extract_continuation
from resight.cli.gallery import _continuation, options
from resight.cli.output import on_interrupt
from resight.cli.train import continuation
from resight.evaluation.calibrate import calibrate
from resight.gallery.answers import Answer
from resight.gallery.record import Record
from resight.inference.load import load


def test_evaluate_of_a_path_that_does_not_exist(capsys, tmp_path):
    says = f"{tmp_path / 'nowhere'} does not exist: give a model folder or a file of embeddings"
    assert refused(capsys, "evaluate", tmp_path / "nowhere") == says
    assert refused(capsys, "evaluate", tmp_path) == f"there is no model folder or file of embeddings at {tmp_path}"


def test_a_picture_over_the_limit_states_its_size(capsys, tmp_path, monkeypatch):
    """In one line, without a warning of Pillow."""
    monkeypatch.setenv("RESIGHT_MAX_MEGAPIXELS", "0.001")
    path = picture(tmp_path / "a.png", size=(40, 60))
    small_model(tmp_path / "m", sie=())
    says = refused(capsys, "similarity", path, path, "--model", tmp_path / "m", "--device", "cpu")
    assert says.startswith(f"{path} has 40 x 60 pixels, and the limit is 0.001 megapixels: ")


@pytest.fixture
def gallery(tmp_path, monkeypatch):
    """A gallery of one record, in the folder `g` of the working folder."""
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "m", sie=())
    picture(tmp_path / "a.jpg")
    assert main(["gallery", "add", "g", "a.jpg", "--model", "m", "--device", "cpu", "--quiet"]) == 0


def test_messages_of_a_gallery_with_one_record(capsys, gallery):
    assert lines(capsys, "gallery", "cluster", "g", "--threshold", "0.5") == [
        "1 record in 1 group; 1 of the groups has a single record"
    ]
    assert lines(capsys, "gallery", "verify", "g", "--identity", "zoe") == [
        "1 record, no fault", "no record and no log entry has the identity 'zoe'",
    ]  # fmt: skip
    assert refused(capsys, "gallery", "undo", "g") == "there is no assignment to take back"
    with resight.open_gallery("g") as opened:
        record_id = next(iter(opened.engine.scan())).id
    assert lines(capsys, "gallery", "assign", "g", record_id, "--identity", "ann") == [
        "1 record assigned to ann; undo with: resight gallery undo g"
    ]
    assert lines(capsys, "gallery", "cluster", "g", "--threshold", "0.5") == [
        "Nothing to cluster: its record has an identity (--all includes them)"
    ]
    assert lines(capsys, "gallery", "undo", "g")[0].startswith("undone: 1 record assigned to ann at ")
    assert refused(capsys, "gallery", "undo", "g") == "there is no assignment to take back"
    assert lines(capsys, "gallery", "remove", "g", "--id", record_id) == ["1 record removed, with all traces"]
    printed = lines(capsys, "gallery", "cluster", "g", "--threshold", "0.5")
    assert printed == ["Nothing to cluster: the gallery is empty"]


def test_an_interruption_names_the_command_that_continues(tmp_path):
    run = tmp_path / "run"
    assert continuation(run) == "nothing was written; run the same command again"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert continuation(run) == f"continue with: resight train --resume {run}"
    assert extract_continuation(tmp_path / "e.parquet").startswith("nothing was written")
    (tmp_path / "e.parquet.parts").mkdir()
    assert extract_continuation(tmp_path / "e.parquet").startswith("run the same command again: it continues with")
    assert _continuation(options.Stats("g")) == "nothing was written"
    assert "run the same command again to add the others" in _continuation(options.Add("g"))
    assert "completely or not at all" in _continuation(options.Undo("g"))
    with pytest.raises(KeyboardInterrupt, match=r"^a sentence$"), on_interrupt(lambda: "a sentence"):
        raise KeyboardInterrupt


def test_a_reader_that_ends_early_is_no_error():
    """`resight --help | head -1`"""
    command = f"{sys.executable} -m resight.cli --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Resight: ")
    assert done.stderr == ""


def test_help_states_the_version_and_names_arguments(capsys):
    assert main(["--help"]) == 0
    assert "resight --version" in capsys.readouterr().out
    for command in (["gallery", "search"], ["gallery", "add"], ["similarity"], ["extract"], ["evaluate"], ["compare"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        names = text[: text.index("--help")]  # of the positional arguments
        assert "STR STR" not in text
        assert " STR" not in names, command


def test_representations_are_short(tmp_path, market):
    small_model(tmp_path / "m", sie=())
    model = load(tmp_path / "m", "cpu", "fp32")
    with resight.create_gallery(tmp_path / "g", model) as opened:
        assert repr(opened) == f"Gallery(SQLiteEngine, width 64, model {tmp_path / 'm'})"
    record = Record("r1", model.embed(picture(tmp_path / "a.jpg"))[0], "ann")
    assert len(repr(Answer(record, 0.5, None, None))) < 300
    assert "object at 0x" not in repr(model)
    assert {"Gallery", "evaluate", "load"} <= set(dir(resight))


def test_calibrate_is_one_call(tmp_path, market):
    small_model(tmp_path / "m", sie=())
    split = resight.read_dataset("market1501", market)
    result = calibrate(tmp_path / "m", split, 0.3)
    assert result.file == tmp_path / "m" / "calibration.json"
    assert load(tmp_path / "m", "cpu").calibration == result.calibration
    assert calibrate(load(tmp_path / "m", "cpu"), split, 0.3, store=False).file is None
    assert not Path("calibration.json").exists()
