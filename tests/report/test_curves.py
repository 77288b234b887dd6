"""Plots: the data, the labels and the limits that reach matplotlib, and the size of the picture."""

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from resight.report.curves import rate_curve, reliability_curve


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written to files."""
    written = []
    save = matplotlib.figure.Figure.savefig

    def keep(self, *arguments, **options):
        written.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return written


def lines(axes):
    return {line.get_label(): np.column_stack(line.get_data()).tolist() for line in axes.get_lines()}


def test_reliability_is_plotted_over_the_probability(figures, tmp_path):
    nan = np.nan
    curves = {
        "logistic": np.array([[0.05, 0.1, 7], [nan, nan, 0], [0.25, 0.2, 9]]),
        "isotonic": np.array([[nan, nan, 0], [0.15, 0.4, 5]]),
    }
    reliability_curve(curves, tmp_path / "new" / "curve.png")
    (figure,) = figures
    (axes,) = figure.axes
    assert lines(axes) == {
        "perfect calibration": [[0, 0], [1, 1]],
        "logistic": [[0.05, 0.1], [0.25, 0.2]],
        "isotonic": [[0.15, 0.4]],
    }
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 1), (0, 1))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted probability", "same-identity pairs")
    ticks = [axis.get_major_formatter()(0.25) for axis in (axes.xaxis, axes.yaxis)]
    assert ticks == ["25 %", "25 %"]
    assert axes.get_title().startswith("Reliability on unseen identities\n")
    assert axes.title.get_fontsize() == 10
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["perfect calibration", *curves]
    diagonal, *others = axes.get_lines()
    assert (diagonal.get_linestyle(), to_rgba(diagonal.get_color())) == ("--", to_rgba("0.7"))
    assert {(line.get_marker(), line.get_markersize()) for line in others} == {("o", 4)}
    with Image.open(tmp_path / "new" / "curve.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (600, 600))


def test_the_loss_is_plotted_over_the_learning_rate(figures, tmp_path):
    rates, losses = np.array([1e-4, 1e-3, 1e-2]), np.array([3.0, 2.0, 2.5])
    rate_curve(rates, losses, 1.26e-3, tmp_path / "curve.png")
    (figure,) = figures
    (axes,) = figure.axes
    curve, mark = axes.get_lines()
    assert np.column_stack(curve.get_data()).tolist() == [[1e-4, 3], [1e-3, 2], [1e-2, 2.5]]
    assert list(mark.get_xdata()) == [1.26e-3, 1.26e-3]
    assert (mark.get_label(), mark.get_linestyle()) == ("falls fastest: 1.3e-03", "--")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale(), axes.get_yscale()) == (
        "base learning rate", "loss, smoothed", "log", "linear",
    )  # fmt: skip
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (720, 480)
