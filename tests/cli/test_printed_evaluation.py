"""What `resight evaluate` and `resight data` print: every figure of a result at the printed precision."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cli_helpers import lines, refused, tables, texts

from resight.cli import main
from resight.cli.embedding_options import EmbeddingOptions
from resight.config.evaluation import Evaluation
from resight.data.sightings import Sighting, SightingTable, Split
from resight.evaluation.evaluate import evaluate_embeddings
from resight.evaluation.result import camera_pairs, figures, open_set_figures
from resight.evaluation.words import in_words
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, read_embeddings, write_embeddings


@pytest.fixture
def few():
    """A split of which nothing is read."""
    row = SightingTable.of([Sighting({"rgb": "x"}, "a")])
    return Split("few", SightingTable(), row, row, ("a remark",))


@pytest.fixture
def stored(tmp_path):
    """Embeddings of 6 identities under 3 cameras, whose matches are not perfect."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((6, 8))
    x = np.tile(centres, (9, 1)) + 0.9 * rng.standard_normal((54, 8))
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    rows = SightingTable.of(Sighting({"rgb": f"{n}.jpg"}, f"id{n % 6}", f"cam{n // 6 % 3}") for n in range(54))
    write_embeddings(tmp_path / "e.parquet", Embeddings(vectors, rows, EmbeddingsInfo(dataset="few")))
    return tmp_path / "e.parquet"


def percent(value):
    return f"{100 * value:.1f} %"


def figure_name(row):
    """`TAR at FAR 0.1 %` for `TAR@FAR=0.001`."""
    figure, *fixed = row.figure.replace("@", " ").replace("=", " ").split()
    return f"{figure} at {fixed[0]} {100 * float(fixed[1]):g} %" if fixed else figure


@pytest.mark.parametrize("trials", [None, 1, 2, 3])
def test_evaluate_prints_the_figures(capsys, stored, trials):
    settings = Evaluation() if trials is None else Evaluation(protocol="vehicleid", trials=trials, junk="same-camera")
    more = [] if trials is None else ["--protocol", "vehicleid", "--trials", trials, "--junk", "same-camera"]
    printed = lines(capsys, "evaluate", stored, *more, "--cameras", "--open-set")
    name, result = evaluate_embeddings(stored, settings)
    document, summary = figures(result, name), result.summary()
    pairs, open_set = camera_pairs(result), open_set_figures(result)
    bounds = [f"{figure} {100 * low:.1f} to {percent(high)}" for figure, (low, high) in document["interval_95"].items()]
    said = [*in_words(result), "95 % intervals over query identities: " + ", ".join(bounds), open_set.words]
    assert [line for line in texts(printed) if line] == said
    title = f"few, protocol {result.protocol.name}"
    spread = [[f"± {percent(value)}" for value in result.spread().values()]] if (trials or 1) > 1 else []
    assert tables(printed) == [
        (title, [list(summary), [percent(value) for value in summary.values()], *spread]),
        (
            "camera pairs, lowest mAP first",
            [
                ["query camera", "gallery camera", "queries", "mAP", "R1"],
                *([p.query_camera, p.gallery_camera, str(p.queries), percent(p.mAP), percent(p.R1)] for p in pairs),
            ],
        ),
        (
            "open set",
            [
                ["figure", "rate", "threshold"],
                *([figure_name(row), percent(row.rate), f"{row.threshold:.4f}"] for row in open_set.rows),
            ],
        ),
    ]
    assert 0 < summary["mAP"] < 1


def test_evaluate_prints_and_writes_only_what_is_requested(capsys, stored, tmp_path, monkeypatch):
    printed = lines(capsys, "evaluate", stored)
    assert [title for title, _ in tables(printed)] == ["few, protocol market"]
    assert texts(printed)[-1].startswith("95 % intervals")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet"]
    drawn = []
    monkeypatch.setattr("resight.report.strips.rank_strip", lambda result: drawn.append(result) or "strip")
    monkeypatch.setattr("resight.report.strips.save_picture", lambda picture, path: path.write_text(picture))
    strip, saved, file = tmp_path / "s.png", tmp_path / "f.parquet", tmp_path / "a.json"
    command = ["evaluate", stored, "--rank-strip", strip, "--save-embeddings", saved]
    notes = [f"rank strip: {strip}", f"embeddings: {saved}"]
    assert lines(capsys, *command, "--figures", file) == [*printed, f"figures: {file}", *notes]
    document = json.loads(file.read_text())
    assert set(document) & {"camera_pairs", "open_set"} == set()
    assert (strip.read_text(), len(drawn)) == ("strip", 1)
    assert read_embeddings(saved)[0].vectors.dtype == np.float32
    saved.unlink()
    capsys.readouterr()
    assert main([*map(str, command), "--json", "--cameras", "--open-set"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == notes
    everything = json.loads(captured.out)
    assert {name: everything[name] for name in document} == document
    _, result = evaluate_embeddings(stored)
    assert everything["camera_pairs"] == [vars(pair) for pair in camera_pairs(result)]
    assert everything["open_set"] == json.loads(json.dumps(asdict(open_set_figures(result))))
    assert everything["settings"] == Evaluation().model_dump(exclude={"protocol", "junk", "trials"})


def test_evaluate_refuses_options_that_do_not_fit(capsys, stored, tmp_path):
    for more in (["--dataset", "few"], ["--root", "x"], ["--dataset", "few", "--root", "x"]):
        assert refused(capsys, "evaluate", stored, *more) == (
            f"{stored} has its own data set: leave --dataset and --root out"
        )
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    for more in ([], ["--dataset", "market1501"], ["--root", "x"]):
        assert refused(capsys, "evaluate", tmp_path / "m", *more) == (
            f"to evaluate {tmp_path / 'm'}, give --dataset NAME and --root FOLDER_OR_TABLE"
        )
    assert refused(capsys, "evaluate", stored, "--half").startswith("--half is for --save-embeddings FILE")
    assert refused(capsys, "evaluate", stored, "--save-embeddings", stored).endswith(
        "exists already; choose another name for --save-embeddings"
    )


def test_evaluate_of_a_model(capsys, stored, tmp_path, monkeypatch, few):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    calls, (_, result) = [], evaluate_embeddings(stored)
    embedder = SimpleNamespace(
        description="the model", settings=SimpleNamespace(unknown="mean"), scaling={},
        unknown_labels=lambda table: {"camera": ["c1", "c2"], "view": ["v1"]},
    )  # fmt: skip
    monkeypatch.setattr("resight.data.catalog.read_dataset", lambda *a: few)
    checked = "resight.evaluation.checks.checked_for_evaluation"
    monkeypatch.setattr(checked, lambda *a: calls.append((*a[:3], a[4])) or a[0])
    monkeypatch.setattr(
        "resight.evaluation.as_trained.load_as_trained", lambda *a, **o: calls.append((a[0], o)) or embedder
    )
    monkeypatch.setattr("resight.evaluation.evaluate.evaluate", lambda *a: calls.append(a[:-1]) or result)
    command = ["evaluate", tmp_path / "m", "--dataset", "few", "--root", "x", "--flip", "on", "--on-corrupt", "skip"]
    capsys.readouterr()
    assert main([*map(str, command), "--k1", "7"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "the model",
        "few: 1 query, which are also the gallery",
        "not in training: 2 cameras, such as c1; their mean is used",
        "not in training: 1 view, such as v1; their mean is used",
    ]
    assert tables(captured.out.splitlines())[0][0] == "few, protocol market"
    settings = Evaluation(k1=7)
    assert calls == [
        (tmp_path / "m", EmbeddingOptions(flip="on").given()), (few, settings, "skip", {}), (embedder, few, settings),
    ]  # fmt: skip
    assert main([*map(str, command), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_data_inspect_prints_the_counts(capsys, monkeypatch, tmp_path):
    from resight.data.inspect import Inspection, PartCounts

    parts = [
        PartCounts("train", 24, 48, 6, 2, 1, ("rgb", "nir")), PartCounts("query", 8, 9, 4, 3, 0, ("rgb",)),
    ]  # fmt: skip
    inspection = Inspection("few", "the split", parts, ("one", "two"), None)
    calls, written = [], []
    monkeypatch.setattr("resight.data.inspect.inspect_dataset", lambda *a, **o: calls.append(a) or inspection)
    monkeypatch.setattr("resight.data.inspect.write_tables", lambda *a: written.append(a))
    command = ["data", "inspect", "few", "x"]
    printed = lines(capsys, *command)
    assert tables(printed) == [
        (
            "few",
            [
                ["part", "sightings", "images", "identities", "cameras", "views", "modalities"],
                ["train", "24", "48", "6", "2", "1", "rgb nir"],
                ["query", "8", "9", "4", "3", "0", "rgb"],
            ],
        )
    ]
    assert texts(printed) == ["one", "two"]
    assert not written
    document = {"name": "few", "parts": [json.loads(json.dumps(vars(p))) for p in parts], "notes": ["one", "two"]}
    document |= {"findings": []}
    assert json.loads("\n".join(lines(capsys, *command, "--json", "--out", "new"))) == document
    assert written == [("the split", Path("new"))]
    inspection = replace(inspection, corrupt=[], notes=())
    says = "all images can be decoded (57, with query and gallery counted separately)"
    assert texts(lines(capsys, *command, "--check")) == [says]
    assert json.loads("\n".join(lines(capsys, *command, "--check", "--json"))) == document | {
        "notes": [],
        "corrupt": [],
    }
    inspection = replace(inspection, corrupt=["a is empty", "b is empty"])
    capsys.readouterr()
    assert main([*command, "--check"]) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-2:] == ["a is empty", "b is empty"]
    assert captured.err == "resight: 2 of the images are corrupt, such as a is empty\n"
    assert [call[2] for call in calls] == [False, False, True, True, True]


def test_data_clean_and_list(capsys, monkeypatch):
    monkeypatch.setattr("resight.data.cache.clean", lambda: (3, 7_600_000))
    monkeypatch.setattr("resight.data.cache.cache_folder", lambda: "the folder")
    assert lines(capsys, "data", "clean") == ["3 packed training sets removed from the folder, 7 MiB"]
    assert lines(capsys, "data", "list")[0] == "market1501          protocol market"
