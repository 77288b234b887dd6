"""--json: one JSON object on standard output and nothing else there, in the same way for every verb."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, small_model

from resight.cli import main
from resight.cli.calibrate import Calibrate
from resight.cli.compare import Compare
from resight.cli.demo import Demo
from resight.cli.evaluate import Evaluate
from resight.cli.export import Export
from resight.cli.extract import Extract
from resight.cli.gallery import _ACTIONS
from resight.cli.listing import Listing
from resight.cli.lr_find import FindLearningRate
from resight.cli.output import Output, ProgressOutput, note, plain, row_table, show
from resight.cli.push import Push
from resight.cli.similarity import Similarity
from resight.cli.summary import Summary
from resight.cli.train import Train
from resight.config.evaluation import Evaluation


def document_of(capsys, *command, status=0):
    """The JSON object that a command prints; and what it prints on standard error."""
    capsys.readouterr()
    assert main([*map(str, command), "--json"]) == status
    captured = capsys.readouterr()
    document = json.loads(captured.out)  # fails where anything else is on standard output
    assert isinstance(document, dict)
    return document, captured.err


@pytest.mark.parametrize(
    "kind",
    [Calibrate, Compare, Demo, Evaluate, Export, Extract, FindLearningRate, Listing, Push, Similarity, Summary, Train]
    + [kind for kind, _ in _ACTIONS.values()],
)  # fmt: skip
def test_every_verb_has_the_option(kind):
    assert issubclass(kind, Output)


@pytest.mark.parametrize("kind", [Calibrate, Demo, Evaluate, Extract, FindLearningRate, Train, _ACTIONS["add"][0]])
def test_every_verb_with_progress_can_be_quiet(kind):
    assert issubclass(kind, ProgressOutput)


@dataclass(frozen=True)
class Figures:
    rates: np.ndarray
    folder: Path
    nothing: float


def test_typed_values_become_json():
    figures = Figures(np.array([0.5, np.inf]), Path("a/b"), float("nan"))
    value = {"figures": figures, "settings": Evaluation(k1=7), 3: (1,)}
    document = plain(value)
    assert json.loads(json.dumps(document)) == document
    assert document["figures"] == {"rates": [0.5, None], "folder": "a/b", "nothing": None}
    assert document["settings"] == Evaluation(k1=7).model_dump(mode="json")
    assert document["3"] == [1]


def test_notes_leave_standard_output_to_the_object(capsys):
    for options in (Output(), Output(json=True)):
        show(options, {"a": np.float32(0.5)}, "a line", row_table("rows", [{"a": 1}]))
        note(options, "plot: c.png")
        captured = capsys.readouterr()
        if options.json:
            assert json.loads(captured.out) == {"a": 0.5}
            assert captured.err == "plot: c.png\n"
        else:
            assert captured.out.startswith("a line\nrows\n")
            assert captured.out.endswith("plot: c.png\n")
            assert captured.err == ""


def test_verbs_on_images(capsys, tmp_path, monkeypatch):
    """The real verbs, on a small model: what is printed is what the file has, and rates are from 0 to 1."""
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "m", sie=())
    rows = ["path,identity,camera"]
    for identity in range(12):
        for camera in range(2):
            path = picture(tmp_path / "images" / f"id{identity}" / f"{camera}.jpg", identity, camera)
            rows.append(f"{path},id{identity},c{camera}")
    Path("own.csv").write_text("\n".join(rows))
    cpu = ["--device", "cpu", "--precision", "fp32"]
    split = ["--dataset", "own", "--root", "own.csv", *cpu]

    figures, error = document_of(capsys, "evaluate", "m", *split, "--figures", "f.json", "--junk", "none")
    assert figures == json.loads(Path("f.json").read_text())
    assert 0 <= figures["mAP"] <= 1
    assert "own: " not in error.splitlines()[0]
    assert error.endswith("figures: f.json\n")
    assert document_of(capsys, "evaluate", "m", *split, "--quiet")[1] == ""
    assert document_of(capsys, "compare", "f.json", "f.json")[0]["rows"][0]["difference"] == 0
    calibrated, _ = document_of(capsys, "calibrate", "m", *split, "--false-match-rate", "0.3")
    assert calibrated["file"] == "m/calibration.json"
    assert set(calibrated["calibration_error"]) == {"logistic", "isotonic"}
    pair = ["images/id0/0.jpg", "images/id0/1.jpg"]
    assert 0 <= document_of(capsys, "similarity", *pair, "--model", "m", *cpu)[0]["probability"] <= 1
    assert document_of(capsys, "extract", "m", "images", "--out", "e.parquet", *cpu)[0]["rows"] == 24
    assert document_of(capsys, "summary", "tiny")[0]["sections"][-1]["steps"][-1]["name"] == "mAP"

    assert document_of(capsys, "gallery", "create", "g", "--model", "m", *cpu)[0]["width"] == 64
    added, error = document_of(capsys, "gallery", "add", "g", "images", "--identity-from-folder", *cpu)
    assert added == {"added": 24, "already_present": 0, "corrupt": [], "notes": []}
    assert "24 sightings" in error.splitlines()
    command = ["gallery", "search", "g", pair[0], "--k", 3, "--rank-strip", "s.png", *cpu]
    (entry,) = document_of(capsys, *command)[0]["queries"]
    assert (entry["query"], len(entry["answers"])) == (pair[0], 3)
    assert Path("s.png").read_bytes().startswith(b"\x89PNG")
    assert document_of(capsys, "gallery", "assign", "g", "--of", "id1", "--identity", "ann")[0]["assigned"] == 2
    assert document_of(capsys, "gallery", "undo", "g")[0]["undone"] == 2
    clusters, _ = document_of(capsys, "gallery", "cluster", "g", "--threshold", "0.9", "--all")
    assert 0 <= clusters["agreement"]["f1"] <= 1
    assert document_of(capsys, "gallery", "stats", "g")[0]["records"] == 24
    assert document_of(capsys, "gallery", "copy", "g", "h")[0]["copied"] == 24
    assert document_of(capsys, "gallery", "to-parquet", "g", "g.parquet")[0]["written"] == 24
    assert document_of(capsys, "gallery", "from-parquet", "g.parquet", "i")[0]["added"] == 24
    assert document_of(capsys, "gallery", "remove", "g", "--identity", "id2")[0] == {"removed": 2}
    assert document_of(capsys, "gallery", "verify", "g")[0] == {"records": 22, "faults": []}
    faulty, error = document_of(capsys, "gallery", "verify", "g", "--identity", "id3", status=2)
    assert len(faulty["faults"]) == 2
    assert error.startswith("resight: 2 faults: ")
