"""The search for a learning rate."""

import numpy as np
import pytest
from training_helpers import small

import resight
from resight.cli import main
from resight.data.catalog import read_dataset
from resight.errors import ConfigError
from resight.progress import Progress
from resight.training.lr_finder import LearningRateCurve, find_learning_rate


def test_the_rate_at_which_the_loss_falls_fastest(painted):
    split = read_dataset("synthetic", painted)
    run = small(model={"drop_path": 0.0, "dropout": 0.0})
    curve = find_learning_rate(run, split, 1e-5, 1e2, 24)
    assert 3 <= len(curve.rates) <= 24
    assert len(curve.losses) == len(curve.rates)
    assert np.allclose(np.diff(np.log(curve.rates)), np.log(1e7) / 23)
    assert 1e-5 <= curve.steepest < 1e2
    assert curve.losses.max() <= 4 * curve.losses.min() + 1e-9  # the search ends where the loss is lost


def test_a_search_needs_nothing_but_a_run(painted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = small(root=painted, out=tmp_path / "run")
    curve = resight.find_learning_rate(run, low=1e-5, high=1e-2, steps=6)
    assert curve.rates[0] == pytest.approx(1e-5)
    assert len(curve.rates) == 6
    assert np.isfinite(curve.losses).all()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert not list(tmp_path.iterdir())  # nothing is stored
    again = find_learning_rate(run, read_dataset("synthetic", painted), 1e-5, 1e-2, 6)
    assert np.array_equal(again.losses, curve.losses)


def test_the_command_line_prints_the_curve_of_the_function(painted, capsys):
    run = small(root=painted)
    curve = find_learning_rate(run, None, 1e-5, 1e-2, 4, Progress(quiet=True))
    options = "--device cpu --precision fp32 --preprocessing.size 64 32 --sampling.identities 3 --sampling.instances 2"
    options += " --augmentation.erase 0.5 --model.drop-path 0.2 --model.dropout 0.1"
    options += " --low 1e-5 --high 1e-2 --steps 4"
    assert main(["lr-find", "tiny", "--root", str(painted), *options.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = [f"{rate:.3e}  {loss:.4f}" for rate, loss in zip(curve.rates, curve.losses, strict=True)]
    assert lines[:4] == expected
    assert lines[4].startswith(f"the loss falls fastest at {curve.steepest:.1e}; ")


def test_steepest_is_over_the_logarithm_of_the_rate():
    curve = LearningRateCurve(np.geomspace(1, 100, 5), np.array([3.0, 2.9, 1.0, 0.9, 4.0]))
    slopes = [(curve.losses[n + 1] - curve.losses[n - 1]) / np.log(10) for n in range(1, 4)]
    assert np.argmin(slopes) == 0
    assert curve.steepest == pytest.approx(10**0.5)
    with pytest.raises(ConfigError, match="use a lower --low"):
        _ = LearningRateCurve(np.ones(2), np.ones(2)).steepest


@pytest.mark.parametrize(("low", "high", "steps"), [(1.0, 0.1, 24), (0.0, 1.0, 24), (-1.0, 1.0, 24), (0.1, 1.0, 2)])
def test_rates_that_make_no_range_are_refused(low, high, steps):
    with pytest.raises(ConfigError, match="are no range"):
        resight.find_learning_rate(small(dataset="no such set"), None, low, high, steps)
