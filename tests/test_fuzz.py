"""Values of any kind, drawn by hypothesis: an entry point accepts them, or raises a ResightError of one sentence."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resight.config.recipes import tiny, vary
from resight.config.run import Run, read_run
from resight.config.sections import Embedding
from resight.config.yaml_text import parse_yaml
from resight.data.boxes import read_boxes
from resight.data.catalog import read_dataset
from resight.data.readers.anything import read_images
from resight.data.sightings import LABELS, Sighting, SightingTable
from resight.errors import ConfigError, DatasetError, ResightError
from resight.evaluation.as_trained import read_compute
from resight.evaluation.compare import compare
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.gallery import Gallery
from resight.gallery.record import Filter, GalleryInfo, Record
from resight.inference.inputs import as_inputs
from resight.inference.similarity import similarity
from resight.inference.tracker_features import TrackerFeatures
from resight.models.checkpoint import ModelCard
from resight.retrieval.calibration import Calibration

FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def few(count):
    return settings(max_examples=count, deadline=None, suppress_health_check=FIXTURES)


NUMBERS = st.one_of(
    st.integers(-5, 5), st.integers(), st.floats(), st.sampled_from([2**63, -(2**64), 10**400, 1e308, -0.0, 1e-320])
)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["nan", "inf", "", "a\0b", "\ud800", "\udce9", "x" * 300, "1"]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JSON = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
ANYTHING = st.one_of(JSON, st.binary(max_size=4), st.just(np.float32("nan")), st.just(np.arange(3)), st.builds(object))


def accepts_or_refuses(function, *arguments, **options):
    """The result; None where a ResightError of one sentence was raised."""
    refusal = ""
    try:
        return function(*arguments, **options)
    except ResightError as error:
        refusal = str(error)
    assert 0 < len(refusal) < 3000
    return None


# Tables

COLUMNS = ["path", "modality", "rgb", "nir", "tir", *LABELS, "time", "split", "bogus", "a\0b", ""]
CELLS = st.one_of(
    st.sampled_from(["", "nan", "inf", "-inf", "1e999", "rgb", "test", "train", "a.jpg", '"', "'", "\0", "\udcff"]),
    st.text(max_size=6), st.just("x" * 200_000),
)  # fmt: skip


@few(60)
@given(st.lists(st.sampled_from(COLUMNS), max_size=5), st.lists(st.lists(CELLS, max_size=5), max_size=4))
def test_csv_tables(tmp_path, names, rows):
    text = "\n".join(",".join(row) for row in [["path", *names], *(["a.jpg", *row] for row in rows)])
    (tmp_path / "t.csv").write_bytes(text.encode("utf-8", "surrogateescape" if "\ud800" not in text else "replace"))
    for read in (lambda path: read_dataset("own", path), lambda path: read_images([path]), SightingTable.read):
        accepts_or_refuses(read, tmp_path / "t.csv")


@few(40)
@given(st.binary(max_size=200))
def test_files_that_are_no_tables(tmp_path, data):
    for name in ("t.csv", "t.parquet"):
        (tmp_path / name).write_bytes(data)
        accepts_or_refuses(read_images, [tmp_path / name])
        accepts_or_refuses(SightingTable.read, tmp_path / name)


ARROW = [
    pa.string(), pa.large_string(), pa.int64(), pa.uint64(), pa.float64(), pa.float16(), pa.bool_(), pa.binary(),
    pa.timestamp("ns"), pa.timestamp("s", "Nowhere/City"), pa.date32(), pa.duration("s"), pa.list_(pa.string()),
    pa.list_(pa.list_(pa.int8())), pa.struct([("a", pa.int8())]), pa.decimal128(38, 3), pa.null(),
    pa.dictionary(pa.int8(), pa.string()), pa.map_(pa.string(), pa.int8()),
]  # fmt: skip


@st.composite
def arrow_columns(draw):
    """A column of any type: of two values, one of which may be unknown, NaN, infinite, or of raw bytes."""
    kind = draw(st.sampled_from(ARROW))
    if pa.types.is_floating(kind):
        return pa.array([draw(st.sampled_from([math.nan, math.inf, -math.inf, 1.0, 1.5, None])), 2.0], kind)
    if pa.types.is_string(kind):
        text = pa.array([draw(st.sampled_from([b"\xff\xfe", b"a\0b", b"nan", b"", b"a.jpg", b"test"])), b"b"])
        return pa.Array.from_buffers(kind, 2, text.buffers())  # not checked to be UTF-8
    if pa.types.is_integer(kind):
        return pa.array([draw(st.integers(0, 2**63 - 1)), None], pa.int64()).cast(kind)
    if kind == pa.timestamp("ns"):
        return pa.array([2**62, None], pa.int64()).cast(kind)
    return pa.array([None, None], kind)


@few(80)
@given(st.lists(st.tuples(st.sampled_from(COLUMNS), arrow_columns()), max_size=4))
def test_parquet_tables(tmp_path, columns):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([array for _, array in columns], [name for name, _ in columns]), path)
    accepts_or_refuses(read_dataset, "own", path)
    full = {name: pa.nulls(2, pa.string()) for name in ("rgb", "nir", "tir", *LABELS, "time")} | dict(columns)
    pq.write_table(pa.table(full), path)
    accepts_or_refuses(SightingTable.read, path)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"time": [math.nan]}, "the time nan; leave it empty"),
        ({"time": [math.inf]}, "the time inf; leave it empty"),
        ({"time": ["1.5"]}, "column time of type string, and must have a number of seconds"),
        ({"time": [[1.0]]}, "column time of type list<"),
        ({"identity": [["a"]]}, "column identity of type list<"),
        ({"identity": [1.5]}, "unusable value in the column identity"),
        ({"identity": [math.nan]}, "unusable value in the column identity"),
        ({"camera": [b"\xff"]}, "column camera of type binary"),
        ({"path": [3.5]}, "unusable value in the column path"),
    ],
)
def test_columns_of_another_type_are_named(tmp_path, column, says):
    pq.write_table(pa.table({"path": ["a.jpg"]} | column), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"column|time") as error:
        read_images([tmp_path / "t.parquet"])
    assert says in str(error.value)


def test_numbers_become_labels_and_empty_texts_are_unknown(tmp_path):
    rows = {"path": ["a.jpg", "b.jpg"], "identity": [7.0, None], "camera": ["", "c"], "time": [1, None]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    first, second = read_images([tmp_path / "t.parquet"])
    assert (first.identity, first.camera, first.time) == ("7", None, 1.0)
    assert (second.identity, second.camera, second.time) == (None, "c", None)


def test_doubled_columns_huge_cells_and_byte_order_marks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,identity,identity\na.jpg,1,2\n")
    with pytest.raises(DatasetError, match="has the column 'identity' twice"):
        read_images([path])
    path.write_text("x" * 200_000 + ",path\n1,2\n")
    assert accepts_or_refuses(read_images, [path]) is None
    path.write_text("\ufeffpath,identity\na.jpg,007\n")  # as spreadsheets write it
    assert read_images([path])[0].identity == "007"


def test_names_that_no_file_can_have(tmp_path):
    for name in ("a\0b", "x" * 2000, "\udce9\ud800"):
        for read in (read_images, lambda paths: SightingTable.read(paths[0]), lambda paths: read_boxes(paths[0])):
            assert accepts_or_refuses(read, [tmp_path / name]) is None
        with pytest.raises(ConfigError, match="cannot be read"):
            read_run(tmp_path / name)


@few(80)
@given(st.dictionaries(st.sampled_from(["rgb", "tir", "uv", 3]), st.just(Path("a.jpg")) | ANYTHING, max_size=2),
       st.dictionaries(st.sampled_from([*LABELS, "time"]), ANYTHING, max_size=3))  # fmt: skip
def test_sightings_of_any_values(images, fields):
    sighting = Sighting(images, **fields)
    table = accepts_or_refuses(SightingTable.of, [sighting])
    if table is not None:
        assert table[0].time is None or table[0].time == float(sighting.time)
    accepts_or_refuses(SightingTable.of, [Sighting(fields.get("time"))])
    accepts_or_refuses(as_inputs, sighting, None, None, None, ("rgb", "tir"))


@few(60)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_labels_of_pictures(camera, view, modality):
    for images in ("a.jpg", ["a.jpg", "b.jpg"], [{"rgb": "a.jpg"}], []):
        inputs = accepts_or_refuses(as_inputs, images, camera, view, modality, ("rgb", "tir"))
        if inputs is not None:
            inputs.numbers(("c",), (), ("rgb", "tir"))


# Boxes

BOX_CELLS = st.one_of(st.sampled_from(["nan", "inf", "-inf", "1e400", "", "-1", "1.5", "10", "2"]), NUMBERS.map(str))


@few(80)
@given(st.lists(BOX_CELLS, max_size=8), st.sampled_from([None, 0.5, -math.inf, math.nan, 2.0]))
def test_boxes_of_motchallenge(tmp_path, cells, confidence):
    (tmp_path / "boxes.txt").write_text(f"1,1,0,0,10,10,1\n{','.join(cells)}\n")
    require_plain(accepts_or_refuses(read_boxes, tmp_path / "boxes.txt", confidence))


BOX_KEYS = ["frame", "box", "bbox", "tracklet", "track_id", "confidence", "score", "identity"]
BOX_VALUES = st.one_of(JSON, st.lists(st.one_of(st.integers(0, 9), NUMBERS), min_size=4, max_size=4))


@few(80)
@given(st.dictionaries(st.sampled_from(BOX_KEYS), BOX_VALUES))
def test_boxes_of_json(tmp_path, entry):
    boxes = {"frame": 0, "box": [0, 0, 5, 5]} | entry
    (tmp_path / "boxes.json").write_text(json.dumps([boxes]))
    (tmp_path / "boxes.jsonl").write_text(json.dumps(boxes))
    for name in ("boxes.json", "boxes.jsonl"):
        require_plain(accepts_or_refuses(read_boxes, tmp_path / name))


def require_plain(boxes):
    for box in boxes or []:
        assert box.frame >= 0
        assert math.isfinite(box.right - box.left)
        assert math.isfinite(box.bottom - box.top)
        assert box.confidence is None or math.isfinite(box.confidence)
        assert box.tracklet is None or isinstance(box.tracklet, str)


def test_deep_boxes(tmp_path):
    for name in ("deep.json", "deep.jsonl"):
        (tmp_path / name).write_text("[" * 100_000)
        assert accepts_or_refuses(read_boxes, tmp_path / name) is None


class Zeros:
    """In the place of an embedder."""

    width = 4

    def embed(self, crops, camera):
        assert all(crop.size for crop in crops)
        return np.zeros((len(crops), 4), np.float32)


@few(60)
@given(
    ANYTHING | st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=2),
    ANYTHING | st.just(np.zeros((0, 5, 3), np.uint8)),
)
def test_boxes_and_frames_of_a_tracker(boxes, frame):
    features = accepts_or_refuses(TrackerFeatures(Zeros()), np.zeros((9, 9, 3), np.uint8), boxes)
    assert features is None or features.shape[1] == 4
    accepts_or_refuses(TrackerFeatures(Zeros()), frame, [[0, 0, 5, 5]])


# Configuration

FIELDS = {name: field.annotation for name, field in Run.model_fields.items()}
SECTIONS = [name for name, kind in FIELDS.items() if hasattr(kind, "model_fields")]


@few(150)
@given(st.sampled_from(sorted(FIELDS)), st.data(), ANYTHING)
def test_runs_of_any_values(tmp_path, name, data, value):
    if name in SECTIONS and data.draw(st.booleans()):
        value = {data.draw(st.sampled_from(sorted(FIELDS[name].model_fields))): value}
    run = accepts_or_refuses(vary, tiny(), **{name: value})
    if run is not None:
        assert Run.model_validate_json(run.model_dump_json()) == run  # NaN would not be equal
    accepts_or_refuses(tiny().embedding.changed, **{"batch_size": value, "flip": value})


@few(100)
@given(JSON, st.sampled_from(sorted(FIELDS)))
def test_configuration_files(tmp_path, value, name):
    path = tmp_path / "config.json"
    for document in (value, {name: value}, {**json.loads(tiny().model_dump_json()), name: value}):
        path.write_text(json.dumps(document))
        accepts_or_refuses(read_run, path)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"seed":' * 100_000, b'{"seed": NaN}',
             b'{"seed": ' + b"1" * 5000 + b"}", b'{"optimizer": {"lr": Infinity}}', b'{"\xff": 1}', b"null",
             b'{"seed": 1, "seeds": 2}'],
)  # fmt: skip
def test_configuration_files_of_any_bytes(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"config\.json is not a run's configuration"):
        read_run(tmp_path / "config.json")


@few(40)
@given(ANYTHING)
def test_priors_of_a_comparison(prior):
    with pytest.raises(ConfigError, match="prior probability"):
        similarity(Zeros(), "a.jpg", "b.jpg", prior=0.0 if isinstance(prior, float | np.floating) else prior)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b'{"device": NaN}'])
def test_stored_choices_and_figures_of_any_bytes(tmp_path, data):
    (tmp_path / "compute.json").write_bytes(data)
    for read in (read_compute, lambda path: compare(path, path)):
        assert accepts_or_refuses(read, tmp_path / "compute.json") is None


@few(60)
@given(JSON, st.sampled_from(["per_query", "AP", "R1", "identity", "query", "dataset"]))
def test_figures_of_any_values(tmp_path, value, name):
    row = {"query": "a", "identity": "1", "AP": 0.5, "R1": 1.0}
    figures = {"per_query": [row | {name: value}, {**row, "query": "b"}], "dataset": "x"}
    (tmp_path / "a.json").write_text(json.dumps(figures if name != "per_query" else figures | {name: value}))
    accepts_or_refuses(compare, tmp_path / "a.json", tmp_path / "a.json")


def test_numbers_of_a_run_are_finite_and_in_range():
    for changes, says in (
        ({"optimizer": {"lr": math.nan}}, "optimizer.lr: Input should be a finite number, not nan"),
        ({"model": {"sie_weight": math.inf}}, "model.sie_weight: Input should be a finite number, not inf"),
        (
            {"preprocessing": {"size": (0, 32)}},
            "preprocessing.size.0: Input should be greater than or equal to 1, not 0",
        ),
        ({"preprocessing": {"std": (0.5, 0.0, 0.5)}}, "preprocessing.std.1: Input should be greater than 0"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, not -1"),
        ({"schedule": {"epochs": 0}}, "schedule.epochs"),
        ({"epochs": 3}, "epochs: Extra inputs are not permitted"),
    ):
        with pytest.raises(ConfigError) as error:
            vary(tiny(), **changes)
        assert says in str(error.value)
    assert Embedding().changed(flip=True) == Embedding(flip=True)
    with pytest.raises(ConfigError, match=r"batch_size: .* greater than or equal to 1, not 0"):
        Embedding().changed(batch_size=0)


YAML = ["- ", "? ", ": ", "&a ", "*a", "!!int ", "!!float ", "!!binary ", "!!timestamp ", "!!set ", "<<: ", "[", "]",
        "{", "}", "|\n", "'", '"', "a", "0b", "0x", "1_", "2001-99-99", "=", "\t", "\n", "  ", "#", "%TAG ! x\n",
        "---\n", "\0", "\ud800", "1" * 5000, "~", ".inf", "!!python/object:os.system"]  # fmt: skip


@few(150)
@given(st.lists(st.sampled_from(YAML), max_size=8).map("".join))
def test_yaml(text):
    accepts_or_refuses(parse_yaml, text, "the option X")


def test_yaml_is_plain_and_small():
    lines = (f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
    bomb = "a: &a [x, x]\n" + "".join(lines)
    for text, says in (
        (bomb, "aliases"),
        ("[" * 20_000, "nested more than 50 levels"),
        ("a: 1\nb: [", "expected"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("\0", "special char"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse_yaml(text, "x.yml")
    assert parse_yaml("a: [1, 2.5, true, null, 'x']", "x.yml") == {"a": [1, 2.5, True, None, "x"]}


# Documents: calibrations and model cards

DOCUMENTS = {Calibration: "calibration.json", ModelCard: "config.json"}
VALID = {
    Calibration: Calibration(
        slope=1.0, offset=0.0, similarity=(-0.5, 0.5), probability=(0.1, 0.9), threshold=0.3, false_match_rate=0.01,
        true_match_rate=0.9, dataset="x", same=10, different=100,
    ).model_dump(mode="json"),
    ModelCard: {"format": 2, "model": {}, "preprocessing": {}, "vocabulary": {}, "sha256": ""},
}  # fmt: skip


@few(100)
@given(st.sampled_from(list(DOCUMENTS)), st.data(), JSON)
def test_documents(tmp_path, kind, data, value):
    path = tmp_path / "document.json"
    name = data.draw(st.sampled_from([*kind.model_fields, "sha256", "x"]))
    for document in (value, VALID[kind] | {name: value}, sealed(VALID[kind] | {name: value})):
        path.write_text(json.dumps(document))
        read = accepts_or_refuses(kind.read, path, "a document", "write it again")
        if read is not None:
            assert kind.model_validate_json(read.model_dump_json()) == read


def sealed(document):
    """With the SHA-256 that its content has."""
    from resight.config.document import _digest

    content = {name: value for name, value in document.items() if name != "sha256"}
    return content | {"sha256": _digest(content)}


@pytest.mark.parametrize("levels", [300, 900, 990, 5000, 100_000])
def test_deep_documents(tmp_path, levels):
    path = tmp_path / "document.json"
    path.write_text('{"format": 2, "sha256": "x", "model": ' + "[" * levels + "]" * levels + "}")
    for kind in DOCUMENTS:
        assert accepts_or_refuses(kind.read, path, "a document", "write it again") is None


# Galleries

WIDTH = 4


@pytest.fixture
def gallery(tmp_path):
    SQLiteEngine.create(tmp_path / "g", GalleryInfo(width=WIDTH, embedding_id="0" * 16))
    with Gallery(SQLiteEngine(tmp_path / "g", indexed=False)) as opened:
        yield opened


UNIT = np.array([0, 1, 0, 0], np.float32)
VECTORS = st.one_of(
    st.just(UNIT),
    st.sampled_from([np.full(WIDTH, np.nan), np.zeros(WIDTH), np.ones(3), np.ones((1, WIDTH)), np.array(["a"] * WIDTH),
                     np.array([object()] * WIDTH), np.array([None] * WIDTH), np.zeros(0), np.full(WIDTH, 1e300),
                     np.array([0, 1, 0, 0]), np.array([0, 1j, 0, 0]), [0.0, 1.0, 0.0, 0.0], "abc", None, 3,
                     [[1], [1, 2]]]),
)  # fmt: skip


@few(150)
@given(
    st.fixed_dictionaries(
        {"id": st.one_of(st.text(min_size=1, max_size=4), ANYTHING), "vector": VECTORS},
        optional=dict.fromkeys(("identity", "camera", "modality", "tracklet", "time", "thumbnail"), ANYTHING)
        | {"metadata": st.one_of(st.dictionaries(TEXTS, SCALARS, max_size=3), ANYTHING),
           "images": st.one_of(st.dictionaries(TEXTS, TEXTS, max_size=2), ANYTHING)},
    )
)  # fmt: skip
def test_records_are_refused_or_given_back(gallery, fields):
    record = Record(**fields)
    before = len(gallery)
    if accepts_or_refuses(gallery.add, [record]) is None:
        assert len(gallery) == before
        return
    (stored,) = gallery.engine.get([record.id])
    assert np.array_equal(stored.vector, record.vector)
    assert replace(stored, vector=UNIT) == replace(record, vector=UNIT)
    assert [type(value) for value in stored.metadata.values()] == [type(value) for value in record.metadata.values()]
    assert gallery.verify() == []
    gallery.remove([record.id])


WORDS = st.one_of(st.just(()), st.just(("a",)), st.lists(ANYTHING, max_size=2).map(tuple), ANYTHING)
FILTERS = st.builds(
    Filter, identity=WORDS, camera=WORDS, modality=WORDS, tracklet=WORDS, after=ANYTHING, before=ANYTHING,
    metadata=st.one_of(st.dictionaries(TEXTS, ANYTHING, max_size=2), ANYTHING),
)  # fmt: skip


@few(120)
@given(FILTERS)
def test_filters_of_any_values(gallery, where):
    if not len(gallery):
        gallery.add([Record("1", UNIT, identity="a", camera="a", time=1.0, metadata={"a": 1, "b": "x"})])
    accepts_or_refuses(gallery.search, UNIT, 3, where)
    accepts_or_refuses(gallery.search, np.stack([UNIT, UNIT]), 3, where, "identity")


@few(80)
@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_options_of_any_values(gallery, k, threshold, prior, name):
    if not len(gallery):
        gallery.add([Record(str(n), UNIT, identity="a" if n else None) for n in range(3)])
    accepts_or_refuses(gallery.search, UNIT, k)
    accepts_or_refuses(gallery.search, UNIT, 1, Filter(), name)
    accepts_or_refuses(gallery.similar, "1", k)
    accepts_or_refuses(gallery.cluster, threshold, k, True)
    accepts_or_refuses(gallery.cluster, 0.5, k)
    accepts_or_refuses(Gallery, gallery.engine, None, prior)


@few(60)
@given(VECTORS)
def test_query_vectors_of_any_values(gallery, vectors):
    if not len(gallery):
        gallery.add([Record("1", UNIT)])
    for query in (vectors, [vectors], np.zeros((0, WIDTH), np.float32), np.array(vectors, object)):
        accepts_or_refuses(gallery.search, query)


@few(80)
@given(ANYTHING, ANYTHING, ANYTHING)
def test_names_of_any_values(gallery, ids, identity, of):
    gallery.add([Record("1", UNIT, identity="a")])
    for given_ids in (["1"], ids, [ids]):
        accepts_or_refuses(gallery.assign, given_ids, identity, of)
        accepts_or_refuses(gallery.vectors, given_ids)
        accepts_or_refuses(gallery.remove, given_ids, of)
        accepts_or_refuses(gallery.verify, identity)
    accepts_or_refuses(gallery.undo)
    assert gallery.verify() == []
