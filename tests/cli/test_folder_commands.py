"""The options of folders of images, at every command that reads one."""

import pytest
from cli_helpers import lines, refused, tables
from conftest import picture, small_model

from resight.inference.embeddings import read_embeddings


@pytest.fixture
def named(tmp_path):
    """A folder with an identity and a camera in the names."""
    for identity in range(4):
        for camera in (1, 2):
            picture(tmp_path / "named" / "x" / f"{identity}_c{camera}.jpg", identity, camera)
    return tmp_path / "named"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (
            ["--camera", "a", "--filename-pattern", "(?P<camera>.)"],
            "camera is stated by --camera and by the pattern: leave",
        ),
        (["--filename-pattern", "("], "'(' is no regular expression: missing ), unterminated subpattern at position 0"),
        (["--filename-pattern", "(?P<camera>cam)"], "(?P<camera>cam) matches none of the 8 images of"),
        (["--filename-pattern", "(?P<cam>.)"], "the group 'cam' is not one of identity, camera, view"),
    ],
)
def test_every_command_that_reads_a_folder_has_the_options(command, says, named, tmp_path, capsys):
    model = small_model(tmp_path / "model")
    for verb in (
        ["data", "inspect", "own", named],
        ["extract", model, named, "--out", tmp_path / "e.parquet"],
        ["gallery", "add", tmp_path / "g", named, "--model", model],
        ["evaluate", model, "--dataset", "own", "--root", named],
        ["calibrate", model, "--dataset", "own", "--root", named],
        ["train", "tiny", "--dataset", "own", "--root", named],
    ):
        assert says in refused(capsys, *verb, *command)


PATTERN = r"(?P<identity>\d)_c(?P<camera>\d)"


def test_the_commands_read_what_the_options_state(named, tmp_path, capsys):
    model = small_model(tmp_path / "model", cameras=("1", "2"))
    (table,) = tables(lines(capsys, "data", "inspect", "own", named, "--filename-pattern", PATTERN))
    assert [row[:5] for row in table[1][1:]] == [
        ["train", "6", "6", "3", "2"], ["query", "2", "2", "1", "2"], ["gallery", "2", "2", "1", "2"]
    ]  # fmt: skip
    out = tmp_path / "e.parquet"
    lines(capsys, "extract", model, named, "--out", out, "--filename-pattern", PATTERN, "--quiet")
    stored = read_embeddings(out)[0].sightings
    assert [(s.identity, s.camera) for s in stored] == [(str(n), c) for n in range(4) for c in "12"]
    gallery = tmp_path / "g"
    lines(capsys, "gallery", "add", gallery, named, "--model", model, "--camera", "door", "--quiet")
    assert "cameras             door 8" in lines(capsys, "gallery", "stats", gallery)


def test_tables_and_embeddings_refuse_the_options_of_folders(named, tmp_path, capsys):
    model, out = small_model(tmp_path / "model"), tmp_path / "e.parquet"
    lines(capsys, "extract", model, named, "--out", out, "--quiet")
    says = "leave --camera out"
    assert says in refused(capsys, "evaluate", out, "--camera", "x")
    assert says in refused(capsys, "gallery", "add", tmp_path / "g", "--embeddings", out, "--camera", "x")
    (tmp_path / "t.csv").write_text("path\nnamed/x/0_c1.jpg\n")
    line = refused(capsys, "extract", model, tmp_path / "t.csv", "--out", tmp_path / "f.parquet", "--camera", "x")
    assert line == f"--camera is for folders of images, and {tmp_path / 't.csv'} is a table: state it in its columns"
    line = refused(capsys, "extract", model, named, "--out", tmp_path / "f.parquet", "--modalities", "y")
    assert line == f"{named} has no folder y of a modality; found x/"


def test_what_is_not_read_is_said(named, tmp_path, capsys):
    (named / "x" / "phone.heic").write_bytes(b"?")
    model = small_model(tmp_path / "model")
    text = f"1 file looks like a picture and is not read: {named / 'x' / 'phone.heic'}"
    from resight.cli import main

    for command in (
        ["extract", model, named, "--out", tmp_path / "e.parquet"],
        ["gallery", "add", tmp_path / "g", named, "--model", model],
    ):
        assert main([str(word) for word in command]) == 0
        printed = capsys.readouterr()
        assert text in (printed.out + printed.err).replace("\n", " ")
