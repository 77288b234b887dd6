"""Figures of a run for TensorBoard; `metrics.jsonl` has them in any case."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resight.errors import require_extra


class TensorBoardLog:  # words: ok
    """Writes figures of a run as TensorBoard events.

    Args:
        folder: of the event files.
        first: the next epoch; events of it and later epochs, from an interrupted run, are discarded.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first: int) -> None:
        require_extra("tensorboard", "tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line of `metrics.jsonl`: figures of training are under `train/`, others under the evaluated part."""
        name = line.get("evaluated", "train")
        for figure, value in line.items():
            if figure not in ("epoch", "evaluated"):
                self._writer.add_scalar(f"{name}/{figure}", value, line["epoch"])  # pyright: ignore[reportUnknownMemberType]
        self._writer.flush()
