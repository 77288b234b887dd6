"""A run's figures for TensorBoard, beside `metrics.jsonl`, which has them always."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resight.errors import ConfigError


class TensorBoardLog:
    """Writes a run's figures as TensorBoard's events.

    Args:
        folder: where the event files go.
        first: the epoch that comes next; what was written of it and later ones before is taken back.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ConfigError("--tensorboard needs an extra: pip install 'resight[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder), purge_step=first)

    def write(self, line: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`, each figure under `train/` or the name of the set that was measured."""
        name = line.get("evaluated", "train")
        for figure, value in line.items():
            if figure not in ("epoch", "evaluated"):
                self._writer.add_scalar(f"{name}/{figure}", value, line["epoch"])  # pyright: ignore[reportUnknownMemberType]
        self._writer.flush()
