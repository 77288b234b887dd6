"""A run on disk.

runs/NAME/
├── config.json      the configuration, as given
├── compute.json     what it is computed with: device, precision, threads; a run that is resumed uses the same
├── metrics.jsonl    one line an epoch, and one an evaluation on the way
├── result.json      the best checkpoint's figures on the test set, once the run is finished
├── checkpoints/     whole folders, each a model's with `training.pt` beside it
├── last -> checkpoints/...
└── best -> checkpoints/...

A checkpoint is written beside its place and moved there in one step; then the link is. At any moment `last` is whole.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from resight.config.run import Run, read_run
from resight.device import Compute, read_compute
from resight.errors import CheckpointError, ConfigError, StorageError
from resight.files import make_folder, point, storing, write_file, write_folder
from resight.models.checkpoint import ModelCard, fill_model_folder
from resight.training.tensorboard import TensorBoardLog

STATE, SHARDS, COMPUTE = "training.pt", "shards", "compute.json"


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last, self.best = path / "last", path / "best"
        self.metrics, self.checkpoints = path / "metrics.jsonl", path / "checkpoints"
        self.tensorboard_log: TensorBoardLog | None = None
        """Where figures are shown too, if anywhere."""

    @classmethod
    def new(cls, path: Path) -> "RunFolder":
        """A place for a new run; nothing is written yet.

        Raises:
            ConfigError: something is there already.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(
                f"{path} exists already and is not written over; use --resume {path} to go on with it, or another --out"
            )
        return cls(path)

    def create(self, run: Run, compute: Compute) -> None:
        """Makes the folder, and writes the configuration, and what it is computed with, where there is none yet.

        Raises:
            StorageError: it cannot be written.
        """
        make_folder(self.checkpoints)
        if not (self.path / "config.json").exists():
            write_file(self.path / "config.json", run.model_dump_json(indent=2) + "\n")
        if not (self.path / COMPUTE).exists():
            write_file(self.path / COMPUTE, json.dumps(asdict(compute), indent=2) + "\n")

    def read_compute(self) -> Compute | None:
        """What the run was computed with so far; None for a run that has not begun.

        Raises:
            CheckpointError: `compute.json` cannot be read.
        """
        return read_compute(self.path / COMPUTE)

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", Run]:
        """Opens a run's folder to go on with it.

        Raises:
            ConfigError: it is no run's folder.
        """
        if not (path / "config.json").is_file():
            raise ConfigError(f"{path} is no run folder: it has no config.json")
        return cls(path), read_run(path / "config.json")

    def record(self, line: dict[str, Any]) -> None:
        """Adds a line to `metrics.jsonl`, and shows it on the board."""
        with storing(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.tensorboard_log is not None:
            self.tensorboard_log.write(line)

    def write_result(self, figures: dict[str, Any]) -> None:
        """Writes `result.json`, the finished run's figures on the test set."""
        write_file(self.path / "result.json", json.dumps(figures, indent=2) + "\n")

    def forget_after(self, epoch: int) -> None:
        """Takes back the lines of epochs after `epoch`, which a run that goes on will write again."""
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if _epoch(line) <= epoch]
            write_file(self.metrics, "".join(f"{line}\n" for line in lines))

    def prepare_shards(self, name: str, is_main: bool) -> Path:
        """Where the processes write their parts of a checkpoint before it is put together."""
        place = self.checkpoints / f".{name}.shards"
        if is_main:
            shutil.rmtree(place, ignore_errors=True)  # from before a crash
        return place

    def save(
        self,
        name: str,
        weights: Mapping[str, Tensor],
        card: ModelCard,
        state: dict[str, Any],
        best: bool,
        shards: Path | None = None,
    ) -> None:
        """Writes a checkpoint, makes `last` (and `best`) lead to it, and removes those that nothing leads to.

        Raises:
            StorageError: it cannot be written; the checkpoints before it are as they were.
        """

        def fill(folder: Path) -> None:
            fill_model_folder(folder, weights, card)
            if shards is not None:
                os.rename(shards, folder / SHARDS)
            held = BytesIO()
            torch.save(state, held)
            (folder / STATE).write_bytes(held.getvalue())

        target = self.checkpoints / name
        with storing(target):
            if target.exists():  # from before a crash, and newer than `last` leads to
                shutil.rmtree(target)
        write_folder(target, fill)
        if best:  # before `last`: a run stopped between the two writes this checkpoint again, and both links hold
            point(self.best, target)
        point(self.last, target)
        kept = {link.resolve() for link in (self.last, self.best) if link.exists()}
        for old in self.checkpoints.iterdir():
            if old.resolve() not in kept:
                shutil.rmtree(old, ignore_errors=True)

    def read_state(self) -> dict[str, Any] | None:
        """The state of training at `last`; None where the run was stopped before its first checkpoint."""
        if not self.last.exists():
            return None
        try:
            return cast("dict[str, Any]", torch.load(self.last / STATE, "cpu", weights_only=True))
        except Exception as error:
            raise CheckpointError(f"{self.last / STATE} is damaged: {error}") from error


def default_folder(run: Run) -> Path:
    """Where a run goes that was not told: `runs/RECIPE`, or the first of `runs/RECIPE-2`, -3... that is free."""
    if run.out is not None:
        return run.out
    first = Path("runs") / run.recipe
    numbered = (first.with_name(f"{first.name}-{n}") for n in range(2, 10_000))
    for path in (first, *numbered):
        if not path.exists():
            return path
    raise StorageError(f"{first} and 10,000 after it exist; use --out")


def _epoch(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError):
        return float("inf")  # a line cut short by a crash
