"""The model folder: what is written is read again, and what is not whole or of another format is refused."""

import hashlib
import json
import random
import re
import shutil

import numpy as np
import pytest
import torch
from bit_flips import FLIPS, flip_bit, truncate
from conftest import small_model
from numpy.testing import assert_array_equal
from safetensors.torch import load_file, save_file

from resight import load
from resight.cli import main
from resight.errors import CheckpointError
from resight.evaluation.calibrate import write_calibration
from resight.files import write_folder
from resight.models.calibration import read_calibration
from resight.models.checkpoint import (
    ModelCard,
    fill_model_folder,
    load_model,
    read_card,
    weights_digest,
)
from resight.models.pretrained import load_pretrained
from resight.retrieval.calibration import Calibration


@pytest.fixture
def folder(tmp_path):
    return small_model(tmp_path / "model", cameras=("a:1", "a:2"), jpm=True)


def edit_card(folder, **changes):
    card = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(card | changes))


def rewrite_card(folder, **changes):
    """As `edit_card`, with the SHA-256 of the new content."""
    card = read_card(folder).model_copy(update=changes)
    (folder / "config.json").write_text(card.model_dump_json())


def calibration(**changes):
    values = {
        "slope": 10.0, "offset": -5.0, "similarity": (-0.5, 0.0, 0.5), "probability": (0.1, 0.1, 0.9),
        "threshold": 0.25, "false_match_rate": 0.01, "true_match_rate": 0.9, "dataset": "x",
        "same": 10, "different": 100,
    }  # fmt: skip
    return Calibration(**{**values, **changes})


def test_a_folder_is_read_as_it_was_written(folder):
    model, card = load_model(folder)
    assert card.vocabulary.cameras == ("a:1", "a:2")
    assert (card.format, card.model.jpm, card.embedding.flip) == (2, True, False)
    assert ModelCard.model_validate_json(card.model_dump_json()) == card
    stored = load_file(folder / "model.safetensors")
    assert set(stored) == set(model.state_dict())
    assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert read_calibration(folder) is None


def test_the_card_states_the_hash_of_the_weights(folder):
    model, card = load_model(folder)
    assert card.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights_digest(model.state_dict()) == card.weights_sha256
    next(model.parameters()).data[0] += 1
    assert weights_digest(model.state_dict()) != card.weights_sha256


@pytest.mark.parametrize("number", [1, 3, 99])
def test_a_card_of_another_format_is_refused_in_one_sentence(folder, capsys, market, number):
    edit_card(folder, format=number)
    says = f"has format {number}, and this version of resight reads format 2: train or convert the model again"
    for read in (read_card, load_model, load):
        with pytest.raises(CheckpointError, match=says):
            read(folder)
    command = ["evaluate", str(folder), "--dataset", "market1501", "--root", str(market), "--quiet"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "train or convert the model again with this version" in error
    assert error.count("\n") == 1


def test_a_card_as_format_1_wrote_it_is_refused_for_its_format(folder):
    """With the names of sections that it had: what is said is the format, not the fields."""
    card = json.loads((folder / "config.json").read_text())
    old = {"format": 1, "model": card["model"], "pictures": card["preprocessing"], "vocabulary": card["vocabulary"]}
    (folder / "config.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match="has format 1, and this version"):
        read_card(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        (b"\xff\xfe\xfa", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "does not describe a model"),
        ("{}", "has no format number, and this version of resight reads format 2: train or convert"),
        ('{"format": "2"}', 'has format "2", and this version'),
        ('{"format": true}', "has format true, and this version"),
        ('{"format": 2}', "has no sha256, so whether it is intact cannot be checked: train or convert"),
    ],
)
def test_a_card_that_describes_no_model_is_refused(folder, text, says):
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=re.escape(says)):
        read_card(folder)


def test_a_card_that_was_edited_is_refused(folder):
    edit_card(folder, weights_sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"is corrupt or was edited.*restore it from a copy, or train or convert"):
        load_model(folder)


def test_the_layout_of_a_card_does_not_matter(folder):
    edit_card(folder)  # indentation and the order of names are another
    load_model(folder)
    edit_card(folder, note="x")
    with pytest.raises(CheckpointError, match="was edited"):
        load_model(folder)


def test_a_card_without_the_hash_of_the_weights_is_refused(folder):
    rewrite_card(folder, weights_sha256=None)
    with pytest.raises(CheckpointError, match="has no weights_sha256, so whether the weights are intact cannot"):
        load_model(folder)


def test_an_unknown_field_of_a_card_is_refused(folder):
    content = {**json.loads(read_card(folder).model_dump_json()), "note": "x"}
    del content["sha256"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="does not describe a model: note: Extra inputs are not permitted"):
        read_card(folder)


def test_one_flipped_bit_of_the_weights_is_noticed(folder):
    weights = folder / "model.safetensors"
    flip_bit(weights, 8 * weights.stat().st_size - 30)  # a high bit of the last weight's fraction
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is corrupt, its SHA-256 is not the one in config\.json"
    ):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_read(folder, tmp_path, value):
    model, card = load_model(folder)
    weights = model.state_dict()
    weights["backbone.cls_token"][0, 0, 3] = value
    with pytest.raises(
        CheckpointError, match=r"the model has weights that are NaN or infinite, in backbone\.cls_token"
    ):
        write_folder(tmp_path / "out", lambda path: fill_model_folder(path, weights, card))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    save_file(weights, folder / "model.safetensors")  # by another program
    rewrite_card(folder, weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match=r"model\.safetensors has weights that are NaN or infinite, in backbone"):
        load_model(folder)


def test_pretrained_weights_that_are_not_finite_are_refused(folder, tmp_path):
    model, _ = load_model(folder)
    names = (name for name in model.backbone.state_dict() if not name.startswith(("sie.", "jpm.")))
    weights = {name: model.backbone.state_dict()[name].clone() for name in names}
    save_file(weights, tmp_path / "good.safetensors")
    load_pretrained(model.backbone, str(tmp_path / "good.safetensors"), "test_vit")
    weights["norm.bias"][0] = float("nan")
    save_file(weights, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=r"bad\.safetensors has weights that are NaN or infinite, in norm\.bias"):
        load_pretrained(model.backbone, str(tmp_path / "bad.safetensors"), "test_vit")


def test_large_weights_whose_sum_overflows_are_finite(folder, tmp_path):
    model, card = load_model(folder)
    weights = model.state_dict()
    weights["backbone.cls_token"].fill_(3e38)
    write_folder(tmp_path / "out", lambda path: fill_model_folder(path, weights, card))
    load_model(tmp_path / "out")


def test_weights_of_another_model_are_refused(folder, tmp_path):
    other = small_model(tmp_path / "other", cameras=("a:1", "a:2", "a:3"), jpm=True)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors is corrupt, its SHA-256"):
        load_model(folder)
    rewrite_card(folder, weights_sha256=read_card(other).weights_sha256)
    with pytest.raises(CheckpointError, match=r"does not fit the model; of another shape: backbone\.sie\.table"):
        load_model(folder)


def test_weights_that_lack_a_tensor_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["backbone.cls_token"]
    save_file(weights, folder / "model.safetensors")
    rewrite_card(folder, weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match=r"missing: backbone\.cls_token"):
        load_model(folder)


def test_files_that_are_missing_or_cut_short_are_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no model folder: it has no readable config\.json"):
        load_model(tmp_path / "none")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        (
            '{"slope": 1}',
            "has no format number, and this version of resight reads format 2: run resight calibrate again",
        ),
        ('{"format": 99}', "has format 99, and this version of resight reads format 2: run resight calibrate again"),
        ('{"format": 2}', "has no sha256"),
    ],
)
def test_a_calibration_that_is_none_is_refused(folder, text, says):
    (folder / "calibration.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"calibration\.json.*" + says):
        read_calibration(folder)


def test_a_calibration_that_was_edited_is_refused(folder):
    write_calibration(folder, calibration())
    assert read_calibration(folder) == calibration()
    file = folder / "calibration.json"
    file.write_text(file.read_text().replace("0.25", "0.26"))
    with pytest.raises(CheckpointError, match=r"calibration\.json is corrupt or was edited.*resight calibrate again"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("threshold", float("nan"), "threshold: Input should be a finite number"),
        ("slope", float("inf"), "slope: Input should be a finite number"),
        ("offset", None, "offset: Input should be a valid number"),
        ("similarity", (), "similarity: Tuple should have at least 1 item"),
        ("similarity", (-0.5, 0.5, 0.0), "similarity is not ascending"),
        ("similarity", (-0.5, 0.0, 0.0), "similarity is not ascending"),
        ("similarity", (-0.5, 0.0, 1.5), "similarity.2: Input should be less than or equal to 1"),
        ("similarity", (-0.5, 0.0), "2 similarities have 3 probabilities"),
        ("probability", (0.1, 0.2, 1.5), "probability.2: Input should be less than or equal to 1"),
        ("probability", (-0.1, 0.2, 0.5), "probability.0: Input should be greater than or equal to 0"),
        ("probability", (0.1, float("nan"), 0.5), "probability.1: Input should be a finite number"),
        ("probability", (0.3, 0.2, 0.5), "probability is descending"),
        ("false_match_rate", 1.0, "false_match_rate: Input should be less than 1"),
        ("true_match_rate", 1.1, "true_match_rate: Input should be less than or equal to 1"),
        ("same", -1, "same: Input should be greater than or equal to 0"),
    ],
)
def test_a_calibration_out_of_range_is_refused_in_one_sentence(folder, name, value, says):
    """Also where its SHA-256 is right: another program wrote it."""
    changed = calibration().model_copy(update={name: value})
    content = changed.model_dump(warnings=False)
    file = folder / "calibration.json"
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"calibration\.json does not describe a calibration: .*{says}") as error:
        read_calibration(folder)
    assert "\n" not in str(error.value)


def test_flipped_bits_of_a_model_folder_are_noticed_or_harmless(folder, tmp_path):
    rng = random.Random(0)
    write_calibration(folder, calibration())
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    embedder = load(folder, "cpu", "fp32")
    expected, stated = embedder.embed(image), embedder.calibration
    files, noticed = sorted(folder.iterdir()), 0
    for n in range(FLIPS):
        copy = shutil.copytree(folder, tmp_path / "flipped", dirs_exist_ok=True)
        file = copy / files[n % len(files)].name
        flip_bit(file, rng.randrange(8 * file.stat().st_size))
        try:
            embedder = load(copy, "cpu", "fp32")
        except CheckpointError:
            noticed += 1
        else:
            assert_array_equal(embedder.embed(image), expected)
            assert embedder.calibration == stated
    print(f"{noticed} of {FLIPS} flipped bits are noticed, the others change nothing")
    assert noticed > 0.8 * FLIPS


def test_a_model_folder_that_is_cut_short_is_refused(folder, tmp_path):
    rng = random.Random(0)
    write_calibration(folder, calibration())
    files = sorted(folder.iterdir())
    for n in range(10):
        copy = shutil.copytree(folder, tmp_path / "cut", dirs_exist_ok=True)
        truncate(copy / files[n % len(files)].name, rng)
        with pytest.raises(CheckpointError):
            load(copy, "cpu", "fp32")
