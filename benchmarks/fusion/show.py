"""The matrix of a trained fusion and the probabilities of two pairs of subsets, printed and drawn."""

import math
from pathlib import Path
from typing import Final

import numpy as np
from trainings import embedder_of

from resight.config.evaluation import Evaluation
from resight.data.sightings import Split
from resight.evaluation.calibrate import calibrate
from resight.evaluation.evaluate import measure
from resight.evaluation.matrix import evaluate_matrix
from resight.inference.embeddings import Embeddings
from resight.report.curves import reliability_curve
from resight.report.heat_map import modality_heat_map

_CALIBRATED: Final = (("tir", "rgb"), ("rgb+tir", "rgb+nir+tir"))
_CHANCE_DRAWS: Final = 20


def show(run: Path, split: Split, folder: Path) -> None:
    """Print Markdown tables and write `matrix-RUN.png` and `reliability-RUN.png`.

    Args:
        run: the folder of a finished training.
        split: the data set.
        folder: of the pictures.
    """
    embedder = embedder_of(run)
    matrix = evaluate_matrix(embedder, split)
    modality_heat_map(matrix, folder / f"matrix-{run.name}.png", f"{run.name}, synthetic-hard: mAP in %")
    print(f"\nmAP of {run.name}; a random ranking has {100 * _chance(split):.1f}\n")
    print("| query in gallery | " + " | ".join(matrix.subsets) + " | shares of rgb, nir, tir | images/s |")
    print("|---|" + "---|" * (len(matrix.subsets) + 2))
    for name, row in zip(matrix.subsets, matrix.mean_ap, strict=True):
        shares = ", ".join(f"{share:.2f}" for share in matrix.weights.get(name, ()))
        cells = " | ".join(f"{100 * value:.1f}" for value in row)
        print(f"| {name} | {cells} | {shares} | {matrix.cost[name].images_per_second:.0f} |")
    checked = calibrate(embedder, split, 0.01, store=False).checked_subsets
    curves = {f"{query} in {gallery}": checked[query, gallery] for query, gallery in _CALIBRATED}
    reliability_curve({name: table for name, (table, _) in curves.items()}, folder / f"reliability-{run.name}.png")
    for name, (table, error) in curves.items():
        print(f"\n{name}: expected calibration error {100 * error:.1f} %, fitted on half of the identities\n")
        print("| predicted | observed on the others | weight |\n|---|---|---|")
        for predicted, observed, weight in table.tolist():
            if not math.isnan(predicted):
                print(f"| {100 * predicted:.1f} % | {100 * observed:.1f} % | {weight:.3f} |")


def _chance(split: Split) -> float:
    """The mAP of rankings by embeddings that are drawn at random."""
    rng = np.random.default_rng(0)
    figures = list[float]()
    for _ in range(_CHANCE_DRAWS):
        vectors = rng.standard_normal((len(split.query), 64)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        items = Embeddings(vectors, split.query)
        figures.append(measure(items, items, Evaluation(), split.protocol).summary()["mAP"])
    return float(np.mean(figures))
