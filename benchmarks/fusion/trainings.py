"""The trainings that are compared, and the figures that are stored of each.

P x K sightings a batch; an image pass is one image that passes the backbone once in training, forward and backward.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from resight.config.evaluation import Evaluation
from resight.config.optimization import Optimizer, Schedule
from resight.config.recipes import vary
from resight.config.run import Run
from resight.config.sections import Augmentation, Loss, Model, Preprocessing, Sampling
from resight.data.sightings import SightingTable, Split
from resight.data.subsets import all_subsets, reduce_to
from resight.evaluation.evaluate import measure
from resight.evaluation.matrix import measure_subsets
from resight.inference.embedder import Embedder
from resight.inference.embeddings import Embeddings
from resight.inference.load import load
from resight.training.loop import train
from resight.training.run_folder import RunFolder

MODALITIES: Final = ("rgb", "nir", "tir")
COMPLETE: Final = "concat, complete"
"""Concatenation that is trained on complete sightings alone: what the others are compared with."""
FUSIONS: Final = ("mean", "gate", "attention", "concat")
SIDE: Final = "side information"
"""Every image is a sample whose SIE is its modality, and triplets are mined across modalities; measured with the mean
of the embeddings of a sighting's images, so that any modalities can be compared."""
CROSS: Final = "cross-modal"
"""Side information, with a contrastive loss between modalities and random curves of levels, for searching one modality
with another."""
KINDS: Final = (*MODALITIES, COMPLETE, *FUSIONS, SIDE, CROSS)
PASSES: Final = 65_000
"""Image passes of each training, as nearly as complete epochs allow: nine to eleven minutes of one core."""
_DROP: Final = 0.1
"""Probability that a sighting loses some of its modalities, where the fusion allows it."""
_DROP_BY_MODALITY: Final = {"rgb": 0.35, "nir": 0.2}
"""Of `concat`, in place of that: thermal images are the hardest to learn, and get more of the image passes."""
_IMAGES: Final = 36
"""Images of a batch, as nearly as possible: singles and fusions take the same number of steps."""
WEIGHTS: Final = Path(__file__).parents[3] / "shared" / "weights" / "vit_small_patch14_dinov2.fp16.safetensors"

Figures = dict[str, list[float]]
"""mAP and R1, from 0 to 1, by query and gallery subset, such as `tir in rgb+nir`."""


def configuration(kind: str, seed: int, out: Path, passes: int) -> Run:
    """Return the configuration of a training: the same in every kind, but for what a fusion needs.

    Args:
        kind: of `KINDS`.
        seed: of all random numbers.
        out: the run folder.
        passes: image passes.
    """
    single = kind in MODALITIES
    drop = _DROP if kind in FUSIONS and kind != "concat" else 0.0
    by_modality = _DROP_BY_MODALITY if kind == "concat" else {}
    images = 1 if single else 3 - 1.5 * drop - sum(by_modality.values())  # of a sighting, on average
    model: dict[str, Any] = {} if single else {"fusion": "concat" if kind == COMPLETE else kind}
    if kind in (SIDE, CROSS):
        model = {"sie": ("modality",)}
    base = Run(
        recipe=out.name,
        dataset="synthetic-hard",
        weights=str(WEIGHTS),
        out=out,
        seed=seed,
        preprocessing=Preprocessing(size=(56, 28), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        model=Model(backbone="vit_small_patch14_dinov2", drop_path=0.0, feature="after", **model),
        augmentation=Augmentation(pad=3, erase=0.0, drop_modality=drop, drop_by_modality=by_modality),
        sampling=Sampling(identities=round(_IMAGES / images / 2), instances=2),
        loss=Loss(
            triplet_within="batch" if kind == SIDE else "modality",
            fused_weight=0.2 if kind in ("concat", COMPLETE) else 1.0,
        ),
        optimizer=Optimizer(
            name="adamw", lr=5e-4, weight_decay=0.05, decay_vectors=False, bias_lr_factor=1, head_lr_factor=5,
            layer_decay=0.8,
        ),
        schedule=Schedule(warmup_epochs=1, every="step"),
    )  # fmt: skip
    if kind == CROSS:
        base = vary(
            base,
            augmentation={"tone": 0.8, "share_draws": False},
            sampling={"identities": 8},
            loss={"id_weight": 0.2, "triplet_weight": 0.0, "cross_modal_weight": 1.0},
            optimizer={"lr": 1.5e-4, "clip": 5.0},
        )
    return vary(base, schedule={"epochs": round(passes / images / 960)})


def only(split: Split, modality: str) -> Split:
    """Return the data set with the images of one modality alone."""
    query = reduce_to(split.query, modality)
    return replace(split, train=reduce_to(split.train, modality), query=query, gallery=query)


def run_training(kind: str, seed: int, folder: Path, split: Split, passes: int) -> dict[str, Any]:
    """Train one kind and measure it; returns the line that is stored.

    Args:
        kind: of `KINDS`.
        seed: of all random numbers.
        folder: of the runs.
        split: the data set.
        passes: image passes.
    """
    name = kind.replace(",", "").replace(" ", "-")
    out = folder / f"{name}-{seed}"
    run = configuration(kind, seed, out, passes)
    if kind in MODALITIES:
        split = only(split, kind)
    is_resumed = (out / "config.json").exists()
    processor = time.process_time()
    train(run, split, RunFolder.open(out)[0] if is_resumed else RunFolder.new(out))
    processor_minutes = round((time.process_time() - processor) / 60, 2)
    return {
        "kind": kind,
        "seed": seed,
        **_epochs(out),
        "processor_minutes": None if is_resumed else processor_minutes,
        "figures": figures_of(out, kind, split),
    }


def figures_of(run: Path, kind: str, split: Split) -> Figures:
    """Measure every subset of modalities that a trained model can embed, as query and as gallery."""
    embedder = embedder_of(run)
    if kind in MODALITIES:
        return {f"{kind} in {kind}": _pair(_embeddings([embedder.embed(split.query)], split.query), split)}
    pairs = measure_subsets(embedder, split)
    figures = {f"{query} in {gallery}": _rounded(result.summary()) for query, gallery, result in pairs}
    return {cell: pair for cell, pair in figures.items() if kind != COMPLETE or cell == "rgb+nir+tir in rgb+nir+tir"}


def embedder_of(run: Path) -> Embedder:
    """Load a trained model; without a fusion of its own, it averages the embeddings of a sighting's images."""
    embedder = load(run / "best")
    return load(run / "best", fusion="mean") if embedder.card.model.fusion is None else embedder


def three_models(seed: int, folder: Path, split: Split) -> dict[str, Any]:
    """Measure three separately trained models, whose embeddings of the modalities that are present are concatenated.

    Args:
        seed: of the trainings, which are finished.
        folder: of the runs.
        split: the data set.
    """
    vectors = {m: load(folder / f"{m}-{seed}" / "best").embed(reduce_to(split.query, m)) for m in MODALITIES}
    figures: Figures = {}
    for subset in all_subsets(MODALITIES):
        parts = [vectors[modality] for modality in subset.split("+")]
        figures[f"{subset} in {subset}"] = _pair(_embeddings(parts, split.query), split)
    return {"kind": "three models", "seed": seed, "figures": figures}


def _embeddings(parts: Sequence[np.ndarray], table: SightingTable) -> Embeddings:
    """Concatenate embeddings of unit length to embeddings of unit length."""
    return Embeddings(np.concatenate(parts, 1) / np.sqrt(len(parts)).astype(np.float32), table)


def _pair(embeddings: Embeddings, split: Split) -> list[float]:
    return _rounded(measure(embeddings, embeddings, Evaluation(), split.protocol).summary())


def _rounded(summary: dict[str, float]) -> list[float]:
    return [round(summary["mAP"], 4), round(summary["R1"], 4)]


def _epochs(run: Path) -> dict[str, Any]:
    """Count the image passes of a run, and return its last loss."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    passes = sum(round(line["images_per_second"] * line["seconds"]) for line in lines)
    minutes = round(sum(line["seconds"] for line in lines) / 60, 2)
    return {"image_passes": passes, "epochs": len(lines), "minutes": minutes, "loss": round(lines[-1]["loss"], 3)}
