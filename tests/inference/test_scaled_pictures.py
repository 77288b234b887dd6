"""Every path from a picture of more than 8 bits to a vector gives that of the 8-bit picture that the rule makes."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import Log, picture
from inference_helpers import card_of, sensitive_model, short_embedder
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import resight
from resight.cli import main
from resight.config.sections import Embedding
from resight.data.sightings import Sighting, SightingTable
from resight.inference.embeddings import read_embeddings
from resight.inference.export import export
from resight.inference.extract.extract import ExtractOptions, extract
from resight.inference.runtime import ExportMetadata, Runtime, prepare
from resight.inference.runtime import load as load_exported
from resight.models.checkpoint import weights_digest

LIMITS = ("limits", 7000.0, 9000.0)
RULES = {"tir": LIMITS, "default": ("percentiles", 1.0, 99.0)}
FP32 = ExtractOptions("cpu", "fp32")


def card_with(scaling, modalities=("rgb", "tir"), **settings):
    card = card_of(modalities=modalities, sie=("camera", "modality"), **settings)
    return card.model_copy(update={"preprocessing": card.preprocessing.changed(scaling=scaling)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose card has rules."""
    return sensitive_model(tmp_path_factory.mktemp("with") / "m", card_with(RULES))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same network with a card that has none."""
    return sensitive_model(tmp_path_factory.mktemp("without") / "m", card_with({}))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of 16 bits and of floating-point numbers, and the 8-bit pictures that the rules make, by modality."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    deep, shallow = {"rgb": [], "tir": []}, {"rgb": [], "tir": []}
    for n in range(6):
        coarse = rng.normal(8000, 600, (9, 5)).astype(np.float32)
        values = np.asarray(Image.fromarray(coarse).resize((37, 90), Image.Resampling.BICUBIC))
        values = values.astype(np.uint16) if n % 2 else values
        path = root / f"{n}.{'png' if n % 2 else 'tif'}"
        Image.fromarray(values).save(path)
        for modality in deep:
            low, high = (7000, 9000) if modality == "tir" else np.percentile(values.astype(np.float64), (1, 99))
            levels = np.rint((values.astype(np.float64).clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
            deep[modality].append(path)
            shallow[modality].append(root / f"{modality}-{n}.png")
            Image.fromarray(np.stack([levels] * 3, axis=2)).save(shallow[modality][-1])
    return deep, shallow


def loaded(folder, **options):
    return resight.load(folder, "cpu", "fp32", **options)


@pytest.mark.parametrize("modality", ["rgb", "tir"])
def test_the_vector_is_that_of_the_8_bit_picture(folder, files, modality):
    deep, shallow = (each[modality] for each in files)
    embedder = loaded(folder)
    vectors = embedder.embed(deep, modality=modality)
    assert_allclose(vectors, embedder.embed(shallow, modality=modality), atol=1e-6)
    assert_array_equal(embedder.embed([p.read_bytes() for p in deep], modality=modality), vectors)
    arrays = [np.asarray(Image.open(path)) for path in deep]
    assert_allclose(embedder.embed(arrays, modality=modality), vectors, atol=1e-6)
    assert_allclose(embedder.embed([Image.open(path) for path in deep], modality=modality), vectors, atol=1e-6)
    white = embedder.embed(np.full((90, 37, 3), 255, np.uint8), modality=modality)  # what clipping made of them
    assert (vectors @ white.T).max() < 0.98
    others = embedder.embed(deep, modality="rgb" if modality == "tir" else "tir")
    assert (vectors * others).sum(1).max() < 0.999  # each modality has its own rule


def test_a_sighting_has_the_rule_of_each_of_its_modalities(folder, files):
    deep, shallow = files
    one, other = ({m: each[m][n] for n, m in enumerate(("rgb", "tir"))} for each in (deep, shallow))
    embedder = loaded(folder)
    assert_allclose(embedder.embed(Sighting(one)), embedder.embed(Sighting(other)), atol=1e-6)
    only_tir = loaded(folder, scaling={"tir": LIMITS})
    with pytest.raises(resight.PictureError, match=r"0\.tif is a floating-point picture, and 8 bits are needed"):
        only_tir.embed(Sighting(one))
    assert only_tir.embed(one["tir"], modality="tir").shape == (1, only_tir.width)


def test_the_id_has_the_rules_that_are_in_force(folder, plain):
    with_rules, without = loaded(folder), loaded(plain)
    assert loaded(plain, scaling=RULES).embedding_id == with_rules.embedding_id
    ids = [with_rules.embedding_id, without.embedding_id]
    ids += [loaded(plain, scaling=rules).embedding_id for rules in ({"tir": LIMITS}, {"tir": ("limits", 7000, 9001)})]
    assert len(set(ids)) == 4
    card, settings = without.card, without.settings
    facts = {  # as it was before there were rules
        "weights": weights_digest(without.model.state_dict()), "model": card.model.model_dump(mode="json"),
        "images": [[64, 32], [0.4, 0.5, 0.6], [0.5, 0.5, 0.5], "bilinear"],
        "labels": [["c1", "c2"], [], ["rgb", "tir"]], "flip": False, "fusion": "concat", "unknown": settings.unknown,
    }  # fmt: skip
    assert without.embedding_id == hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def test_a_rule_for_a_modality_that_the_model_does_not_know_is_refused(plain, files, tmp_path):
    with pytest.raises(resight.ConfigError, match=r"scaling has a rule for 'nir', and the modalities are rgb, tir"):
        loaded(plain, scaling={"nir": LIMITS})
    options = replace(FP32, scaling={"nir": LIMITS})
    with pytest.raises(resight.ConfigError, match=r"scaling has a rule for 'nir'"):
        extract(plain, files[0]["rgb"], tmp_path / "e.parquet", options=options)


@pytest.mark.parametrize("how", ["card", "options", "embedder", "two workers"])
def test_an_extraction_follows_the_rules(folder, plain, files, tmp_path, how):
    deep, shallow = files
    tables = (SightingTable.of(Sighting({"rgb": a, "tir": b}) for a, b in zip(each["rgb"], each["tir"], strict=True))
              for each in (deep, shallow))  # fmt: skip
    one, other = tables
    model = {"options": plain, "embedder": loaded(plain, scaling=RULES)}.get(how, folder)
    options = {"options": replace(FP32, scaling=RULES), "embedder": None}.get(how, FP32)
    workers = 2 if how == "two workers" else 1
    if how == "two workers":
        model, options = plain, replace(FP32, scaling=RULES, shard=3)
    extract(model, one, tmp_path / "a.parquet", workers=workers, options=options)
    found = read_embeddings(tmp_path / "a.parquet")[0].vectors
    assert_allclose(found, loaded(folder).embed(other), atol=1e-6)


def test_an_extraction_names_pictures_without_a_rule(plain, files, tmp_path):
    result = extract(plain, [picture(tmp_path / "a.jpg"), *files[0]["rgb"]], tmp_path / "e.parquet", options=FP32)
    assert result.rows == 1
    assert len(result.corrupt) == 6
    assert "state a rule with the setting scaling" in result.corrupt[0]


def animated(path):
    frames = [Image.new("RGB", (8, 16), colour) for colour in ("red", "blue")]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def test_an_extraction_says_once_what_is_left_out(plain, tmp_path):
    paths = [animated(tmp_path / "x" / f"{n}.gif") for n in range(5)]
    log, out = Log(), tmp_path / "e.parquet"
    log.start = lambda *given: None
    result = extract(plain, paths, out, options=replace(FP32, shard=2), progress=log)
    line = f"5 pictures have several frames: the first is used ({tmp_path}/x/0.gif, ...)"
    assert result.notes == [line]
    assert log.lines[1:] == [line]


def test_a_gallery_follows_the_rules_that_it_was_created_with(folder, plain, files, tmp_path):
    table = SightingTable.of(Sighting({"tir": path}) for path in files[0]["tir"])
    with resight.create_gallery(tmp_path / "g", loaded(plain, scaling=RULES)):
        pass
    with resight.open_gallery(tmp_path / "g", device="cpu", precision="fp32") as gallery:  # loads the model itself
        report = gallery.ingest(table, thumbnails=True)
        assert (report.added, report.corrupt, report.notes) == (6, [], [])
        answers = gallery.search(loaded(folder).embed(files[1]["tir"], modality="tir"), k=1)
        assert [answer[0].record.images["tir"] for answer in answers] == [str(path) for path in files[0]["tir"]]
        assert min(answer[0].similarity for answer in answers) > 0.99999
    with pytest.raises(resight.GalleryError):
        resight.open_gallery(tmp_path / "g", loaded(plain))


def test_gallery_add_says_once_what_is_left_out(plain, tmp_path, capsys):
    names = [str(animated(tmp_path / "x" / f"{n}.gif")) for n in range(3)]
    command = ["gallery", "add", str(tmp_path / "g"), *names, "--model", str(plain), "--device", "cpu"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out == "3 added, 0 already present, 0 corrupt and skipped\n"
    assert printed.err.splitlines()[1:] == [
        "3 sightings",
        f"3 pictures have several frames: the first is used ({names[0]}, ...)",
    ]


def test_an_exported_model_follows_the_rules(folder, files):
    embedder, seen = loaded(folder), []
    metadata = ExportMetadata(
        kind="onnx", file="m", embedding_id=embedder.embedding_id, row_width=4, size=(64, 32), interpolation="bilinear",
        modalities=("rgb", "tir"), scaling=RULES,
    )  # fmt: skip
    runtime = Runtime(metadata, lambda inputs: seen.append(inputs["images"]) or np.ones((len(inputs["images"]), 4)))
    for modality in ("rgb", "tir", None):
        runtime.embed(files[0][modality or "rgb"], modality=modality)
        expected = [prepare(path, (64, 32), "bilinear") for path in files[1][modality or "rgb"]]
        assert_array_equal(seen[-1], np.stack(expected))


def test_an_export_has_the_rules(files, tmp_path):
    pytest.importorskip("onnxruntime")
    settings = Embedding(precision="fp32", scaling={"tir": LIMITS})
    embedder = short_embedder(card_with({}), settings)
    export(embedder, tmp_path / "out", "onnx", files[0]["tir"])
    runtime = load_exported(tmp_path / "out", threads=1)
    assert runtime.metadata.scaling == {"tir": LIMITS}
    assert runtime.embedding_id == embedder.embedding_id
    cosine = (runtime.embed(files[0]["tir"], modality="tir") * embedder.embed(files[1]["tir"], modality="tir")).sum(1)
    assert cosine.min() > 0.9999
    with pytest.raises(resight.PictureError, match="is a floating-point picture"):
        runtime.embed(files[0]["rgb"], modality="rgb")


def run(capsys, *command):
    """Exit code, and what is printed on both streams."""
    capsys.readouterr()
    code = main([str(word) for word in command])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_similarity_on_the_command_line(folder, plain, files, capsys):
    deep, shallow = files[0]["tir"][1], files[1]["tir"][1]
    command = ["similarity", deep, shallow, "--modalities", "tir", "tir", "--device", "cpu", "--precision", "fp32"]
    same = (0, "similarity 1.0000\n", "")
    assert run(capsys, *command, "--model", folder) == same
    assert run(capsys, *command, "--model", plain, "--scaling", "tir", "limits", 7000, 9000) == same
    assert run(capsys, *command, "--model", plain) == (
        2, "", f"resight: {deep} is a 16-bit picture, and 8 bits are needed: scale it to 8 bits first, or state a rule "
        "with the setting scaling, such as --scaling default percentiles 1 99 (in training: --preprocessing.scaling)\n",
    )  # fmt: skip
    for words, says in (
        (["tir", "limits", 9000, 7000], "scaling.tir: the low end must be less than the high end"),
        (["tir", "percentiles", 0, 101], "scaling.tir: percentiles are from 0 to 100, not 0 and 101"),
        (["tir", "quantiles", 0, 1], "Error parsing --scaling"),
        (["nir", "limits", 0, 1], "scaling has a rule for 'nir', and the modalities are rgb, tir (default for all)"),
    ):
        code, out, error = run(capsys, *command, "--model", plain, "--scaling", *words)
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert says in error


def test_training_by_a_rule_gives_a_model_that_has_it(tmp_path, capsys):
    rng, rows = np.random.default_rng(0), ["tir,identity,camera"]
    for n in range(24):
        values = (8000 + 500 * rng.standard_normal((8, 4))).astype(np.uint16)
        Image.fromarray(values).resize((32, 64), Image.Resampling.NEAREST).save(tmp_path / f"{n}.png")
        rows.append(f"{n}.png,{n // 4},c{n % 2}")
    animated(tmp_path / "x.gif")
    (tmp_path / "table.csv").write_text("\n".join([*rows, "x.gif,0,c0"]))
    options = ["train", "own", "--root", tmp_path / "table.csv", "--out", tmp_path / "run", "--device", "cpu"]
    options += ["--model.backbone", "test_vit", "--preprocessing.size", 64, 32, "--schedule.epochs", 1]
    options += ["--sampling.identities", 2, "--sampling.instances", 2, "--no-tensorboard", "--weights", "None"]
    assert run(capsys, *options)[2].endswith("; replace it, or leave such pictures out with --on-corrupt skip\n")
    code, _, error = run(capsys, *options, "--preprocessing.scaling", "tir", "limits", 7000, 9000)
    assert code == 0, error
    assert error.count("have several frames") + error.count("has several frames") == 1
    best = tmp_path / "run" / "best"
    assert loaded(best).scaling == {"tir": LIMITS}
    data = ["--dataset", "own", "--root", tmp_path / "table.csv", "--device", "cpu"]
    code, _, error = run(capsys, "evaluate", best, *data, "--rank-strip", tmp_path / "strip.png")
    assert code == 0, error
    assert Image.open(tmp_path / "strip.png").width > 200
    with pytest.raises(resight.ConfigError, match="scaling has a rule for 'thermal'"):
        resight.train(resight.recipes.vary(
            resight.recipes.RECIPES["own"](), root=tmp_path / "table.csv", out=tmp_path / "other",
            preprocessing={"scaling": {"thermal": LIMITS}},
        ))  # fmt: skip
