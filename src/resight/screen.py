"""What a person sees of a training: a moving line within an epoch, and one that stays after it."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Screen:
    """Shows progress on standard error.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=None, now="")

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress.live.is_started:
            self.progress.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True)

    def begin(self, what: str, total: int | None, done: int = 0) -> None:
        """A new stretch of work of `total` steps; None where nobody knows how many."""
        self.progress.reset(self.task, total=total, completed=done, description=what, now="")

    def step(self, done: int, now: str = "") -> None:
        """`done` steps are done."""
        self.progress.update(self.task, completed=done, now=now)


def epoch_line(line: dict[str, Any], epochs: int) -> str:
    """An epoch's figures in one line."""
    return (
        f"epoch {line['epoch']:3d}/{epochs}  loss {line['loss']:.3f}  id {line['id']:.3f}  "
        f"triplet {line['triplet']:.3f}  accuracy {line['accuracy']:.3f}  lr {line['lr']:.2e}  "
        f"{line['pictures_per_second']:.1f} pictures/s  "
        f"{line['seconds']:.0f} s"
    )


def score_line(scores: dict[str, float]) -> str:
    """A ranking's figures in one line."""
    return "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
