"""What `evaluate --modality-matrix` and `calibrate` print for a model of several modalities."""

import json

import pytest
from cli_helpers import lines, refused, tables
from conftest import picture, small_model

from resight.cli import main

MODALITIES = ("rgb", "tir")
IDENTITIES = 12


@pytest.fixture
def command(tmp_path, monkeypatch) -> list[str]:
    """The model and the data set of a command: each identity twice, in two modalities."""
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "m", modalities=MODALITIES, fusion="mean", sie=("modality",))
    rows = ["rgb,tir,identity,camera"]
    for identity in range(IDENTITIES):
        for camera in range(2):
            files = [picture(tmp_path / m / f"{identity}_{camera}.jpg", identity, camera) for m in MODALITIES]
            rows.append(",".join([*map(str, files), f"id{identity}", f"c{camera + 1}"]))
    (tmp_path / "own.csv").write_text("\n".join(rows))
    return ["m", "--dataset", "own", "--root", "own.csv", "--device", "cpu", "--precision", "fp32", "--quiet"]


def test_cost_stands_beside_the_matrix(capsys, command, tmp_path):
    printed = lines(capsys, "evaluate", *command, "--modality-matrix", "--heat-map", "map.png")
    (cells,) = (rows for title, rows in tables(printed) if title.startswith("cost of embedding a sighting"))
    assert cells[0] == ["sighting", "parameters", "MFLOPs", "images/s"]
    assert [row[0] for row in cells[1:]] == ["rgb", "tir", "rgb+tir"]
    one, two = (float(cells[n][2].replace(",", "")) for n in (1, 3))
    assert two == pytest.approx(2 * one, abs=0.11)  # printed with one decimal
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    assert main(["evaluate", *command, "--modality-matrix", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["modality_matrix"]["cost"]
    assert cost["rgb+tir"]["flops"] == 2 * cost["tir"]["flops"]
    assert f"{cost['tir']['flops'] / 1e6:,.1f}" == cells[2][2]
    assert f"{cost['tir']['parameters']:,}" == cells[2][1]
    assert cost["tir"]["images_per_second"] > 0


def test_a_heat_map_without_a_matrix_is_refused(capsys, command):
    assert refused(capsys, "evaluate", *command, "--heat-map", "map.png").startswith("--heat-map draws the matrix")


def test_calibration_errors_of_subsets_are_printed(capsys, command, monkeypatch):
    monkeypatch.setattr("resight.evaluation.calibrate._MIN_PAIRS", 1)
    printed = lines(capsys, "calibrate", *command, "--false-match-rate", "0.3")
    (rows,) = (rows for title, rows in tables(printed) if title.startswith("isotonic curves between subsets"))
    assert [row[:2] for row in rows[1:]] == [
        [query, gallery] for query in ("rgb", "tir", "rgb+tir") for gallery in ("rgb", "tir", "rgb+tir")
    ]
    capsys.readouterr()
    assert main(["calibrate", *command, "--false-match-rate", "0.3", "--json"]) == 0
    errors = json.loads(capsys.readouterr().out)["calibration_error_subsets"]
    assert [error["gallery"] for error in errors[:3]] == ["rgb", "tir", "rgb+tir"]
    assert f"{100 * errors[1]['error']:.1f} %" == rows[2][2]
