"""The steps of an evaluation one at a time, without a network: what is embedded, checked, loaded, pooled and fitted."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Log, picture

from resight.config.evaluation import Evaluation
from resight.config.recipes import tiny, vary
from resight.data.sightings import Sighting, SightingTable, Split
from resight.device import Compute, processor_kind
from resight.errors import CheckpointError, ConfigError, DatasetError, EvaluationError, PictureError
from resight.evaluation import as_trained
from resight.evaluation import calibrate as calibrate_module
from resight.evaluation import evaluate as evaluate_module
from resight.evaluation.calibrate import calibrate, write_calibration
from resight.evaluation.checks import checked_for_evaluation, prepare, require_match, without_corrupt
from resight.evaluation.evaluate import (
    _rows,
    evaluate,
    evaluate_embeddings,
    measure,
    measured_by,
    require_shared_modality,
    scores,
)
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, write_embeddings
from resight.retrieval import calibration as curves
from resight.retrieval.open_set import BINS, Pairs
from resight.retrieval.protocols import find
from resight.retrieval.query_expansion import expand


def unit(seed, count, width=8):
    x = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def table(prefix, count=6, modality="rgb"):
    """Three identities under two cameras."""
    return SightingTable.of(
        Sighting({modality: f"{prefix}{n}.jpg"}, "abc"[n % 3], "12"[n // 3 % 2]) for n in range(count)
    )


@pytest.fixture
def embedder(monkeypatch):
    """What `evaluate` needs of an embedder, in the place of a model folder."""
    device = SimpleNamespace(type="cpu")
    card = SimpleNamespace(vocabulary=SimpleNamespace(modalities=("rgb", "nir")))
    made = SimpleNamespace(
        fusion="concat", concatenates=True, device=device, card=card, embedding_id="0123", compute="computed"
    )
    made.embed = lambda sightings, progress: (progress(len(sightings)), unit(len(sightings), len(sightings)))[1]
    monkeypatch.setattr(evaluate_module, "load_as_trained", lambda path: made)
    return made


def test_query_and_gallery_are_embedded_and_counted_together(embedder):
    split = Split("few", SightingTable(), table("q"), table("g", 12), protocol="vehicleid")
    counts = []
    result = evaluate("folder", split, Evaluation(protocol="market", junk="none"), counts.append)
    assert counts == [6, 18]
    assert (result.protocol.name, result.rule.name, result.compute) == ("market", "none", "computed")
    np.testing.assert_array_equal(result.query.vectors, unit(6, 6))
    np.testing.assert_array_equal(result.gallery.vectors, unit(12, 12))
    info = EmbeddingsInfo(
        embedding_id="0123", fusion="concat", modalities=("rgb", "nir"), dataset="few", protocol="vehicleid"
    )
    assert result.query.info == result.gallery.info == info
    one = table("x", 12)
    counts.clear()
    result = evaluate("folder", Split("few", SightingTable(), one, one), progress=counts.append)
    assert counts == [12]
    assert result.gallery.vectors is result.query.vectors
    assert (result.protocol.name, result.rule.name) == ("market", "same-camera")


def test_another_way_to_embed_is_used(embedder):
    split = Split("few", SightingTable(), table("q"), table("g", 12))
    result = evaluate("folder", split, embed=lambda sightings, report: unit(99, len(sightings)))
    np.testing.assert_array_equal(result.query.vectors, unit(99, 6))


def test_embeddings_without_a_data_set_are_named_by_their_file(tmp_path):
    vectors, rows = unit(0, 12), table("x", 12)
    for info, name, protocol in (
        (EmbeddingsInfo(), "mine", "market"), (EmbeddingsInfo(dataset="few", protocol="vehicleid"), "few", "vehicleid"),
    ):  # fmt: skip
        file = tmp_path / "mine.parquet"
        file.unlink(missing_ok=True)
        write_embeddings(file, Embeddings(vectors, rows, info))
        measured, result = evaluate_embeddings(str(file), device="cpu")
        assert (measured, result.protocol.name, result.rule.name) == (name, protocol, result.protocol.rule)
        other = evaluate_embeddings(file, Evaluation(junk="same-tracklet"), "cpu")[1]
        assert other.rule.name == "same-tracklet"


def test_the_protocol_and_its_rule():
    protocol, rule = measured_by(Evaluation(), "vehicleid")
    assert (protocol, rule.name) == (find("vehicleid"), "none")
    protocol, rule = measured_by(Evaluation(protocol="market", junk="same-tracklet"), "vehicleid")
    assert (protocol, rule.name) == (find("market"), "same-tracklet")
    assert measured_by(Evaluation(trials=3), "vehicleid")[0] == replace(find("vehicleid"), trials=3)
    rule = measured_by(Evaluation(junk="time-window", window=60), "market")[1]
    assert [clause.seconds for clause in rule.clauses] == [60]
    with pytest.raises(ConfigError, match="protocol market draws no gallery"):
        measured_by(Evaluation(trials=1), "market")


@pytest.mark.parametrize(
    ("query", "gallery", "modalities", "protocol", "refused"),
    [
        ("rgb", "nir", ("rgb", "nir"), "market", True),
        ("rgb", "nir", ("rgb",), "market", False),  # of a model of one modality nothing is concatenated
        ("rgb", "rgb", ("rgb", "nir"), "market", False),
        ("rgb+nir", "nir", ("rgb", "nir"), "market", False),
        ("rgb+tir", "rgb+tir", ("rgb", "tir"), "regdb-visible-thermal", True),
        ("rgb", "tir", ("rgb", "tir"), "regdb-visible-thermal", True),
        ("tir", "rgb", ("rgb", "tir"), "regdb-visible-thermal", False),  # nothing is selected: refused elsewhere
        ("tir", "rgb", ("rgb", "tir"), "regdb-thermal-visible", True),
    ],
)
def test_concatenated_embeddings_have_a_modality_in_common(query, gallery, modalities, protocol, refused):
    sides = [SightingTable.of([Sighting(dict.fromkeys(names.split("+"), "x"), "a")]) for names in (query, gallery)]
    if not refused:
        require_shared_modality(*sides, modalities, find(protocol))
        return
    with pytest.raises(EvaluationError, match="have nothing in common and every similarity is 0: use --fusion mean"):
        require_shared_modality(*sides, modalities, find(protocol))


def test_rows_are_taken_without_a_copy_where_all_of_them_are():
    x = np.arange(12.0).reshape(4, 3)
    assert _rows(x, np.arange(4)) is x
    for rows in ([0, 1, 2], [1, 0, 2, 3], [0, 2, 1, 3], [3, 2, 1, 0], [0, 2], [1], [0, 0, 1, 2]):
        np.testing.assert_array_equal(_rows(x, np.array(rows)), [x[row] for row in rows])


def test_scores_are_expanded_and_ranked_again():
    query, gallery = unit(0, 5), unit(1, 30)
    every = slice(0, 5)

    def matrix(**settings):
        return np.asarray(scores(query, gallery, Evaluation(**settings)).rows(every))

    np.testing.assert_allclose(matrix(), query @ gallery.T, atol=1e-6)
    wide = expand(gallery, gallery, 3, 2.0, True)
    both = expand(query, wide, 4, 2.0) @ wide.T
    np.testing.assert_allclose(matrix(expand_query=4, expand_gallery=3, expand_power=2), both, atol=1e-6)
    again = matrix(rerank=True, k1=5, k2=2)
    assert np.abs(again - query @ gallery.T).max() > 0.1
    assert np.abs(again - matrix(rerank=True, k1=6, k2=2)).max() > 1e-3
    assert np.abs(again - matrix(rerank=True, k1=5, k2=3)).max() > 1e-3
    assert np.abs(again - matrix(rerank=True, k1=5, k2=2, rerank_weight=0.4)).max() > 1e-3


def test_only_queries_are_pooled_by_camera():
    items = Embeddings(unit(0, 12), table("x", 12))
    other = Embeddings(unit(1, 12), table("y", 12))
    result = measure(items, other, Evaluation(multi_query="mean"))
    assert (len(result.query_labels), len(result.gallery_labels)) == (6, 12)
    mean = items.vectors[[1, 7]].mean(0)
    np.testing.assert_allclose(result.query.vectors[1], mean / np.linalg.norm(mean), atol=1e-6)
    assert result.query.sightings[1] == items.sightings[1]


# The checkpoint of a run.

RUN = Compute("cpu", processor_kind(), "bf16", 3, "fused", 7)


@pytest.fixture
def loaded(monkeypatch):
    """The arguments of `load`, and the number of threads that was set."""
    calls = []
    monkeypatch.setattr(as_trained, "load", lambda *arguments, **options: calls.append((arguments, options)))
    monkeypatch.setattr(as_trained.torch, "set_num_threads", calls.append)
    return calls


def run_folder(tmp_path, compute):
    folder = tmp_path / "run" / "checkpoints" / "epoch"
    folder.mkdir(parents=True)
    if compute is not None:
        (tmp_path / "run" / "compute.json").write_text(json.dumps(compute.__dict__))
    return folder


def test_a_checkpoint_is_loaded_as_its_run_computed(tmp_path, loaded):
    folder, log = run_folder(tmp_path, RUN), Log()
    as_trained.load_as_trained(folder, log, "cpu", flip=True)
    as_trained.load_as_trained(folder, log, "cpu", "fp32", 5)
    assert loaded == [
        3, ((folder, "cpu", "bf16"), {"batch_size": 7, "flip": True}),
        3, ((folder, "cpu", "fp32"), {"batch_size": 5}),
    ]  # fmt: skip
    assert not log.lines


def test_a_checkpoint_of_another_processor_says_so(tmp_path, loaded):
    folder, log = run_folder(tmp_path, replace(RUN, processor="another")), Log()
    as_trained.load_as_trained(folder, log, "cpu")
    as_trained.load_as_trained(folder, None, "cpu")
    assert loaded == [3, ((folder, "cpu", "bf16"), {"batch_size": 7})] * 2
    assert log.lines == [
        "the model was trained on a processor with another; on this one "
        f"({processor_kind()}) figures can differ in the last digits"
    ]


@pytest.mark.parametrize("compute", [None, replace(RUN, device="cuda")])
def test_a_model_of_no_run_or_of_another_device_is_loaded_as_it_is(tmp_path, loaded, compute):
    folder = run_folder(tmp_path, compute)
    as_trained.load_as_trained(folder, Log(), "cpu", None, 5, flip=True)
    as_trained.load_as_trained(tmp_path / "none", Log(), "cpu", "fp32")
    assert loaded == [
        ((folder, "cpu", None), {"batch_size": 5, "flip": True}),
        ((tmp_path / "none", "cpu", "fp32"), {"batch_size": None}),
    ]


def test_what_a_run_computed_with_is_read_or_refused(tmp_path):
    file = tmp_path / "compute.json"
    assert as_trained.read_compute(file) is None
    file.write_text(json.dumps(RUN.__dict__))
    assert as_trained.read_compute(file) == RUN
    file.write_text("{}")
    with pytest.raises(CheckpointError, match="does not say what the run is computed with; delete it"):
        as_trained.read_compute(file)


# Checks before a long computation.


@pytest.fixture
def split(tmp_path):
    """Four training pictures, one of them of no identity, and a query and a gallery of three each."""

    def part(name, labels):
        return SightingTable.of(
            Sighting({"rgb": str(picture(tmp_path / name / f"{n}.jpg", n))}, *label) for n, label in enumerate(labels)
        )

    train = part("train", [("a", "1"), ("a", "2"), ("b", "1"), (None, "1")])
    query, gallery = part("query", [("c", "1"), ("d", "1"), ("e", "1")]), part("gallery", [("c", "2"), ("d", "2")])
    return Split("few", train, query, gallery, ("a remark",))


def spoil(table, *rows):
    """Empty the files of rows; returns their paths."""
    paths = [table[row].images["rgb"] for row in rows]
    for path in paths:
        path.write_bytes(b"")
    return paths


def test_training_leaves_out_what_has_no_identity(split):
    log = Log()
    prepared = prepare(vary(tiny()), split, log)
    assert prepared.train.column("identity") == ["a", "a", "b"]
    assert prepared.notes == ("a remark", "1 training sighting without an identity left out")
    assert log.lines == list(prepared.notes)
    assert log.started[0] == ("checking pictures", 9)
    assert log.started[-1] == 9
    log = Log()
    assert prepare(tiny(), replace(split, train=prepared.train), log).notes == ("a remark",) == tuple(log.lines)
    with pytest.raises(DatasetError, match="few has no training picture of a known identity"):
        prepare(tiny(), replace(split, train=split.train.take([3])), Log())
    with pytest.raises(EvaluationError, match="no query has a match"):
        prepare(tiny(), replace(split, query=split.query.take([2])), Log())


def test_corrupt_pictures_are_refused_or_left_out(split):
    (first,) = spoil(split.gallery, 1)
    advice = "; replace it, or leave such pictures out with --on-corrupt skip"
    with pytest.raises(PictureError) as refused:
        without_corrupt(split, "error", Log())
    assert str(refused.value) == f"{first} is empty (0 bytes){advice}"
    (second,) = spoil(split.train, 3)
    with pytest.raises(PictureError) as refused:
        without_corrupt(split, "error", Log())
    assert str(refused.value) == f"{first} is empty (0 bytes) (2 pictures are corrupt){advice}"
    whole, notes = without_corrupt(split, "skip", Log())
    assert notes == (
        f"skipped: {first} is empty (0 bytes)",
        f"skipped: {second} is empty (0 bytes)",
        "2 corrupt pictures skipped",
    )
    assert [len(part) for part in (whole.train, whole.query, whole.gallery)] == [3, 3, 1]
    log = Log()
    prepared = prepare(vary(tiny(), on_corrupt="skip"), split, log)
    assert prepared.notes == ("a remark", *notes) == tuple(log.lines)
    assert len(prepared.train) == 3


def test_one_table_stays_one_where_pictures_are_left_out(split):
    spoil(split.query, 1)
    shared = replace(split, gallery=split.query)
    whole, _ = without_corrupt(shared, "skip", Log())
    assert whole.gallery is whole.query
    assert whole.query.column("identity") == ["c", "e"]
    apart, _ = without_corrupt(split, "skip", Log())
    assert apart.gallery.column("identity") == ["c", "d"]


def test_an_evaluation_reads_no_training_picture(split):
    spoil(split.train, 0, 1)
    log = Log()
    checked = checked_for_evaluation(split, Evaluation(), "error", log)
    assert (len(checked.train), checked.query, checked.gallery) == (0, split.query, split.gallery)
    assert (log.lines, log.started[0]) == (["a remark"], ("checking pictures", 5))
    (path,) = spoil(split.gallery, 0)
    log = Log()
    assert len(checked_for_evaluation(split, Evaluation(), "skip", log).gallery) == 1
    assert log.lines == ["a remark", f"skipped: {path} is empty (0 bytes)", "1 corrupt picture skipped"]
    require_match(split, Evaluation())
    alone = replace(split, gallery=split.query)
    with pytest.raises(EvaluationError, match="no query has a match"):
        require_match(alone, Evaluation())


# Calibration.


@pytest.fixture
def measured(monkeypatch):
    """Twelve identities under three cameras, some sightings of no identity, in the place of a model's embeddings."""
    rng = np.random.default_rng(5)
    who = [*(n % 12 for n in range(72)), None, None]
    x = rng.standard_normal((12, 8))[[n or 0 for n in who]] + 0.7 * rng.standard_normal((74, 8))
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    sightings = SightingTable.of(
        Sighting({"rgb": f"{n}.jpg"}, None if i is None else f"id{i:02d}", str(n // 12 % 3)) for n, i in enumerate(who)
    )
    items = Embeddings(vectors, sightings)
    calls = []

    def evaluated(embedder, split, settings, progress):
        calls.append((embedder.embedding_id, settings))
        return measure(items, items, settings or Evaluation())

    monkeypatch.setattr(calibrate_module, "evaluate", evaluated)
    card = SimpleNamespace(vocabulary=SimpleNamespace(modalities=("rgb",)))

    def loaded(folder):
        return SimpleNamespace(embedding_id=f"id of {folder}", card=card, folder=None)

    monkeypatch.setattr(calibrate_module, "load", loaded)
    return items, calls


def naive_pairs(items, identities):
    """Counts of the pairs among some identities, by similarity; same-camera pairs of one identity are left out."""
    same, different = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    rows = [row for row, sighting in enumerate(items.sightings) if sighting.identity in identities]
    labels = list(items.sightings)
    products = items.vectors @ items.vectors.T
    for a in rows:
        for b in rows:
            bin_index = int(np.floor((float(products[a, b]) + 1) * (BINS / 2)))
            if labels[a].identity != labels[b].identity:
                different[bin_index] += 1
            elif labels[a].camera != labels[b].camera:
                same[bin_index] += 1
    return Pairs(same, different)


@pytest.mark.parametrize(("rate", "used"), [(0.05, 0.05), (0.0005, None)])
def test_a_calibration_is_checked_on_the_other_half_of_the_identities(measured, rate, used):
    items, calls = measured
    settings = Evaluation(junk="same-camera")
    result = calibrate("folder", Split("few", SightingTable(), items.sightings, items.sightings), rate, settings)
    assert calls == [("id of folder", settings)]
    identities = items.sightings.values("identity")
    shuffled = [identities[n] for n in np.random.default_rng(0).permutation(12)]
    fitted, unseen = naive_pairs(items, shuffled[0::2]), naive_pairs(items, shuffled[1::2])
    trial = curves.calibrate(fitted, used or 2 / fitted.different.sum(), "few")
    every = naive_pairs(items, identities)
    calibration = result.calibration
    assert (calibration.same, calibration.different) == (every.same.sum(), every.different.sum())
    assert (calibration.embedding_id, calibration.dataset) == ("id of folder", "few")
    assert calibration.false_match_rate == rate
    assert calibration.slope == pytest.approx(curves.calibrate(every, rate, "few").slope, rel=1e-3)
    for method in ("logistic", "isotonic"):
        table, error = curves.reliability(trial, unseen, method)
        np.testing.assert_allclose(result.checked[method][0], table, atol=1e-3)
        assert result.checked[method][1] == pytest.approx(error, abs=1e-4)


def test_the_usual_rate_and_the_file(measured, tmp_path):
    items, _ = measured
    split = Split("few", SightingTable(), items.sightings, items.sightings)
    result = calibrate("folder", split, settings=Evaluation(junk="same-camera"))
    assert result.calibration.false_match_rate == 1e-3
    (tmp_path / "m").mkdir()
    written = write_calibration(tmp_path / "m", result.calibration)
    assert written == tmp_path / "m" / "calibration.json"
    text = written.read_text()
    assert json.loads(text) == json.loads(result.calibration.model_dump_json())
    assert text.startswith('{\n  "format": 2,\n')
    assert text.endswith("}\n")
    for rate in (0, 1, 1.5, -0.1):
        with pytest.raises(ConfigError, match=rf"^the false match rate must lie between 0 and 1, not {rate:g}$"):
            calibrate("folder", split, rate)
