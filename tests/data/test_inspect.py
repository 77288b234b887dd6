"""What `resight data inspect` says of a data set, and what training refuses."""

import os
import shutil

import pytest
from conftest import picture
from PIL import Image

from resight.cli import main
from resight.config.recipes import find
from resight.data.catalog import read_dataset
from resight.data.inspect import inspect_dataset
from resight.data.readers.folders import IMAGE_SUFFIXES
from resight.errors import DatasetError
from resight.evaluation.checks import prepare
from resight.progress import Progress

HEADER = "path,identity,camera,split\n"
SOUND = "a.jpg,1,c1,train\nb.jpg,1,c2,train\nc.jpg,2,c1,train\nd.jpg,3,c1,query\ne.jpg,3,c2,gallery\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with eight different pictures."""
    for number, name in enumerate("abcdefgh"):
        picture(tmp_path / f"{name}.jpg", number, number % 2)
    return tmp_path


def table(folder, rows, header=HEADER):
    (folder / "t.csv").write_text(header + rows)
    return folder / "t.csv"


def findings(folder, rows, **options):
    inspection = inspect_dataset("own", table(folder, rows), **options)
    return {finding.kind: finding for finding in inspection.findings}, inspection


def test_a_sound_table_has_no_findings(folder):
    by_kind, inspection = findings(folder, SOUND, check=True)
    assert by_kind == {}
    assert (inspection.error(), inspection.corrupt) == ("", [])


def test_a_file_twice_is_said_with_count_and_examples(folder):
    rows = "".join(f"{name}.jpg,1,c1,train\n" * 2 for name in "abcd")
    by_kind, inspection = findings(folder, rows + "e.jpg,3,c1,query\nf.jpg,3,c2,gallery\n")
    finding = by_kind.pop("file-twice")
    assert (finding.count, finding.is_error, by_kind) == (4, False, {})
    assert finding.examples == tuple(str(folder / f"{name}.jpg") for name in "abc")
    assert finding.text.startswith("4 files are in two or more sightings of one part: ")
    assert finding.text.endswith("c.jpg and 1 more")
    assert inspection.error() == ""


def test_another_name_of_a_file_is_that_file(folder):
    (folder / "sub").mkdir()
    os.symlink(folder / "a.jpg", folder / "link.jpg")
    by_kind, _ = findings(folder, SOUND + "link.jpg,1,c1,train\nsub/../c.jpg,2,c1,train\n")
    assert by_kind["file-twice"].count == 2


def test_a_file_of_two_identities_or_cameras(folder):
    by_kind, _ = findings(folder, SOUND + "a.jpg,9,c1,train\nb.jpg,1,c7,train\n")
    assert by_kind["file-of-two-identities"].text == f"1 file has two or more identities: {folder / 'a.jpg'} (1 and 9)"
    assert by_kind["file-of-two-cameras"].examples == (f"{folder / 'b.jpg'} (c2 and c7)",)


@pytest.mark.parametrize(
    ("row", "kind", "example"),
    [
        ("f.jpg,1,c1,query\n", "identity-in-train-and-test", "1"),
        ("f.jpg,2,c1,gallery\n", "identity-in-train-and-test", "2"),
        ("a.jpg,3,c1,test\n", "file-in-train-and-test", "a.jpg"),
    ],
)
def test_an_overlap_of_train_and_test_is_an_error(folder, row, kind, example):
    by_kind, inspection = findings(folder, SOUND + row)
    assert by_kind[kind].is_error
    assert by_kind[kind].examples[0].endswith(example)
    assert inspection.error().endswith("separate train and test, or allow this with --allow-train-test-overlap")
    assert inspection.error(allow_overlap=True) == ""


def test_training_refuses_an_overlap_before_an_image_is_read(folder, monkeypatch):
    path = table(folder, SOUND + "f.jpg,2,c1,gallery\n")
    monkeypatch.setattr("resight.evaluation.checks.corrupt", lambda *_: pytest.fail("an image was read"))
    run = find("tiny").changed(dataset="own", root=path)
    with pytest.raises(DatasetError, match=r"t: 1 identity is both in train and in test: 2; .*--allow-train-test-ov"):
        prepare(run, read_dataset("own", path), Progress(quiet=True))
    monkeypatch.setattr("resight.evaluation.checks.corrupt", lambda *_: [])
    allowed = prepare(run.changed(allow_train_test_overlap=True), read_dataset("own", path), Progress(quiet=True))
    assert len(allowed.train) == 3


def test_labels_that_look_unknown_or_differ_in_case(folder):
    rows = "a.jpg,NaN,c1,train\nb.jpg,nan,C1,train\nc.jpg,None,c1,train\nd.jpg,ok,c2,train\n"
    by_kind, _ = findings(folder, rows + "e.jpg,3,c1,query\nf.jpg,3,c2,gallery\n")
    assert by_kind["identity-like-unknown"].examples == ("'NaN'", "'None'", "'nan'")
    assert by_kind["identity-spelled-twice"].examples == ("'NaN' and 'nan'",)
    assert by_kind["camera-spelled-twice"].examples == ("'C1' and 'c1'",)
    assert "camera-like-unknown" not in by_kind


def test_missing_files_are_counted_without_a_check(folder):
    lost = "".join(f"lost{n}.jpg,2,c1,train\n" for n in range(5))
    by_kind, inspection = findings(folder, SOUND + lost)
    assert (by_kind["missing-file"].count, len(by_kind["missing-file"].examples)) == (5, 3)
    assert inspection.error().startswith("5 files do not exist: ")
    by_kind, inspection = findings(folder, SOUND + lost, check=True)
    assert "missing-file" not in by_kind
    assert len(inspection.corrupt) == 5
    assert inspection.error().startswith("5 of the images are corrupt, such as ")


@pytest.mark.parametrize(
    ("row", "kind", "is_error"),
    [
        ("copy.jpg,1,c1,train\n", "copy", False),
        ("copy.jpg,2,c1,train\n", "copy-of-two-identities", False),
        ("copy.jpg,3,c1,gallery\n", "copy-in-train-and-test", True),
    ],
)
def test_files_with_the_same_bytes_are_found_by_a_check(folder, row, kind, is_error):
    shutil.copy(folder / "a.jpg", folder / "copy.jpg")
    assert findings(folder, SOUND + row)[0] == {}
    by_kind, inspection = findings(folder, SOUND + row, check=True)
    assert {name: finding.is_error for name, finding in by_kind.items()} == {kind: is_error}
    assert by_kind[kind].examples == (f"{folder / 'a.jpg'} = {folder / 'copy.jpg'}",)
    assert bool(inspection.error()) == is_error
    assert inspection.error(allow_overlap=True) == ""


def test_registered_images_of_different_sizes_are_named(folder):
    picture(folder / "t.png", 3, size=(16, 64))
    rows = "a.jpg,t.png,1,train\nb.jpg,,1,train\nc.jpg,d.jpg,2,test\ne.jpg,f.jpg,2,test\n"
    path = table(folder, rows, "rgb,tir,identity,split\n")
    assert inspect_dataset("own", path).findings == ()
    inspection = inspect_dataset("own", path, check=True)
    text = f"1 sighting has registered images of different sizes: {folder / 'a.jpg'} (rgb 32 x 64, tir 16 x 64)"
    assert inspection.error() == text


def test_every_format_that_is_decoded_is_read_in_a_folder(tmp_path):
    image = Image.new("RGB", (8, 8), (10, 200, 30))
    suffixes = {".jpg", ".JPG", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".TIF"}
    suffixes |= {".avif"} & set(IMAGE_SUFFIXES)
    for identity in ("x", "y"):
        (tmp_path / identity).mkdir()
        for number, suffix in enumerate(sorted(suffixes)):
            image.save(tmp_path / identity / f"{number}{suffix}")
    split = read_dataset("own", tmp_path)
    assert len(split.train) == len(split.query) == len(suffixes)
    inspection = inspect_dataset("own", tmp_path, check=True)
    assert inspection.corrupt == []
    assert {finding.kind for finding in inspection.findings} == {"copy-in-train-and-test"}


def test_what_looks_like_a_picture_and_is_not_read_is_counted(tmp_path):
    for identity in ("x", "y"):
        picture(tmp_path / identity / "0.jpg", ord(identity))
        for suffix in (".heic", ".svg", ".txt"):
            (tmp_path / identity / f"0{suffix}").write_bytes(b"?")
    picture(tmp_path / "loose.jpg")
    inspection = inspect_dataset("own", tmp_path)
    (finding,) = inspection.findings
    assert (finding.kind, finding.count, finding.is_error) == ("unread-picture", 5, False)
    assert finding.text.startswith("5 files look like pictures and are not read: ")
    assert not any("not read" in note for note in inspection.notes)  # it is said once
    assert any("5 files look like pictures" in note for note in read_dataset("own", tmp_path).notes)  # in training


def test_a_published_data_set_is_not_blamed_for_what_its_protocol_leaves_out(market):
    assert inspect_dataset("market1501", market).findings == ()  # boxes of identity -1 are there, and no fault
    (market / "query" / "0001.heic").write_bytes(b"?")
    (finding,) = inspect_dataset("market1501", market).findings
    assert (finding.kind, finding.count) == ("unread-picture", 1)


def test_query_and_gallery_that_are_one_table_count_once(painted):
    inspection = inspect_dataset("synthetic", painted, check=True)
    assert inspection.findings == ()


def test_the_command_prints_findings_and_ends_with_status_2(folder, capsys):
    path = table(folder, SOUND + "a.jpg,1,c1,train\nf.jpg,2,c1,gallery\n")
    assert main(["data", "inspect", "own", str(path)]) == 2
    printed = capsys.readouterr()
    assert f"1 file is in two or more sightings of one part: {folder / 'a.jpg'}\n" in printed.out
    assert printed.err.count("\n") == 1
    assert "1 identity is both in train and in test: 2; separate train and test, or allow" in printed.err
    assert main(["data", "inspect", "own", str(path), "--allow-train-test-overlap"]) == 0
    assert "1 identity is both in train and in test: 2\n" in capsys.readouterr().out


def test_the_command_prints_one_json_document(folder, capsys):
    import json

    (folder / "b.jpg").write_bytes(b"")
    path = table(folder, SOUND + "a.jpg,1,c1,train\n")
    assert main(["data", "inspect", "own", str(path), "--check", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in document["findings"]] == ["file-twice"]
    assert len(document["corrupt"]) == 1
