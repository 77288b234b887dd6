"""What verbs print, number by number, and what they hand to the public functions, which are replaced."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cli_helpers import lines, refused, tables, texts

from resight.cli.calibrate import Calibrate
from resight.cli.compare import Compare
from resight.cli.demo import Demo
from resight.cli.embedding_options import EmbeddingOptions
from resight.cli.evaluate import Evaluate
from resight.cli.export import Export
from resight.cli.extract import Extract
from resight.cli.lr_find import FindLearningRate
from resight.cli.output import Output, row_table, score_table, show
from resight.cli.similarity import Similarity
from resight.config.folder import FolderOptions
from resight.config.recipes import find
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import ConfigError
from resight.evaluation.compare import Comparison, Difference
from resight.inference.export import Exported
from resight.inference.extract.extract import Extracted, ExtractOptions
from resight.inference.similarity import Similarity as Compared
from resight.retrieval.calibration import Calibration

DEFAULTS = [
    (Calibrate, {"false_match_rate": 1e-3, "plot": None}),
    (Compare, {"seed": 0}),
    (Demo, {"out": Path("demo"), "seed": 0, "epochs": None, "serve": False, "port": 8000}),
    (EmbeddingOptions, {"batch_size": None, "device": "auto"}),
    (Evaluate, {"on_corrupt": "error", "half": False}),
    (Export, {"max_images": 256, "int8": False}),
    (Extract, {"start": 0, "workers": 1, "on_corrupt": "skip"}),
    (FindLearningRate, {"low": 1e-6, "high": 1, "steps": 100}),
    (Similarity, {"prior": 0.5}),
]


@pytest.mark.parametrize(("options", "defaults"), DEFAULTS)
def test_defaults_of_options(options, defaults):
    stated = {field.name: field.default for field in fields(options)}
    assert defaults.items() <= stated.items()


def shown(capsys, *items):
    """What is printed of lines and tables."""
    capsys.readouterr()
    show(Output(), {}, *items)
    return capsys.readouterr().out.splitlines()


def test_tables_of_scores_and_rows(capsys):
    printed = shown(
        capsys, score_table("few", {"mAP": 0.123449, "R1": 1.0}, {"mAP": 0.01251, "R1": 0.0}),
        row_table("some", [{"a": "1.5 %", "b": "x" * 100}, {"a": 12, "b": None}]), row_table("none", []), "a line",
    )  # fmt: skip
    assert tables(printed) == [
        ("few", [["mAP", "R1"], ["12.3 %", "100.0 %"], ["± 1.3 %", "± 0.0 %"]]),
        ("some", [["a", "b"], ["1.5 %", "x" * 100], ["12", ""]]),
    ]
    assert printed[-2:] == ["none", "a line"]
    assert {len(line) for line in shown(capsys, row_table("wide", [{"a": "x" * 300}]))[1:]} == {160}


def test_the_title_of_a_narrow_table_is_one_line(capsys):
    title = "synthetic, protocol market, 2 epochs"
    assert shown(capsys, row_table(title, [{"a": "1"}]))[0] == title


@pytest.mark.parametrize("name", ["[raw]", "[/raw]"])
def test_square_brackets_are_printed_in_tables(capsys, name):
    assert tables(shown(capsys, row_table(name, [{"identity": name}]))) == [(name, [["identity"], [name]])]


# compare, calibrate, similarity


@pytest.mark.parametrize("left_out", [0, 3])
def test_compare(capsys, monkeypatch, left_out):
    rows = [
        Difference("mAP", 0.61849, 0.60251, -0.01598, -0.034567, 0.0021234, 0.0823456),
        Difference("R1", 0.7, 0.75551, 0.05551, 0.0123456, 0.0987654, 0.001),
    ]
    comparison = Comparison(70, left_out, ["junk: a in the first, b in the second"], rows)
    calls = []
    monkeypatch.setattr("resight.evaluation.compare.compare", lambda *a: calls.append(a) or comparison)
    printed = lines(capsys, "compare", "a.json", "b.json")
    assert texts(printed) == [
        "note: junk: a in the first, b in the second",
        "70 queries in both evaluations" + ("; 3 queries are in one of them only and left out" if left_out else ""),
    ]
    assert tables(printed) == [
        (
            "difference = second - first, in percentage points",
            [
                ["figure", "first", "second", "difference", "95 % interval", "p"],
                ["mAP", "61.8 %", "60.3 %", "-1.6", "-3.5 to +0.2", "0.0823"],
                ["R1", "70.0 %", "75.6 %", "+5.6", "+1.2 to +9.9", "0.001"],
            ],
        )
    ]
    assert json.loads("\n".join(lines(capsys, "compare", "a.json", "b.json", "--seed", 4, "--json"))) == (
        asdict(comparison)
    )
    assert calls == [(Path("a.json"), Path("b.json"), 0), (Path("a.json"), Path("b.json"), 4)]


@pytest.fixture
def few():
    """A split of which nothing is read."""
    row = SightingTable.of([Sighting({"rgb": "x"}, "a")])
    return Split("few", SightingTable(), row, row, ("a remark",))


def test_calibrate(capsys, monkeypatch, tmp_path, few):
    calibration = Calibration(
        slope=20, offset=-9, similarity=(0.1, 0.9), probability=(0.2, 0.8), threshold=0.43216, false_match_rate=0.0025,
        true_match_rate=0.98765, dataset="few", same=40, different=900,
    )  # fmt: skip
    curve = np.array([[0.1, 0.2, 1.0]])
    checked = {"logistic": (curve, 0.0123456), "isotonic": (curve + 1, 0.5)}
    calls, embedder = [], SimpleNamespace(description="the model")
    monkeypatch.setattr(EmbeddingOptions, "load", lambda self, folder: calls.append((self, folder)) or embedder)
    monkeypatch.setattr("resight.data.catalog.read_dataset", lambda *a: calls.append(a) or few)
    written = tmp_path / "m" / "calibration.json"
    fitted = SimpleNamespace(calibration=calibration, checked=checked, checked_subsets={}, file=written)
    monkeypatch.setattr(
        "resight.evaluation.calibrate.calibrate", lambda *a, progress: progress(1) or calls.append(a) or fitted
    )
    plots = []
    monkeypatch.setattr("resight.report.curves.reliability_curve", lambda *a: plots.append(a))
    command = ["calibrate", tmp_path / "m", "--dataset", "few", "--root", "folder", "--batch-size", 3]
    printed = lines(capsys, *command)
    assert calls == [
        (EmbeddingOptions(batch_size=3), tmp_path / "m"), ("few", Path("folder"), FolderOptions()),
        (embedder, few, 1e-3),
    ]  # fmt: skip
    assert texts(printed) == [
        "40 same-identity pairs and 900 different-identity pairs; threshold 0.4322: 0.25 % of different-identity pairs "
        "pass, 98.8 % of same-identity pairs",
        f"calibration: {written}",
    ]
    rows = [["curve", "calibration error, unseen identities"], ["logistic", "1.2 %"], ["isotonic", "50.0 %"]]
    assert tables(printed) == [("reliability", rows)]
    assert not plots
    printed = lines(capsys, *command, "--plot", "c.png", "--false-match-rate", 0.25)
    assert calls[-1] == (embedder, few, 0.25)
    assert plots == [({name: table for name, (table, _) in checked.items()}, Path("c.png"))]
    assert printed[-2:] == [f"calibration: {written}", "reliability curve: c.png"]
    document = json.loads("\n".join(lines(capsys, *command, "--json")))
    assert document == json.loads(calibration.model_dump_json()) | {
        "calibration_error": {"logistic": 0.0123456, "isotonic": 0.5}, "file": str(written),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("compared", "printed"),
    [
        (Compared(0.123449, None, None), ["similarity 0.1234"]),
        (Compared(0.98765, 0.98765, True),
        ["similarity 0.9877", "probability of the same identity 98.8 %; the similarity is at or above the threshold"]),
        (Compared(-0.5, 0.0, False),
        ["similarity -0.5000", "probability of the same identity 0.0 %; the similarity is below the threshold"]),
    ],
)  # fmt: skip
def test_similarity(capsys, monkeypatch, compared, printed):
    calls = []
    monkeypatch.setattr(EmbeddingOptions, "load", lambda self, folder: f"model {folder}")
    monkeypatch.setattr("resight.inference.similarity.similarity", lambda *a: calls.append(a) or compared)
    command = ["similarity", "a.jpg", "b.jpg", "--model", "m"]
    assert lines(capsys, *command) == printed
    more = ["--cameras", "1", "2", "--modalities", "rgb", "nir", "--prior", "0.25"]
    assert json.loads("\n".join(lines(capsys, *command, *more, "--json"))) == vars(compared)
    images = "model m", Path("a.jpg"), Path("b.jpg")
    assert calls == [(*images, None, None, 0.5), (*images, ("1", "2"), ("rgb", "nir"), 0.25)]


@pytest.mark.parametrize(
    ("options", "loaded"),
    [
        ({}, {"flip": None, "fusion": None, "unknown": None, "precision": None, "batch_size": None, "device": "auto",
              "scaling": None}),
        (
            {"flip": "on", "fusion": "mean", "unknown": "off", "precision": "auto", "batch_size": 1, "device": "cpu"},
            {"flip": True, "fusion": "mean", "unknown": "off", "precision": "auto", "batch_size": 1, "device": "cpu"},
        ),
        ({"flip": "off", "precision": "bf16"}, {"flip": False, "precision": "bf16"}),
        ({"scaling": {"tir": ("limits", 1, 2)}}, {"scaling": {"tir": ("limits", 1, 2)}}),
    ],
)  # fmt: skip
def test_embedding_options_become_arguments_of_load(monkeypatch, options, loaded):
    calls = []
    monkeypatch.setattr("resight.inference.load.load", lambda folder, **given: calls.append((folder, given)) or "model")
    assert EmbeddingOptions(**options).load(Path("m")) == "model"
    ((folder, given),) = calls
    assert folder == Path("m")
    assert loaded.items() <= given.items()
    assert set(given) == {"flip", "fusion", "unknown", "precision", "batch_size", "device", "scaling"}


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_an_image(size):
    with pytest.raises(ConfigError, match=rf"^--batch-size must be 1 or more, not {size}$"):
        EmbeddingOptions(batch_size=size).given()


# summary, extract, export, convert, lr-find


def test_summary(capsys, monkeypatch):
    calls = []

    class Rendered:
        def render(self, form):
            return f"as {form}"

        def document(self):
            return {"recipe": "x"}

    monkeypatch.setattr("resight.report.walkthrough.summary.summarize", lambda run: calls.append(run) or Rendered())
    assert lines(capsys, "summary", "tiny", "--model.stride", 4) == ["as text"]
    assert calls[-1].model == find("tiny").model.changed(stride=4)
    for form in ("text", "markdown", "html"):
        assert lines(capsys, "summary", "tiny", "--format", form) == [f"as {form}"]
    assert lines(capsys, "summary", "tiny", "--format", "json") == ["{", '  "recipe": "x"', "}"]
    assert lines(capsys, "summary", "tiny", "--json") == ["{", '  "recipe": "x"', "}"]
    lines(capsys, "summary")
    assert calls[-1] == find("transreid-market")


def test_extract(capsys, monkeypatch):
    results = [Extracted(100, 40, ["a", "b"], [], 1.5), Extracted(7, 0, [], [], 0.0), Extracted(7, 7, [], [], 0.0)]
    calls = []

    def extracted(model, source, out, *, workers, options, progress):
        calls.append((model, source, out, workers, options, progress.console.quiet))
        return results[len(calls) - 1]

    monkeypatch.setattr("resight.inference.extract.extract.extract", extracted)
    command = ["extract", "m", "a", "b", "--out", "e.parquet"]
    assert lines(capsys, *command) == [
        "e.parquet: 100 embeddings (40 from an earlier run, 60 new, 40/s), 2 corrupt and skipped"
    ]
    assert lines(capsys, *command, "--quiet") == [
        "e.parquet: 7 embeddings (0 from an earlier run, 7 new, 7000000000/s), 0 corrupt and skipped"
    ]
    more = ["--workers", 3, "--start", 2.5, "--flip", "on", "--camera", "c", "--on-corrupt", "error", "--compile"]
    assert json.loads("\n".join(lines(capsys, *command, *more, "--json"))) == {"file": "e.parquet", **vars(results[2])}
    source = Path("m"), (Path("a"), Path("b")), Path("e.parquet")
    chosen = ExtractOptions(start=2.5, flip=True, camera="c", on_corrupt="error", compile=True)
    assert calls == [
        (*source, 1, ExtractOptions(), False), (*source, 1, ExtractOptions(), True), (*source, 3, chosen, False),
    ]  # fmt: skip


def test_export(capsys, monkeypatch):
    calls = []
    exported = Exported(Path("out"), 0.99987654, 12, None, "AVX2")
    monkeypatch.setattr("resight.inference.export.export", lambda *a: calls.append(a) or exported)
    monkeypatch.setattr("resight.data.readers.anything.read_images", lambda paths: ("read", paths))
    monkeypatch.setattr("resight.data.readers.anything.sample_images", lambda images, count: (images, count))
    command = ["export", "m", "--to", "openvino", "--out", "out"]
    says = "cosine to the model in float32 at least 0.999877, over 12 images, checked on this machine's CPU (AVX2)"
    assert lines(capsys, *command) == [f"out: {says}"]
    exported = replace(exported, target="vnni")
    assert lines(capsys, *command, "--int8", "--target", "vnni", "--images", "a", "b") == [
        f"out: int8 for the target vnni, {says}"
    ]
    images = (("read", [Path("a"), Path("b")]), 256)
    document = json.loads("\n".join(lines(capsys, *command, "--images", "a", "--max-images", 5, "--json")))
    assert document == {**vars(exported), "folder": "out"}
    assert calls == [
        (Path("m"), Path("out"), "openvino", [], False, None),
        (Path("m"), Path("out"), "openvino", images, True, "vnni"),
        (Path("m"), Path("out"), "openvino", (("read", [Path("a")]), 5), False, None),
    ]


def test_convert(capsys, monkeypatch):
    calls, written = [], []
    names = SimpleNamespace(cameras=("0", "1", "2"))
    conversion = SimpleNamespace(
        write=written.append, left_out={"head.weight": "is not used"}, notes=("a note",),
        model=SimpleNamespace(state_dict=lambda: dict.fromkeys("abcd")), card=SimpleNamespace(vocabulary=names),
    )  # fmt: skip
    monkeypatch.setattr("resight.models.convert.options.read_options", lambda file: {"A": 1, "file": str(file)})
    monkeypatch.setattr(
        "resight.models.convert.convert.convert_checkpoint", lambda *a, **o: calls.append((*a, o)) or conversion
    )
    command = ["convert", "w.pth", "--out", "new"]
    printed = ["left out head.weight: is not used", "a note", "4 tensors in new"]
    assert lines(capsys, *command, "--options", "A=[1, x]", "B=") == [
        *printed, "cameras are named 0 to 2, as the reference numbers them",
    ]  # fmt: skip
    names.cameras = ()
    assert lines(capsys, *command, "--config", "c.yml", "--options", "A=2", "--cameras", 6, "--views", 8) == printed
    assert calls == [
        ("w.pth", {"A": [1, "x"], "B": None}, {}),
        ("w.pth", {"A": 2, "file": "c.yml"}, {"cameras": 6, "views": 8}),
    ]
    assert written == [Path("new")] * 2
    assert lines(capsys, *command, "--gem", "--size", 384, 128) == printed
    assert calls[-1] == ("w.pth", None, {"gem": True, "size": (384, 128)})
    assert refused(capsys, *command, "--options", "A") == (
        "the option 'A' is not of the form NAME=VALUE, such as MODEL.JPM=True"
    )
