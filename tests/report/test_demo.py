"""The demo: its stages, what it writes, and that its data set needs more than colours."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from resight.cli import main
from resight.config.evaluation import Evaluation
from resight.config.recipes import tiny, vary
from resight.data.synthetic import synthetic
from resight.data.synthetic.synthetic import Plan
from resight.errors import ConfigError
from resight.evaluation.evaluate import measure
from resight.inference.embeddings import Embeddings
from resight.report import demo


@pytest.fixture
def few(monkeypatch):
    """A demo of a few identities and a small network's batch."""
    small = partial(Plan, train=8, test=4, cameras=2)
    monkeypatch.setattr(demo, "synthetic", SimpleNamespace(Plan=small, write=synthetic.write, read=synthetic.read))
    monkeypatch.setattr(demo, "tiny", lambda: vary(tiny(), sampling={"identities": 4, "instances": 2}, device="cpu"))


def test_the_demo_runs_through_its_stages(few, tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--epochs", "1"]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0].startswith("4 stages; ")
    for number, name in enumerate(("paint", "measure untrained", "train", "rank strip"), start=1):
        assert lines[number].startswith(f"  {number}. {name}")
        assert any(line.startswith(f"stage {number} of 4, {name}: ") for line in lines)
    assert "12 identities in 3 modalities" in lines[1]
    assert [line.partition(":")[0] for line in said.out.splitlines()] == [
        "before training", "after training", "model", "rank strip",
    ]  # fmt: skip
    assert Image.open(out / "rank_strip.png").format == "PNG"
    assert (out / "run" / "best" / "model.safetensors").exists()
    assert "remaining steps, without evaluation" in said.err
    assert main(["demo", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_demo_refuses_a_folder_that_exists(tmp_path):
    with pytest.raises(ConfigError, match="exists already"):
        demo.run_demo(tmp_path)


def test_colours_alone_do_not_solve_the_demos_data_set(tmp_path):
    """A histogram of 8 x 8 x 8 colours, of each modality, ranks the test identities below mAP 0.5."""
    plan = Plan()
    for part in ("train_171", "test"):
        for name in synthetic.MODALITY_FOLDERS.values():
            (tmp_path / part / name).mkdir(parents=True)
    for identity in range(plan.train, plan.train + plan.test):
        synthetic._paint_identity(tmp_path, plan, identity)
    synthetic._paint_identity(tmp_path, plan, 0)  # the layout has training pictures
    query = synthetic.read(tmp_path).query
    vectors = np.stack([np.concatenate([histogram(p) for p in sighting.images.values()]) for sighting in query])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items = Embeddings(vectors.astype(np.float32), query)
    assert len(query) == plan.test * plan.cameras * plan.shots
    assert measure(items, items, Evaluation()).summary()["mAP"] < 0.5
    nearest = measure(items, items, Evaluation(junk="none")).top(1)[0][:, 0]
    same_camera = [query[row].camera == query[int(n)].camera for row, n in enumerate(nearest)]
    assert np.mean(same_camera) > 0.9  # it does see what pictures have in common: the camera's background


def histogram(path) -> np.ndarray:
    """float64 [512]: the square roots of how often each of 8 x 8 x 8 colours occurs (the Hellinger kernel)."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).reshape(-1, 3).double()
    return torch.histogramdd(pixels, [8, 8, 8], range=[0.0, 256.0] * 3).hist.flatten().sqrt().numpy()
