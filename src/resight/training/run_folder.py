"""The files of a training run.

runs/NAME/
├── config.json      the configuration
├── compute.json     format number; device, precision and threads: a resumed run uses the same
├── metrics.jsonl    one line for each epoch, and one for each evaluation during training
├── result.json      the best checkpoint's figures on the test set, once the run is finished
├── checkpoints/     one folder for each checkpoint: a model folder, the training state in `training.pt` (with FSDP also
│                    in `shards`), and `checkpoint.json`, which has the SHA-256 of these files
├── last -> checkpoints/...
└── best -> checkpoints/...

A checkpoint is written into a temporary folder, which is then renamed; after that, the link is replaced. So `last` is a
complete checkpoint at any time.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from resight.config.document import require_format
from resight.config.run import Run, read_run
from resight.device import Compute
from resight.errors import CheckpointError, ConfigError, StorageError
from resight.evaluation.as_trained import read_compute
from resight.files import make_folder, move, point, storing, write_file, write_folder, write_json
from resight.models.checkpoint import ModelCard, fill_model_folder
from resight.training.checkpoint_files import ADVICE, CHECKPOINT, SHARDS, STATE, CheckpointFiles
from resight.training.tensorboard import TensorBoardLog

COMPUTE: Final = "compute.json"
FORMAT: Final = 2
"""The format number of a run folder, in `compute.json`."""


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last"
        self.best = path / "best"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard_log: TensorBoardLog | None = None
        """Where figures are also written, if TensorBoard is used."""

    @classmethod
    def new(cls, path: Path) -> "RunFolder":
        """Return the folder of a new run; nothing is written yet.

        Raises:
            ConfigError: the path exists, and is not an empty folder.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} exists already; continue it with --resume {path}, or use another --out")
        return cls(path)

    def create(self, run: Run, compute: Compute) -> None:
        """Create the folder, and write `config.json` and `compute.json` if they do not exist.

        Raises:
            StorageError: the folder cannot be written.
        """
        make_folder(self.checkpoints)
        if not (self.path / "config.json").exists():
            write_file(self.path / "config.json", run.model_dump_json(indent=2) + "\n")
        if not (self.path / COMPUTE).exists():
            write_json(self.path / COMPUTE, {"format": FORMAT, **asdict(compute)})

    def read_compute(self) -> Compute | None:
        """Return device, precision and threads of the run; None if it has not started.

        Raises:
            CheckpointError: `compute.json` cannot be read, or states another format.
        """
        self._require_format()
        return read_compute(self.path / COMPUTE)

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", Run]:
        """Open the folder of an existing run, and read its configuration.

        Raises:
            ConfigError: the path is no run folder.
            CheckpointError: it has another format.
        """
        if not (path / "config.json").is_file():
            raise ConfigError(f"{path} is no run folder: it has no config.json")
        folder = cls(path)
        folder._require_format()
        return folder, read_run(path / "config.json")

    def _require_format(self) -> None:
        file = self.path / COMPUTE
        if not file.exists():  # it was deleted to have it chosen again, or the run has not started
            return
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{file} is corrupt ({error}); delete it to have it written again") from error
        number = cast("dict[str, Any]", content).get("format") if isinstance(content, dict) else None
        require_format(file, number, FORMAT, ADVICE)

    def record(self, line: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`, and write it to TensorBoard if that is used."""
        with storing(self.metrics), self.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.tensorboard_log is not None:
            self.tensorboard_log.write(line)

    def write_result(self, figures: dict[str, Any]) -> None:
        """Write `result.json`, the finished run's figures on the test set."""
        write_json(self.path / "result.json", figures)

    def forget_after(self, epoch: int) -> None:  # words: ok
        """Remove the lines of epochs after `epoch` from `metrics.jsonl`; the resumed run writes them again."""
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if _epoch(line) <= epoch]
            write_file(self.metrics, "".join(f"{line}\n" for line in lines))

    def prepare_shards(self, name: str, is_main: bool) -> Path:
        """Return the temporary folder into which every process writes its shard of a checkpoint."""
        folder = self.checkpoints / f".{name}.shards"
        if is_main:
            shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted run
        return folder

    def save(
        self,
        name: str,
        weights: Mapping[str, Tensor],
        card: ModelCard,
        state: dict[str, Any],
        best: bool,
        shards: Path | None = None,
    ) -> None:
        """Write a checkpoint, link `last` (and `best`) to it, and delete checkpoints that neither link refers to.

        Args:
            name: of the checkpoint's folder.
            weights: of the model.
            card: of the model.
            state: of training, written to `training.pt`.
            best: whether `best` is linked to it.
            shards: the folder with the shards of all processes, under FSDP.

        Raises:
            StorageError: the checkpoint cannot be written; earlier checkpoints are not changed.
            CheckpointError: a weight is NaN or infinite; earlier checkpoints are not changed.
        """

        def fill(folder: Path) -> None:
            fill_model_folder(folder, weights, card)
            if shards is not None:
                move(shards, folder / SHARDS)
            _fill_state(folder, state)

        target = self.checkpoints / name
        with storing(target):
            if target.exists():  # left by a crash after the folder was renamed, before `last` was replaced
                shutil.rmtree(target)
        write_folder(target, fill)
        if best:  # before `last`: a run that stops in between repeats the epoch, and both links stay valid
            point(self.best, target)
        point(self.last, target)
        linked = {link.resolve() for link in (self.last, self.best) if link.exists()}
        for checkpoint in self.checkpoints.iterdir():
            if checkpoint.resolve() not in linked:
                shutil.rmtree(checkpoint, ignore_errors=True)

    def read_state(self, check_shards: bool = True) -> dict[str, Any] | None:
        """Return the training state of `last`; None if the run has no checkpoint yet.

        Args:
            check_shards: whether to compare the shards of FSDP with their SHA-256; one process is enough.

        Raises:
            CheckpointError: a file is missing or corrupt, or has another format.
        """
        if not self.last.exists():
            if self.last.is_symlink():
                raise CheckpointError(
                    f"{self.last} refers to a checkpoint that does not exist: restore it from a copy, or {ADVICE}"
                )
            return None
        CheckpointFiles.require(self.last, check_shards)
        try:
            return cast("dict[str, Any]", torch.load(self.last / STATE, "cpu", weights_only=True))
        except Exception as error:
            raise CheckpointError(
                f"{self.last / STATE} cannot be loaded ({error}): restore it from a copy, or {ADVICE}"
            ) from error


def _fill_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the training state, and then the hashes of all files."""
    buffer = BytesIO()
    torch.save(state, buffer)
    (folder / STATE).write_bytes(buffer.getvalue())
    (folder / CHECKPOINT).write_text(CheckpointFiles.of(folder).model_dump_json(indent=2) + "\n")


def default_folder(run: Run) -> Path:
    """Return the run's `out`; without one, the first of `runs/RECIPE`, `runs/RECIPE-2`, ... that does not exist.

    Raises:
        StorageError: all of them exist.
    """
    if run.out is not None:
        return run.out
    first = Path("runs") / run.recipe
    numbered = (first.with_name(f"{first.name}-{n}") for n in range(2, 10_000))
    for path in (first, *numbered):
        if not path.exists():
            return path
    raise StorageError(f"{first} to {first}-9999 all exist; use --out")


def _epoch(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError):
        return float("inf")  # a crash has truncated the line
