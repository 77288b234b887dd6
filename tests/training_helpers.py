"""What the tests of training share: a small configuration, short ways to train it, and comparisons of weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from resight.config.recipes import tiny, vary
from resight.config.run import Run
from resight.data.catalog import read_dataset
from resight.data.vocabulary import Vocabulary
from resight.evaluation.result import Result
from resight.progress import Progress
from resight.training.context import TrainContext
from resight.training.distributed import DistributedContext
from resight.training.loop import train
from resight.training.run_folder import RunFolder

CPU = torch.device("cpu")
ALONE = DistributedContext(0, 1, CPU)
SMALL = {
    "device": "cpu",
    "precision": "fp32",
    "preprocessing": {"size": (64, 32)},
    "sampling": {"identities": 3, "instances": 2},
    "schedule": {"epochs": 3, "warmup_epochs": 1},
    "augmentation": {"erase": 0.5},
    "model": {"drop_path": 0.2, "dropout": 0.1},
}


def small(**changes: Any) -> Run:
    """The recipe `tiny` with still smaller images and batches, in three epochs of float32 on the CPU."""
    return vary(vary(tiny(), **SMALL), **changes)


def context_of(
    run: Run,
    vocabulary: Vocabulary,
    distributed: DistributedContext = ALONE,
    progress: Progress | None = None,
    folder: RunFolder | None = None,
) -> TrainContext:
    return TrainContext.create(run, vocabulary, distributed, progress or Progress(quiet=True), folder)


def run_to(path: Path, run: Run, root: Path) -> Result:
    """Train on the data set at `root`, into a new folder."""
    return train(run, read_dataset(run.dataset, root), RunFolder.new(path))


def weights(folder: Path, link: str = "last") -> dict[str, torch.Tensor]:
    return load_file(folder / link / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
