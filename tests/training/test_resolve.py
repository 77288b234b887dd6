"""Names and what depends on the data set are checked before a picture is read."""

import pytest
from training_helpers import small

import resight
from resight.config.recipes import tiny, vary
from resight.errors import ConfigError
from resight.training import loop, lr_finder
from resight.training.resolve import resolve, root_of

WRONG = [
    ({"dataset": "market1502"}, r"no data set named 'market1502'.*market1501"),
    ({"dataset": "market1501+market1502"}, r"no data set named 'market1502'"),
    ({"evaluation": {"protocol": "markt"}}, r"no protocol named 'markt'.*market"),
    ({"model": {"backbone": "vit_huge"}}, r"no backbone named 'vit_huge'.*vit_base_patch16_224"),
    ({"dataset": "sysu-mm01", "embedding": {"fusion": "concat"}}, r"sysu-all searches one modality with another.*mean"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_wrong_is_refused_before_a_picture_is_read(monkeypatch, painted, tmp_path, changes, message):
    for module in (loop, lr_finder):
        monkeypatch.setattr(module, "read_dataset", lambda *_: pytest.fail("a data set was read"))
    run = small(root=painted, out=tmp_path / "run", **changes)
    for function in (resolve, resight.train, resight.find_learning_rate):
        with pytest.raises(ConfigError, match=message):
            function(run)
    assert not run.out.exists()


@pytest.mark.parametrize(("dataset", "protocol", "fusion"), [
    ("sysu-mm01", None, "mean"),
    ("sysu-mm01", "sysu-indoor", "mean"),
    ("sysu-mm01", "everything", "mean"),  # the set itself crosses modalities
    ("regdb", None, "mean"),
    ("regdb-7", "regdb-thermal-visible", "mean"),
    ("market1501", None, "concat"),
    ("synthetic", None, "concat"),
    ("synthetic", "regdb-visible-thermal", "mean"),
    ("rgbnt201+sysu-mm01", None, "concat"),  # the first is what is tested on
    ("sysu-mm01+rgbnt201", None, "mean"),
])  # fmt: skip
def test_auto_becomes_what_the_protocol_needs(dataset, protocol, fusion):
    run = vary(tiny(), dataset=dataset, evaluation={"protocol": protocol}, embedding={"flip": True})
    resolved = resolve(run)
    assert (resolved.embedding.fusion, resolved.embedding.flip) == (fusion, True)
    assert run.embedding.fusion == "auto"  # a run is never changed
    assert vary(resolved, embedding={"fusion": "auto"}) == run
    assert resolve(resolved) == resolved


@pytest.mark.parametrize("dataset", ["sysu-mm01", "market1501", "synthetic"])
def test_a_mean_that_is_given_stays(dataset):
    assert resolve(vary(tiny(), dataset=dataset, embedding={"fusion": "mean"})).embedding.fusion == "mean"


def test_concat_stays_where_one_modality_is_compared_with_itself():
    assert resolve(vary(tiny(), embedding={"fusion": "concat"})).embedding.fusion == "concat"


def test_the_folder_of_a_data_set(tmp_path):
    assert root_of(vary(tiny(), root=tmp_path)) == tmp_path
    assert root_of(tiny()).parts == ("data", "synthetic")
    with pytest.raises(ConfigError, match="give the images of market1501 with --root"):
        root_of(vary(tiny(), dataset="market1501"))
    with pytest.raises(ConfigError, match="no data set named 'x'"):
        root_of(vary(tiny(), dataset="x"))


def test_the_resolved_fusion_is_in_the_model_card_and_the_configuration(painted, tmp_path):
    from resight.config.run import read_run
    from resight.models.checkpoint import read_card

    run = small(root=painted, out=tmp_path / "run", schedule={"epochs": 1}, embedding={"flip": True, "batch_size": 16})
    result = resight.train(run)
    stated = read_run(run.out / "config.json").embedding
    assert (stated.fusion, stated.flip, stated.batch_size) == ("concat", True, 16)
    assert read_card(run.out / "best").embedding == stated
    assert result.compute.batch_size == 16
