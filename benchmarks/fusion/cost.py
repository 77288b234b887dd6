"""What the fusions add to the time of one backbone, in pairs of runs one after the other."""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

import torch
from torch import Tensor

from resight.config.sections import LearnedFusion, Model
from resight.device import autocast, best_precision
from resight.models.transreid import TransReID

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import describe_machine

_SIGHTINGS: Final = 4
_PAIRS: Final = 7
_SIZES: Final = (
    ("vit_small_patch16_224", (256, 128)),
    ("vit_small_patch14_dinov2", (56, 28)),
)


def print_cost() -> None:
    """Measure embedding and a training step of each fusion, of sightings with three images, and print a table."""
    device = torch.device("cpu")
    print(f"{describe_machine()}, {best_precision(device)}, {_SIGHTINGS} sightings of 3 images; medians of {_PAIRS}\n")
    print("| | `mean`, ms | gate / mean | attention / mean |\n|---|---|---|---|")
    for backbone, size in _SIZES:
        for is_training in (False, True):
            models = {kind: _model(kind, backbone, size) for kind in ("mean", "gate", "attention")}
            times = _paired({kind: (model, size, is_training) for kind, model in models.items()})
            base = median(times["mean"])
            ratios = [
                median(other / mean for other, mean in zip(times[kind], times["mean"], strict=True))
                for kind in ("gate", "attention")
            ]
            what = "training step" if is_training else "embedding"
            name = f"{backbone}, {size[0]}x{size[1]}, {what}"
            print(f"| {name} | {1000 * base:.0f} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |")


def _model(kind: LearnedFusion, backbone: str, size: tuple[int, int]) -> TransReID:
    torch.manual_seed(0)
    counts = {"camera": 4, "view": 0, "modality": 3}
    return TransReID(Model(backbone=backbone, fusion=kind, sie=("modality",)), size, 120, counts)


def _paired(models: dict[str, tuple[TransReID, tuple[int, int], bool]]) -> dict[str, list[float]]:
    """Time each model once in every round, so that other work on the machine meets all alike: processor seconds."""
    times = {kind: list[float]() for kind in models}
    for count in range(_PAIRS + 1):
        for kind, (model, size, is_training) in models.items():
            seconds = _seconds(model, torch.randn(3 * _SIGHTINGS, 3, *size), is_training)
            if count:  # the first round warms up
                times[kind].append(seconds)
    return times


def _seconds(model: TransReID, images: Tensor, is_training: bool) -> float:
    """Run once: embed, or the features of images and sightings, their logits, and all gradients."""
    side_info = {kind: torch.arange(len(images)) % 3 for kind in ("modality", "camera")}
    rows = torch.arange(len(images)).view(-1, 3)
    model.train(is_training)
    started = time.process_time()
    with autocast(images.device, best_precision(images.device)), torch.set_grad_enabled(is_training):
        if not is_training:
            model.embed(images, side_info, rows)
            return time.process_time() - started
        features, tokens = model.backbone.features_and_tokens(images, side_info)
        assert model.fusion is not None
        fused, modality = model.fusion(features, tokens, rows), side_info["modality"]
        logits = model.classify_fused(features, modality, fused, rows >= 0, (modality, rows[:, 0]))
        loss = sum(branch.square().mean() for of in logits for branch in of)
    assert isinstance(loss, Tensor)
    loss.backward()
    model.zero_grad()
    return time.process_time() - started


if __name__ == "__main__":
    print_cost()
