"""The model folder: what is written is read again, and what is not whole or of another format is refused."""

import hashlib
import json

import pytest
import torch
from conftest import small_model
from safetensors.torch import load_file, save_file

from resight import load
from resight.cli import main
from resight.errors import CheckpointError
from resight.models.checkpoint import ModelCard, load_model, read_calibration, read_card, weights_digest


@pytest.fixture
def folder(tmp_path):
    return small_model(tmp_path / "model", cameras=("a:1", "a:2"), jpm=True)


def edit_card(folder, **changes):
    card = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(card | changes))


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


@pytest.mark.parametrize("number", [1, 3])
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
        ("[]", "does not describe a model"),
        ('{"format": 2}', "does not describe a model: model: Field required"),
        ('{"format": "two"}', "does not describe a model"),
    ],
)
def test_a_card_that_describes_no_model_is_refused(folder, text, says):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=says):
        read_card(folder)


def test_weights_of_another_model_are_refused(folder, tmp_path):
    other = small_model(tmp_path / "other", cameras=("a:1", "a:2", "a:3"), jpm=True)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"does not fit the model; of another shape: backbone\.sie\.table"):
        load_model(folder)


def test_weights_that_lack_a_tensor_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["backbone.cls_token"]
    save_file(weights, folder / "model.safetensors")
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


def test_a_calibration_that_is_none_is_refused(folder):
    (folder / "calibration.json").write_text('{"slope": 1}')
    with pytest.raises(CheckpointError, match="is no calibration: offset"):
        read_calibration(folder)
