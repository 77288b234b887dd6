"""Curves as PNG."""

from io import BytesIO
from pathlib import Path

import matplotlib.figure
import numpy as np

from resight.files import make_folder, write_file


def reliability_curve(curves: dict[str, np.ndarray], path: Path) -> None:
    """Draws how often pairs of a given probability were of one identity; on the diagonal the probability is true.

    Args:
        curves: by name, float64 [bins, 3]: mean probability, share of one identity, weight.
        path: of the PNG.

    Raises:
        StorageError: it cannot be written.
    """
    figure = matplotlib.figure.Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="true")
    for name, curve in curves.items():
        held = ~np.isnan(curve[:, 0])
        axes.plot(curve[held, 0], curve[held, 1], marker="o", markersize=4, label=name)
    axes.set(xlabel="probability given", ylabel="share of pairs of one identity", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability on unseen identities\n(both kinds of pairs weighted alike)", fontsize=10)
    axes.legend(frameon=False)
    _write(figure, path)


def rate_curve(rates: np.ndarray, losses: np.ndarray, steepest: float, path: Path) -> None:
    """Draws the loss that each learning rate met, float64 [S] both, and where it fell fastest.

    Raises:
        StorageError: the PNG cannot be written.
    """
    figure = matplotlib.figure.Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.axvline(steepest, color="0.6", linestyle="--", label=f"falls fastest: {steepest:.1e}")
    axes.set(xlabel="base learning rate", ylabel="loss, smoothed", xscale="log")
    axes.legend(frameon=False)
    _write(figure, path)


def _write(figure: matplotlib.figure.Figure, path: Path) -> None:
    held = BytesIO()
    figure.savefig(held, format="png", dpi=120)
    make_folder(path.parent)
    write_file(path, held.getvalue())
