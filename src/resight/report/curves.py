"""Plots of curves, as PNG files."""

from io import BytesIO
from pathlib import Path

import matplotlib.figure
import numpy as np
from matplotlib.ticker import PercentFormatter

from resight.files import make_folder, write_file


def reliability_curve(curves: dict[str, np.ndarray], path: Path) -> None:
    """Plot the fraction of same-identity pairs over the predicted probability; the diagonal is perfect calibration.

    Args:
        curves: by name, float64 [bins, 3]: mean probability, fraction of same-identity pairs, weight.
        path: of the PNG.

    Raises:
        StorageError: the file cannot be written.
    """
    figure = matplotlib.figure.Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="perfect calibration")
    for name, curve in curves.items():
        filled = ~np.isnan(curve[:, 0])  # bins with pairs
        axes.plot(curve[filled, 0], curve[filled, 1], marker="o", markersize=4, label=name)
    axes.set(xlabel="predicted probability", ylabel="same-identity pairs", xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    axes.set_title(
        "Reliability on unseen identities\n(same-identity and other pairs have equal total weight)", fontsize=10
    )
    axes.legend(frameon=False)
    _write(figure, path)


def rate_curve(rates: np.ndarray, losses: np.ndarray, steepest: float, path: Path) -> None:
    """Plot the loss over the learning rate.

    Args:
        rates: float64 [S], base learning rates.
        losses: float64 [S], smoothed.
        steepest: the rate at which the loss falls fastest, which is marked.
        path: of the PNG.

    Raises:
        StorageError: the file cannot be written.
    """
    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.axvline(steepest, color="0.6", linestyle="--", label=f"falls fastest: {steepest:.1e}")
    axes.set(xlabel="base learning rate", ylabel="loss, smoothed", xscale="log")
    axes.legend(frameon=False)
    _write(figure, path)


def _write(figure: matplotlib.figure.Figure, path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    make_folder(path.parent)
    write_file(path, buffer.getvalue())
