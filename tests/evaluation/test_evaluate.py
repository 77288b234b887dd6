"""From tables and embeddings on disk to figures: labels, pooling, words, modalities, and the command on top of them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import picture, small_model, varied_model

import resight
from resight.cli import main
from resight.config.evaluation import Evaluation
from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.sightings import Sighting, SightingTable
from resight.data.vocabulary import UNKNOWN, Vocabulary
from resight.errors import ConfigError, DatasetError, EvaluationError
from resight.evaluation.evaluate import evaluate, evaluate_embeddings, measure
from resight.evaluation.labels import encode_labels
from resight.evaluation.result import camera_pairs, figures, open_set_figures
from resight.evaluation.words import in_words
from resight.inference.embeddings import Embeddings, EmbeddingsInfo, read_embeddings, write_embeddings
from resight.inference.inputs import as_inputs


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
    return Embeddings(x, SightingTable.of(rows), EmbeddingsInfo(dataset="artificial", protocol="market"))


@pytest.fixture
def sides():
    return embedded(0, 24), embedded(1, 120, 1000)


@pytest.fixture
def stored(sides, tmp_path):
    write_embeddings(tmp_path / "embeddings.parquet", *sides)
    return tmp_path / "embeddings.parquet"


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


def test_queries_are_pooled(sides):
    plain, pooled = (measure(*sides, Evaluation(multi_query=how)) for how in ("off", "mean"))
    assert (len(plain.query_labels), len(pooled.query_labels)) == (24, 24)  # one of each identity and camera already
    twice = Embeddings(np.repeat(sides[0].vectors, 2, 0), sides[0].sightings.take(np.repeat(np.arange(24), 2).tolist()))
    again = measure(twice, sides[1], Evaluation(multi_query="mean"))
    np.testing.assert_allclose(again.ap, plain.ap)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_tracklets_are_one_item_on_both_sides(how):
    query = embedded(0, 48, tracklet=lambda n: f"q{n % 24}")
    gallery = embedded(1, 144, 1000, tracklet=lambda n: f"g{n % 24}")
    result = measure(query, gallery, Evaluation(tracklets=how))
    assert (len(result.query_labels), len(result.gallery_labels)) == (24, 24)
    joined = gallery.vectors[[0, 24, 48, 72, 96, 120]]
    joined = joined.mean(0) if how == "mean" else joined.max(0)
    np.testing.assert_allclose(result.gallery.vectors[0], joined / np.linalg.norm(joined), atol=1e-6)


@pytest.mark.parametrize("option", [{"rerank": True}, {"expand_query": 3}, {"expand_gallery": 3}, {"junk": "none"}])
def test_each_option_acts(sides, option):
    plain, other = (measure(*sides, Evaluation(**o)) for o in ({}, option))
    assert not np.array_equal(plain.ap, other.ap)


def test_draws_that_cannot_differ_are_said():
    """One image of each identity and camera: single-shot draws the same gallery ten times."""
    rows = [sighting(n, f"id{n // 2}", f"cam{n % 2}") for n in range(12)]
    vectors = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    both = Embeddings(vectors, SightingTable.of(rows), EmbeddingsInfo(dataset="artificial", protocol="market"))
    result = measure(both, both, Evaluation(protocol="single-shot"))
    assert max(result.spread().values()) < 1e-12
    assert any("all trials are the same" in line for line in in_words(result))
    several = measure(embedded(1, 120), embedded(1, 120), Evaluation(protocol="single-shot"))
    assert not any("every draw" in line for line in in_words(several))


def test_trials_give_mean_and_spread(sides):
    result = measure(sides[1], sides[1], Evaluation(protocol="vehicleid", trials=4))
    rows = [row["R1"] for row in result.figures()]
    assert len(rows) == 4
    np.testing.assert_allclose([result.summary()["R1"], result.spread()["R1"]], [np.mean(rows), np.std(rows)])
    document = figures(result, "artificial")
    assert (document["trials"], document["queries"], document["gallery"]) == (4, 112, 8)
    assert "mean of 4 galleries, drawn with seeds 0 to 3" in in_words(result)


def test_figures_of_each_query_add_up(sides):
    document = figures(measure(*sides, Evaluation()), "artificial")
    assert document["mAP"] == pytest.approx(np.mean([row["AP"] for row in document["per_query"]]))
    assert document["R1"] == pytest.approx(np.mean([row["R1"] for row in document["per_query"]]))
    low, high = document["interval_95"]["mAP"]
    assert low < document["mAP"] < high
    assert document["per_query"][3]["query"] == "0003.jpg"
    json.dumps(document)


def test_the_worst_camera_pair_comes_first(sides):
    result = measure(*sides, Evaluation())
    pairs = camera_pairs(result)
    assert len(pairs) == 6  # under the rule same-camera no camera is paired with itself
    assert [pair.mAP for pair in pairs] == sorted(pair.mAP for pair in pairs)
    assert {pairs[0].query_camera, pairs[0].gallery_camera} == {"cam1", "cam2"}  # the two noisiest
    q, g = result.query_labels, result.gallery_labels
    query_rows, gallery_rows = np.flatnonzero(q["camera"] == 0), np.flatnonzero(g["camera"] == 2)
    hits, precisions = [], []
    for i in query_rows:
        order = np.argsort(-(sides[0].vectors[i] @ sides[1].vectors[gallery_rows].T))
        right = g.identity[gallery_rows][order] == q.identity[i]
        hits.append(right[0])
        precisions.append(np.mean([(n + 1) / (rank + 1) for n, rank in enumerate(np.flatnonzero(right))]))
    pair = next(p for p in pairs if (p.query_camera, p.gallery_camera) == ("cam0", "cam2"))
    assert pytest.approx(np.mean(hits)) == pair.R1
    assert pair.mAP == pytest.approx(np.mean(precisions))
    assert pair.queries == len(query_rows)


def test_open_set_figures_are_those_of_all_pairs(sides):
    result = measure(*sides, Evaluation())
    open_set = open_set_figures(result)
    rates = {row.figure: (row.rate, row.threshold) for row in open_set.rows}
    scores = sides[0].vectors @ sides[1].vectors.T
    q, g = result.query_labels, result.gallery_labels
    same_identity = q.identity[:, None] == g.identity
    same = scores[same_identity & (q["camera"][:, None] != g["camera"])]
    different = scores[~same_identity]
    assert f"{len(same)} same-identity pairs, {len(different):,} different-identity pairs" in open_set.words
    rate, threshold = rates["TAR@FAR=0.01"]
    assert rate == pytest.approx((same >= threshold).mean(), abs=1 / len(same))
    assert (different >= threshold).mean() <= 0.01
    for false_rate, true_rate in open_set.roc:  # a point of the curve is that of some threshold
        at = np.quantile(different, 1 - false_rate) if false_rate < 1 else -1
        assert true_rate == pytest.approx((same >= at).mean(), abs=0.03)


def test_says_what_the_rule_removed(sides):
    alone = [n for n in range(120) if n % 8 != 5 or (n // 8) % 3 == 2]  # identity 5 is left in camera 2 alone
    gallery = Embeddings(sides[1].vectors[alone], sides[1].sightings.take(alone))
    words = " ".join(in_words(measure(sides[0], gallery, Evaluation())))
    assert "left out: 1 query without a match; for 1 of them the rule removed every match (--junk none" in words


@pytest.mark.parametrize(("rule", "what"), [("same-scene", "scene"), ("time-window", "time")])
def test_says_that_a_rule_had_nothing_to_look_at(sides, rule, what):
    words = " ".join(in_words(measure(*sides, Evaluation(junk=rule))))
    assert f"compares {what}, but no sighting has this label: it removes nothing" in words


@pytest.mark.parametrize("half", [False, True])
def test_embeddings_are_read_as_they_were_written(sides, tmp_path, half, monkeypatch):
    write_embeddings(tmp_path / "e.parquet", *sides, half=half)
    query, gallery = read_embeddings(tmp_path / "e.parquet")
    assert gallery.vectors.dtype == (np.float16 if half else np.float32)
    np.testing.assert_allclose(query.vectors, sides[0].vectors, atol=1e-3 if half else 0)
    np.testing.assert_allclose(gallery.vectors, sides[1].vectors, atol=1e-3 if half else 0)
    assert query.sightings.arrow.equals(sides[0].sightings.arrow)
    assert gallery.sightings.arrow.equals(sides[1].sightings.arrow)
    assert query.info == gallery.info == sides[0].info
    monkeypatch.setattr("resight.inference.embeddings._IN_MEMORY", 100)  # bytes
    mapped = read_embeddings(tmp_path / "e.parquet")
    assert isinstance(mapped[1].vectors, np.memmap)
    np.testing.assert_array_equal(mapped[1].vectors, gallery.vectors)
    np.testing.assert_array_equal(mapped[0].vectors, query.vectors)


def test_one_table_is_written_once(sides, tmp_path):
    write_embeddings(tmp_path / "e.parquet", sides[0], sides[0])
    query, gallery = read_embeddings(tmp_path / "e.parquet")
    assert gallery is query
    table = pq.read_table(tmp_path / "e.parquet")
    assert (table.num_rows, set(table.column("part").to_pylist())) == (24, {"both"})


def test_rows_can_be_query_and_gallery_and_both(sides, tmp_path):
    write_embeddings(tmp_path / "e.parquet", sides[0])
    table = pq.read_table(tmp_path / "e.parquet")
    parts = ["query", "both", "gallery"] * 8
    table = table.set_column(table.column_names.index("part"), "part", pa.array(parts))
    pq.write_table(table, tmp_path / "mixed.parquet")
    query, gallery = read_embeddings(tmp_path / "mixed.parquet")
    of_query = [n for n, part in enumerate(parts) if part != "gallery"]
    of_gallery = [n for n, part in enumerate(parts) if part != "query"]
    np.testing.assert_array_equal(query.vectors, sides[0].vectors[of_query])
    np.testing.assert_array_equal(gallery.vectors, sides[0].vectors[of_gallery])
    assert gallery.sightings.arrow.equals(sides[0].sightings.take(of_gallery).arrow)


def with_vectors(path, vectors):
    """The file again, with other vectors in it."""
    table = pq.read_table(path)
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    pq.write_table(table.set_column(table.column_names.index("embedding"), "embedding", column), path)


def break_length(path):
    vectors = np.stack(pq.read_table(path).column("embedding").to_numpy())
    vectors[5] *= 3
    with_vectors(path, vectors)


def break_number(path):
    vectors = np.stack(pq.read_table(path).column("embedding").to_numpy())
    vectors[30, 2] = np.nan
    with_vectors(path, vectors)


def break_format(path):
    table = pq.read_table(path)
    stated = json.loads(table.schema.metadata[b"resight"]) | {"format": 1}
    pq.write_table(table.replace_schema_metadata({b"resight": json.dumps(stated).encode()}), path)


def break_metadata(path):
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def break_columns(path):
    pq.write_table(pq.read_table(path).drop_columns(["camera", "scene"]), path)


def break_rows(path):
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def break_file(path):
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (break_length, "row 5 has length 3.*divide each row"),
        (break_number, "row 30 has length nan"),
        (break_format, "has format 1, and this version of resight reads 2"),
        (break_metadata, "is no file of embeddings; write one with resight extract"),
        (break_columns, "has no column camera, scene"),
        (break_rows, "holds no embeddings"),
        (break_file, "cannot be read as embeddings"),
    ],
)
def test_bad_embeddings_are_refused(stored, harm, says):
    harm(stored)
    with pytest.raises((DatasetError, EvaluationError), match=says):
        read_embeddings(stored)


def test_embeddings_of_two_models_are_not_compared(sides):
    a, b = (
        Embeddings(side.vectors, side.sightings, EmbeddingsInfo(embedding_id=name))
        for side, name in zip(sides, ("0123", "4567"), strict=True)
    )
    with pytest.raises(EvaluationError, match=r"different embeddings \(0123 and 4567\)"):
        measure(a, b, Evaluation())


def refused(capsys, *command):
    assert main([str(part) for part in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("resight: ")
    assert error.count("\n") == 1
    return error


def test_evaluate_refuses_in_one_sentence(stored, tmp_path, capsys):
    assert "has its own data set" in refused(capsys, "evaluate", stored, "--dataset", "market1501")
    assert "no model folder or file of embeddings" in refused(capsys, "evaluate", tmp_path)
    model = small_model(tmp_path / "model")
    assert "--dataset NAME" in refused(capsys, "evaluate", model)
    assert "exists already" in refused(capsys, "evaluate", stored, "--save-embeddings", stored)
    assert "no protocol named 'marke'" in refused(capsys, "evaluate", stored, "--protocol", "marke")
    assert "draws no gallery" in refused(capsys, "evaluate", stored, "--trials", "3")
    assert "--half is for --save-embeddings FILE" in refused(capsys, "evaluate", stored, "--half")
    assert "modality nir" in refused(capsys, "evaluate", stored, "--protocol", "sysu-all")


def test_evaluate_of_stored_embeddings(stored, sides, tmp_path, capsys):
    assert main(["evaluate", str(stored), "--figures", str(tmp_path / "a.json"), "--cameras", "--open-set"]) == 0
    out = capsys.readouterr().out
    for words in ("24 queries, 120 gallery sightings", "95 % intervals", "camera pairs", "TAR at FAR 1 %"):
        assert words in out
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["mAP"] == measure(*sides, Evaluation()).summary()["mAP"]
    assert (document["dataset"], len(document["camera_pairs"])) == ("artificial", 6)
    again = tmp_path / "again.parquet"
    assert main(["evaluate", str(stored), "--rerank", "--save-embeddings", str(again), "--half"]) == 0
    assert read_embeddings(again)[0].vectors.dtype == np.float16
    name, result = evaluate_embeddings(again)
    assert name == "artificial"
    assert result.summary()["mAP"] == pytest.approx(document["mAP"], abs=1e-3)


def test_json_on_standard_output_is_the_only_output(stored, tmp_path, capsys):
    assert main(["evaluate", str(stored), "--json", "--open-set", "--rerank"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(stored), "--figures", str(tmp_path / "a.json"), "--open-set", "--rerank"]) == 0
    assert printed == json.loads((tmp_path / "a.json").read_text())
    assert printed["settings"]["rerank"] is True
    assert len(printed["per_query"]) == printed["queries"] == 24
    saved = tmp_path / "e.parquet"
    capsys.readouterr()
    assert main(["evaluate", str(stored), "--json", "--save-embeddings", str(saved)]) == 0
    json.loads(capsys.readouterr().out)  # notes on the files that were written are not part of it
    assert saved.exists()


def test_a_model_and_its_saved_embeddings_give_the_same_figures(market, tmp_path, capsys):
    model = small_model(tmp_path / "model", cameras=("market1501:1", "market1501:2"))
    saved = tmp_path / "e.parquet"
    data = ["--dataset", "market1501", "--root", str(market), "--device", "cpu"]
    command = ["evaluate", str(model), *data, "--flip", "on", "--save-embeddings", str(saved)]
    assert main([*command, "--figures", str(tmp_path / "a.json"), "--quiet"]) == 0
    assert main(["evaluate", str(saved), "--figures", str(tmp_path / "b.json")]) == 0
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    for name in ("mAP", "R1", "cmc", "per_query", "embedding_id", "dataset", "protocol"):
        assert a[name] == b[name]
    assert a["embedding_id"] == resight.load(model, "cpu", flip=True).embedding_id
    assert a["embedding_id"] != resight.load(model, "cpu").embedding_id
    assert (a["compute"]["device"], b["compute"]) == ("cpu", None)


@pytest.mark.parametrize("same_table", [True, False])
def test_progress_ends_with_the_number_of_sightings(market, painted, tmp_path, same_table):
    modalities = ("rgb", "nir", "tir") if same_table else ("rgb",)
    model = small_model(tmp_path / "model", modalities=modalities)
    split = read_dataset("synthetic", painted) if same_table else read_dataset("market1501", market)
    counts = []
    evaluate(resight.load(model, "cpu"), split, progress=counts.append)
    assert counts == sorted(counts)
    assert counts[-1] == (16 if same_table else 18)


# One modality searched with another.


def paint_sysu(root):
    """Four test identities in SYSU-MM01's layout, each seen twice by each camera; 3 and 6 are infrared."""
    for camera in range(1, 7):
        for identity in range(1, 7):
            for shot in (1, 2):
                picture(root / f"cam{camera}" / f"{identity:04d}" / f"{shot:04d}.jpg", identity, 10 * camera + shot)
    (root / "exp").mkdir()
    for part, identities in (("train", "1"), ("val", "2"), ("test", "3,4,5,6")):
        (root / "exp" / f"{part}_id.txt").write_text(f"{identities}\n")


def paint_regdb(root):
    """Four test identities in RegDB's layout, each in three pictures of each modality."""
    (root / "idx").mkdir(parents=True)
    for part, identities in (("train", range(2)), ("test", range(2, 6))):
        for number, name in enumerate(("visible", "thermal")):
            rows = []
            for identity in identities:
                for shot in range(3):
                    file = f"{name.title()}/{identity}/{shot}.bmp"
                    picture(root / file, identity, 10 * number + shot)
                    rows.append(f"{file} {identity}\n")
            (root / "idx" / f"{part}_{name}_1.txt").write_text("".join(rows))


CROSSING = [
    ("sysu-mm01", paint_sysu, ("rgb", "nir"), "sysu-all", ("nir", "rgb")),
    ("regdb", paint_regdb, ("rgb", "tir"), "regdb-visible-thermal", ("rgb", "tir")),
]


def naive_map(result, sysu):
    """mAP of the first trial, in double precision, by the definitions."""
    ranking = result.trials[0].rankings[0]
    precisions = []
    for q in ranking.query:
        one = result.query.sightings[int(q)]
        scored = []
        for g in ranking.gallery:
            other = result.gallery.sightings[int(g)]
            if not (sysu and one.scene == other.scene):
                score = float(result.query.vectors[q].astype(float) @ result.gallery.vectors[g].astype(float))
                scored.append((-score, int(g), one.identity == other.identity))
        hits = [hit for _, _, hit in sorted(scored)]
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        precisions.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
    return np.mean(precisions)


@pytest.mark.parametrize(("name", "paint", "modalities", "protocol", "sides"), CROSSING)
def test_one_modality_is_searched_with_another(tmp_path, name, paint, modalities, protocol, sides):
    paint(tmp_path / "data")
    split = read_dataset(name, tmp_path / "data")
    model = varied_model(tmp_path / "model", modalities=modalities, sie=("modality",))
    embedder = resight.load(model, "cpu", precision="fp32", fusion="mean")
    result = evaluate(embedder, split)
    assert result.protocol.name == protocol
    ranking = result.trials[0].rankings[0]
    assert {m for row in ranking.query for m in split.query[int(row)].images} == {sides[0]}
    assert {m for row in ranking.gallery for m in split.gallery[int(row)].images} == {sides[1]}
    similarity = result.query.vectors[ranking.query] @ result.gallery.vectors[ranking.gallery].T
    assert (np.abs(similarity) > 0.01).all()
    assert (similarity.std(axis=1) > 0).all()
    assert 0 < result.summary()["mAP"] <= 1
    first = result.trials[0].metrics
    assert first.map == pytest.approx(naive_map(result, sysu=name == "sysu-mm01"), abs=1e-6)
    rows, _ = result.top(8)
    ascending = [np.all(np.diff(row[row >= 0]) > 0) for row in rows[ranking.query]]
    assert not any(ascending)  # similarities of 0 would rank in the order of the rows


@pytest.mark.parametrize(("name", "paint", "modalities", "protocol", "sides"), CROSSING)
def test_concatenated_modalities_with_nothing_in_common_are_refused(
    tmp_path, capsys, monkeypatch, name, paint, modalities, protocol, sides
):
    """Query and gallery of these sets are one table of both modalities, from which the protocol selects."""
    paint(tmp_path / "data")
    split = read_dataset(name, tmp_path / "data")
    model = small_model(tmp_path / "model", modalities=modalities, sie=("modality",))
    embedder = resight.load(model, "cpu", precision="fp32", fusion="concat")
    vectors = embedder.embed(split.query)
    monkeypatch.setattr(type(embedder), "embed", lambda *args, **options: pytest.fail("embedded before it was refused"))
    says = f"queries have the modalities {sides[0]} and the gallery {sides[1]}.*--fusion mean"
    with pytest.raises(EvaluationError, match=says):
        evaluate(embedder, split)
    with pytest.raises(EvaluationError, match=says):
        evaluate(embedder, split, Evaluation(protocol=protocol, junk="none"))
    info = EmbeddingsInfo(fusion="concat", modalities=modalities, protocol=protocol)
    stored = Embeddings(vectors, split.query, info)
    with pytest.raises(EvaluationError, match=says):
        measure(stored, stored, Evaluation(), protocol)
    write_embeddings(tmp_path / "e.parquet", stored)
    with pytest.raises(EvaluationError, match=says):
        evaluate_embeddings(tmp_path / "e.parquet")
    command = ["evaluate", model, "--dataset", name, "--root", tmp_path / "data", "--device", "cpu", "--quiet"]
    assert "use --fusion mean" in refused(capsys, *command)
    measure(stored, stored, Evaluation(protocol="everything"))  # both modalities are on both sides


def test_tables_without_a_shared_modality_are_refused():
    vectors = np.eye(4, dtype=np.float32)
    rows = [SightingTable.of(Sighting({m: f"{m}{n}"}, str(n)) for n in range(2)) for m in ("rgb", "tir")]
    info = EmbeddingsInfo(fusion="concat", modalities=("rgb", "tir"))
    query, gallery = (Embeddings(vectors[2 * n : 2 * n + 2], table, info) for n, table in enumerate(rows))
    with pytest.raises(EvaluationError, match="queries have the modalities rgb and the gallery tir"):
        measure(query, gallery, Evaluation(junk="none"))
    mean = EmbeddingsInfo(fusion="mean", modalities=("rgb", "tir"))
    measure(Embeddings(vectors[:2], rows[0], mean), Embeddings(vectors[2:], rows[1], mean), Evaluation(junk="none"))


# Cameras of several data sets.


def train_on(name, roots, out):
    run = Run(
        dataset=name, root=":".join(map(str, roots)), out=out, device="cpu", precision="fp32", cache=False,
        preprocessing={"size": (64, 32)}, model={"backbone": "test_vit", "sie": ("camera",)},
        sampling={"identities": 4, "instances": 2}, schedule={"epochs": 1, "warmup_epochs": 0},
    )  # fmt: skip
    resight.train(run)
    return out / "best"


@pytest.fixture
def duke(market, tmp_path):
    """Another set with cameras 1 and 2."""
    for file in market.rglob("*.jpg"):
        if not file.name.startswith("-1"):
            identity, camera = int(file.name[:4]), int(file.name.split("_c")[1][0])
            picture(tmp_path / "duke" / file.relative_to(market), identity + 50, camera)
    return tmp_path / "duke"


def test_a_model_of_two_sets_knows_the_cameras_of_each(market, duke, tmp_path, capsys):
    model = train_on("market1501+dukemtmc", (market, duke), tmp_path / "run")
    embedder = resight.load(model, "cpu")
    known = embedder.card.vocabulary
    assert known.cameras == ("dukemtmc:1", "dukemtmc:2", "market1501:1", "market1501:2")
    for name, root in (("market1501", market), ("dukemtmc", duke)):
        split = read_dataset(name, root)
        inputs = as_inputs(split.query, None, None, None, known.modalities)
        numbers = inputs.numbers(known.cameras, known.views, known.modalities)["camera"]
        assert UNKNOWN not in numbers
        assert [known.cameras[n] for n in numbers] == split.query.column("camera")
        assert embedder.unknown_labels(split.query) == {}
    arguments = ["evaluate", str(model), "--dataset", "market1501", "--root", str(market), "--device", "cpu"]
    assert main(arguments) == 0
    assert "not in training" not in capsys.readouterr().err


def test_a_model_of_market_does_not_take_another_sets_camera_for_its_own(market, duke, tmp_path, capsys):
    split = read_dataset("market1501", market)
    model = small_model(tmp_path / "model", cameras=Vocabulary.of(split.train).cameras)
    embedder = resight.load(model, "cpu", precision="fp32")
    (other,) = [s for s in read_dataset("dukemtmc", duke).query if s.camera == "dukemtmc:1"][:1]
    pixels = other.images["rgb"]
    as_unknown, as_market = (embedder.embed(pixels, camera=camera) for camera in (None, "market1501:1"))
    assert np.abs(as_unknown - as_market).max() > 1e-3
    np.testing.assert_array_equal(embedder.embed(other), as_unknown)
    assert embedder.unknown_labels(split.query) == {}
    unknown = embedder.unknown_labels(read_dataset("dukemtmc", duke).query)
    assert unknown == {"camera": ["dukemtmc:1", "dukemtmc:2"]}
    arguments = ["evaluate", str(model), "--dataset", "dukemtmc", "--root", str(duke), "--device", "cpu"]
    assert main(arguments) == 0
    error = capsys.readouterr().err
    assert error.count("not in training") == 1
    assert "not in training: 2 cameras, such as dukemtmc:1; their mean is used" in " ".join(error.split())


def test_own_images_are_evaluated_with_their_own_camera_names(tmp_path):
    rows = []
    for identity in range(4):
        for camera in ("door", "hall"):
            file = picture(tmp_path / f"{identity}{camera}.jpg", identity, len(rows))
            rows.append(f"{file.name},{identity},{camera},{'query' if camera == 'door' else 'gallery'}\n")
            rows.append(f"{file.name},t{identity},{camera},train\n")
    (tmp_path / "mine.csv").write_text("path,identity,camera,split\n" + "".join(rows))
    split = read_dataset("own", tmp_path / "mine.csv")
    embedder = resight.load(small_model(tmp_path / "model", cameras=("door", "hall")), "cpu", precision="fp32")
    assert embedder.unknown_labels(split.query) == {}
    result = evaluate(embedder, split)
    expected = embedder.embed(split.query[0].images["rgb"], camera="door")
    np.testing.assert_allclose(result.query.vectors[:1], expected, atol=1e-6)
    assert result.query_labels.names["camera"] == ["door", "hall"]


def test_evaluate_checks_its_protocol_before_it_embeds(market, tmp_path, monkeypatch):
    embedder = resight.load(small_model(tmp_path / "model"), "cpu")
    monkeypatch.setattr(type(embedder), "embed", lambda *args, **options: pytest.fail("embedded before it was refused"))
    with pytest.raises(ConfigError, match="no protocol named 'sysu'"):
        evaluate(embedder, read_dataset("market1501", market), Evaluation(protocol="sysu"))


def test_evaluate_leaves_a_model_in_training_as_it_was(market, tmp_path):
    from resight.models.checkpoint import load_model

    model, card = load_model(small_model(tmp_path / "model"))
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(resight.Embedder(model, card), read_dataset("market1501", market))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
