"""From tables and embeddings on disk to figures: labels, pooling, words, and the commands on top of them."""

import json

import numpy as np
import pytest
from PIL import Image

from resight.cli import main
from resight.config.sections import Evaluation
from resight.data.sightings import Sighting, SightingTable
from resight.errors import DatasetError, EvaluationError
from resight.evaluation.evaluate import measure
from resight.evaluation.labels import encode_labels
from resight.evaluation.result import camera_pairs, figures, in_words
from resight.inference.embeddings import Embeddings, load, save


def sighting(n, identity, camera, **labels):
    return Sighting({"rgb": f"{n:04d}.jpg"}, identity, camera, **labels)


def embedded(seed, count, offset=0, **labels):
    """Items of 8 identities and 3 cameras; the greater the camera's number, the noisier."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((8, 24))
    who, where = np.arange(count) % 8, (np.arange(count) // 8) % 3
    x = centres[who] + (0.3 + 0.5 * where[:, None]) * rng.standard_normal((count, 24))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    rows = (
        sighting(offset + n, f"id{i}", f"cam{c}", **{name: of(n) for name, of in labels.items()})
        for n, (i, c) in enumerate(zip(who, where, strict=True))
    )
    return Embeddings(x, SightingTable.of(rows))


@pytest.fixture
def sides():
    return embedded(0, 24), embedded(1, 120, 1000)


@pytest.fixture
def stored(sides, tmp_path):
    save(tmp_path / "embeddings", *sides, {"dataset": "made up", "protocol": "market"})
    return tmp_path / "embeddings"


def test_labels_are_numbered_alike_by_name():
    query = SightingTable.of([sighting(1, "b", "2", time=5.0), sighting(2, None, "1")])
    gallery = SightingTable.of([Sighting({"nir": "x", "tir": "y"}, "a", "2"), sighting(1, "b", None)])
    q, g = encode_labels(query, gallery)
    assert [q.names["identity"], q.identity.tolist(), g.identity.tolist()] == [["a", "b"], [1, -1], [0, 1]]
    assert [q["camera"].tolist(), g["camera"].tolist()] == [[1, 0], [1, -1]]
    assert q["picture"][0] == g["picture"][1] not in (q["picture"][1], g["picture"][0])
    assert [q.names["modality"], g["modality"].tolist()] == [["nir+tir", "rgb"], [0, 1]]
    assert q.time[0] == 5
    assert np.isnan(q.time[1])
    assert q["scene"].tolist() == [-1, -1]


def test_pooled_queries_ask_as_one(sides):
    plain, pooled = (measure(*sides, Evaluation(multi_query=how)) for how in ("off", "mean"))
    assert (len(plain.query_labels), len(pooled.query_labels)) == (24, 24)  # one of each identity and camera already
    twice = Embeddings(np.repeat(sides[0].vectors, 2, 0), sides[0].sightings.take(np.repeat(np.arange(24), 2).tolist()))
    again = measure(twice, sides[1], Evaluation(multi_query="mean"))
    np.testing.assert_allclose(again.ap, plain.ap)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_tracklets_are_one_item_on_both_sides(how):
    query = embedded(0, 48, tracklet=lambda n: f"q{n % 24}")
    gallery = embedded(1, 144, 1000, tracklet=lambda n: f"g{n % 24}")
    found = measure(query, gallery, Evaluation(tracklets=how))
    assert (len(found.query_labels), len(found.gallery_labels)) == (24, 24)
    joined = gallery.vectors[[0, 24, 48, 72, 96, 120]]
    joined = joined.mean(0) if how == "mean" else joined.max(0)
    np.testing.assert_allclose(found.gallery.vectors[0], joined / np.linalg.norm(joined), atol=1e-6)


@pytest.mark.parametrize("option", [{"rerank": True}, {"expand_query": 3}, {"expand_gallery": 3}, {"junk": "none"}])
def test_each_option_acts(sides, option):
    plain, other = (measure(*sides, Evaluation(**o)) for o in ({}, option))
    assert not np.array_equal(plain.ap, other.ap)


def test_trials_give_mean_and_spread(sides):
    found = measure(sides[1], sides[1], Evaluation(protocol="vehicleid", trials=4))
    rows = [row["R1"] for row in found.figures()]
    assert len(rows) == 4
    np.testing.assert_allclose([found.summary()["R1"], found.spread()["R1"]], [np.mean(rows), np.std(rows)])
    kept = figures(found, "made up")
    assert (kept["trials"], kept["queries"], kept["gallery"]) == (4, 112, 8)
    assert "mean of 4 galleries, drawn with seeds 0 to 3" in in_words(found)


def test_figures_of_each_query_add_up(sides):
    kept = figures(measure(*sides, Evaluation()), "made up")
    assert kept["mAP"] == pytest.approx(np.mean([row["AP"] for row in kept["per_query"]]))
    assert kept["R1"] == pytest.approx(np.mean([row["R1"] for row in kept["per_query"]]))
    low, high = kept["interval_95"]["mAP"]
    assert low < kept["mAP"] < high
    assert kept["per_query"][3]["query"] == "0003.jpg"
    json.dumps(kept)


def test_the_worst_camera_pair_comes_first(sides):
    found = measure(*sides, Evaluation())
    pairs = camera_pairs(found)
    assert len(pairs) == 6  # under the rule same-camera no camera is paired with itself
    assert {pairs[0]["query camera"], pairs[0]["gallery camera"]} == {"cam1", "cam2"}  # the two noisiest
    q, g = found.query_labels, found.gallery_labels
    asked, searched = np.flatnonzero(q["camera"] == 0), np.flatnonzero(g["camera"] == 2)
    hits = []
    for i in asked:
        order = np.argsort(-(sides[0].vectors[i] @ sides[1].vectors[searched].T))
        hits.append(g.identity[searched][order[0]] == q.identity[i])
    row = next(p for p in pairs if (p["query camera"], p["gallery camera"]) == ("cam0", "cam2"))
    assert row["R1"] == pytest.approx(np.mean(hits))
    assert row["queries"] == len(asked)


def test_says_what_the_rule_removed(sides):
    alone = [n for n in range(120) if n % 8 != 5 or (n // 8) % 3 == 2]  # identity 5 is left in camera 2 alone
    gallery = Embeddings(sides[1].vectors[alone], sides[1].sightings.take(alone))
    words = " ".join(in_words(measure(sides[0], gallery, Evaluation())))
    assert (
        "1 queries have no match and are left out: of 1 the rule removed every match (--junk none keeps them)" in words
    )


@pytest.mark.parametrize(("rule", "what"), [("same-scene", "scene"), ("time-window", "time")])
def test_says_that_a_rule_had_nothing_to_look_at(sides, rule, what):
    words = " ".join(in_words(measure(*sides, Evaluation(junk=rule))))
    assert f"looks at {what}, which no sighting here has: that removes nothing" in words


@pytest.mark.parametrize("half", [False, True])
def test_embeddings_come_back(sides, tmp_path, half):
    save(tmp_path / "e", *sides, {"dataset": "made up"}, half)
    query, gallery, about = load(tmp_path / "e")
    assert isinstance(gallery.vectors, np.memmap)
    assert gallery.vectors.dtype == (np.float16 if half else np.float32)
    np.testing.assert_allclose(query.vectors, sides[0].vectors, atol=1e-3 if half else 0)
    assert gallery.sightings.arrow.equals(sides[1].sightings.arrow)
    assert about == {"dataset": "made up"}


def test_one_table_is_written_once(sides, tmp_path):
    save(tmp_path / "e", sides[0], sides[0], {})
    query, gallery, _ = load(tmp_path / "e")
    assert gallery is query
    assert not (tmp_path / "e" / "gallery").exists()


def break_length(folder):
    np.save(folder / "query" / "embeddings.npy", 3 * np.load(folder / "query" / "embeddings.npy"))


def break_count(folder):
    np.save(folder / "query" / "embeddings.npy", np.load(folder / "query" / "embeddings.npy")[:5])


def break_width(folder):
    x = np.full((120, 3), 3**-0.5, np.float32)
    np.save(folder / "gallery" / "embeddings.npy", x)


def break_type(folder):
    np.save(folder / "query" / "embeddings.npy", np.ones((24, 24), int))


def break_file(folder):
    (folder / "query" / "embeddings.npy").write_bytes(b"no array")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (break_length, "row 0 has length 3.*divide each row"),
        (break_count, "5 embeddings and 24 sightings"),
        (break_width, "24 numbers and those of the gallery 3"),
        (break_type, "must be float32 or float16"),
        (break_file, "cannot be read as an array"),
    ],
)
def test_bad_embeddings_are_refused(stored, harm, says):
    harm(stored)
    with pytest.raises((DatasetError, EvaluationError), match=says):
        load(stored)


def refused(capsys, *command):
    assert main([str(part) for part in command]) == 2
    return capsys.readouterr().err


def test_evaluate_compare_of_stored_embeddings(stored, tmp_path, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    eval_model = ["--json", str(a), "--cameras", "--open-set"]
    assert main(["evaluate", str(stored), *eval_model]) == 0
    out = capsys.readouterr().out
    for words in ("24 queries, 120 gallery sightings", "95 % intervals", "camera pairs", "TAR@FAR=0.01", "asked again"):
        assert words in out
    assert (
        main(["evaluate", str(stored), "--rerank", "--json", str(b), "--save", str(tmp_path / "again"), "--half"]) == 0
    )
    assert load(tmp_path / "again")[0].vectors.dtype == np.float16
    first, second = json.loads(a.read_text()), json.loads(b.read_text())
    assert set(first) - set(second) == {"camera_pairs", "open_set"}
    capsys.readouterr()
    assert main(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "24 queries are in both" in out
    assert f"{100 * (second['mAP'] - first['mAP']):.4g}" in out


def test_compare_minds_what_differs(stored, tmp_path, capsys):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    main(["evaluate", str(stored), "--json", str(a)])
    kept = json.loads(a.read_text())
    b.write_text(json.dumps({**kept, "protocol": "other", "per_query": kept["per_query"][4:]}))
    capsys.readouterr()
    assert main(["compare", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "mind: protocol is market in the first and other in the second" in out
    assert "20 queries are in both; 4 are in one alone" in out
    b.write_text(json.dumps({"mAP": 0.5}))
    assert "holds no figures of each query" in refused(capsys, "compare", a, b)
    assert "cannot be read" in refused(capsys, "compare", a, tmp_path / "none.json")


def test_evaluate_refuses_in_one_sentence(stored, tmp_path, capsys):
    assert "bring their own data set" in refused(capsys, "evaluate", stored, "--dataset", "market1501")
    assert "say what to measure it on with --dataset" in refused(capsys, "evaluate", tmp_path)
    assert "exists already" in refused(capsys, "evaluate", stored, "--save", stored)
    assert "no protocol named 'marke'" in refused(capsys, "evaluate", stored, "--protocol", "marke")
    assert "draws no gallery" in refused(capsys, "evaluate", stored, "--trials", "3")
    assert "give --save FOLDER too" in refused(capsys, "evaluate", stored, "--half")
    assert "nothing asks; it wants modality nir" in refused(capsys, "evaluate", stored, "--protocol", "sysu-all")


@pytest.mark.slow
def test_calibrate_keeps_a_curve_beside_the_model(painted, tmp_path, capsys):
    from resight.models.checkpoint import read_calibration

    command = ["train", "tiny", "--schedule.epochs", "1", "--sampling.identities", "3", "--device", "cpu"]
    assert main([*command, "--root", str(painted), "--out", str(tmp_path / "run")]) == 0
    best = tmp_path / "run" / "best"
    assert read_calibration(best) is None
    curve = tmp_path / "curve.png"
    options = ["--dataset", "synthetic", "--root", str(painted), "--device", "cpu"]
    capsys.readouterr()
    assert main(["calibrate", str(best), *options, "--false-match-rate", "0.05", "--plot", str(curve)]) == 0
    assert "pairs of one identity" in capsys.readouterr().out
    kept = read_calibration(best)
    assert kept.dataset == "synthetic"
    assert -1 <= kept.threshold <= 1
    assert (kept.of(np.linspace(-1, 1, 9)) >= 0).all()
    assert Image.open(curve).size == (600, 600)
    says = refused(capsys, "calibrate", best, *options, "--false-match-rate", "1e-9")
    assert "cannot be measured with" in says
    assert "must lie between 0 and 1" in refused(capsys, "calibrate", best, *options, "--false-match-rate", "2")
