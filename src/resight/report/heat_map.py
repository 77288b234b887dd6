"""The matrix of modality subsets as a picture."""

from io import BytesIO
from pathlib import Path

import matplotlib.figure
import numpy as np

from resight.evaluation.matrix import ModalityMatrix
from resight.files import make_folder, write_file

_CELL = 0.9  # inches


def modality_heat_map(matrix: ModalityMatrix, path: Path, title: str = "") -> None:
    """Draw mAP of every query subset in every gallery subset, in percent, with the figures in the cells.

    Args:
        matrix: of the model.
        path: of the PNG.
        title: above the picture.

    Raises:
        StorageError: the file cannot be written.
    """
    count = len(matrix.subsets)
    figure = matplotlib.figure.Figure(figsize=(2.2 + _CELL * count, 1.8 + 0.7 * _CELL * count), layout="constrained")
    axes = figure.subplots()
    percent = 100 * matrix.mean_ap
    image = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(count, count):
        value = percent[row, column]
        text = "none" if np.isnan(value) else f"{value:.1f}"
        axes.text(column, row, text, ha="center", va="center", color="black" if value > 60 else "white", fontsize=10)
    axes.set_facecolor("0.4")
    axes.set_xticks(range(count), matrix.subsets, rotation=30, ha="right")
    axes.set_yticks(range(count), matrix.subsets)
    axes.set(xlabel="modalities of the gallery", ylabel="modalities of the query")
    axes.set_title(title or "mAP in %", fontsize=11)
    figure.colorbar(image, ax=axes, label="mAP in %")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    make_folder(path.parent)
    write_file(path, buffer.getvalue())
