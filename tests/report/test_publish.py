"""The page of a published model: every statement on it is from the card, the run or a file of figures."""

import json
import re

import pytest
import yaml
from conftest import small_model
from training_helpers import run_to, small

import resight
from resight.errors import ConfigError
from resight.evaluation.calibrate import write_calibration
from resight.report.model_page import Details
from resight.retrieval.calibration import Calibration

MEASURED = {
    "dataset": "Market-1501", "protocol": "market", "queries": 3368, "gallery": 15913, "mAP": 0.9123, "R1": 0.958,
    "R5": 0.98, "interval_95": {"mAP": [0.9, 0.92]}, "per_query": [],
}  # fmt: skip


def front_matter(page: str) -> dict:
    assert page.startswith("---\n")
    return yaml.safe_load(page.split("---\n")[1])


@pytest.fixture
def model(tmp_path):
    return small_model(tmp_path / "model", cameras=("c1", "c2", "c3"))


def page_of(model, **options) -> str:
    return resight.push(model, "lab/vehicles", dry_run=True, **options).page


def test_a_page_states_what_the_card_has_and_invents_nothing(model):
    page = page_of(model)
    front = front_matter(page)
    assert front["library_name"] == "resight"
    assert not {"license", "model-index", "datasets", "base_model"} & set(front)
    identifier = resight.load(model, "cpu").embedding_id
    for text in ("`test_vit`", "64x32 pixels, bilinear resizing", "64 numbers, before BNNeck", f"`{identifier}`",
                 "2 identities, 3 cameras", "| side information (SIE) | camera |", 'resight.load("hf://lab/vehicles")',
                 "Not stated.", "No figures were published with this model."):  # fmt: skip
        assert text in page, text
    for absent in ("## Figures", "mAP", "## Calibration", "| data set |", "c1", "None"):
        assert absent not in page, absent


def test_a_page_of_several_modalities_says_how_they_are_fused(tmp_path):
    options = {"modalities": ("rgb", "tir"), "sie": ("modality",)}
    page = page_of(small_model(tmp_path / "concatenated", **options))
    assert "an embedding of 64 numbers for each modality of an image" in page
    assert "| modalities | rgb, tir, fused by concat |" in page
    assert "multimodal" in front_matter(page)["tags"]
    page = page_of(small_model(tmp_path / "learned", **options, fusion="mean"))
    assert "| embedding | 64 numbers, before BNNeck |" in page
    assert "| modalities | rgb, tir, fused by learned |" in page


def test_figures_are_those_of_the_files(model, tmp_path):
    measured = MEASURED | {"embedding_id": resight.load(model, "cpu").embedding_id}
    (tmp_path / "market.json").write_text(json.dumps(measured))
    (tmp_path / "duke.json").write_text(json.dumps(measured | {"dataset": "Duke | new", "mAP": 0.5, "interval_95": {}}))
    details = Details(licence="cc-by-nc-4.0", intended_use="Counting vehicles.", limits="Not at night.")
    files = [tmp_path / "market.json", tmp_path / "duke.json"]
    page = page_of(model, figures=files, details=details)
    assert "| Market-1501 | market | 3,368 | 15,913 | 91.2 % (90.0 % to 92.0 %) | 95.8 % | 98.0 % |" in page
    assert "| Duke \\| new | market | 3,368 | 15,913 | 50.0 % | 95.8 % | 98.0 % |" in page
    for text in ("The weights: `cc-by-nc-4.0`", "## Intended use\n\nCounting vehicles.", "## Limits\n\nNot at night."):
        assert text in page
    front = front_matter(page)
    assert front["license"] == "cc-by-nc-4.0"
    results = front["model-index"][0]["results"]
    assert [result["dataset"]["type"] for result in results] == ["market-1501", "duke-new"]
    assert {metric["type"]: metric["value"] for metric in results[0]["metrics"]} == {
        "mAP": 91.23,
        "R1": 95.8,
        "R5": 98.0,
    }
    card = pytest.importorskip("huggingface_hub").ModelCard(page)  # the Hub's own reader accepts it
    first = card.data.eval_results[0]
    assert (first.dataset_name, first.metric_type, first.metric_value) == ("Market-1501", "mAP", 91.23)


def test_figures_of_other_embeddings_are_refused(model, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(MEASURED | {"embedding_id": "0" * 16}))
    with pytest.raises(ConfigError, match="is of embeddings 0000000000000000, and the model's are"):
        page_of(model, figures=[tmp_path / "a.json"])
    for text, says in (
        ("{", "it is no JSON"),
        ("{}", "dataset: Field required"),
        ("[]", "no file of resight evaluate"),
    ):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ConfigError, match=re.escape(says)):
            page_of(model, figures=[tmp_path / "a.json"])


def test_a_readme_of_the_folder_is_used_as_it_is(model):
    (model / "README.md").write_text("# Mine\n")
    assert page_of(model) == "# Mine\n"
    (model / "README.md").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"README\.md cannot be read as text"):
        page_of(model)


def test_a_calibration_is_published_and_named(model):
    calibration = Calibration(
        dataset="VeRi-776", slope=9.0, offset=-4.0, similarity=(0.1, 0.9), probability=(0.1, 0.9), threshold=0.71234,
        false_match_rate=0.001, true_match_rate=0.9, same=10, different=90,
    )  # fmt: skip
    write_calibration(model, calibration)
    published = resight.push(model, "lab/vehicles", dry_run=True)
    assert "fitted on VeRi-776; two images count as the same identity from a similarity of 0.7123" in published.page
    assert "calibration.json" in published.files


def test_the_best_checkpoint_of_a_run_has_the_figures_and_the_recipe_of_the_run(painted, tmp_path):
    run_to(tmp_path / "run", small(schedule={"epochs": 1}, weights=None), painted)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    page = page_of(tmp_path / "run" / "best")
    assert f"{100 * result['mAP']:.1f} % (" in page
    for text in ("| data set | synthetic |", "| recipe | `tiny` |", "| epochs | 1 |", "| pre-trained weights | none |"):
        assert text in page
    assert str(tmp_path) not in page
    published = resight.push(tmp_path / "run" / "best", "lab/vehicles", dry_run=True)
    assert set(published.files) == {"model.safetensors", "config.json", "README.md"}
