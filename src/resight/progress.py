"""Progress of long tasks: a bar on a terminal, a line every 30 seconds elsewhere, and log lines."""

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

_LINE_INTERVAL = 30.0  # seconds between progress lines where standard error is no terminal


class Progress:
    """Progress on standard error: a bar on a terminal, elsewhere a line every 30 seconds.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
        self.bar = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[now]}", markup=False),
            bars.TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, now="")
        self.description = ""
        self.total: int | None = None
        self.initial = 0
        self.start_time = time.monotonic()  # seconds
        self.last_line = self.start_time

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar.live.is_started:
            self.bar.stop()

    def log(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, soft_wrap=True)

    def start(self, description: str, total: int | None, completed: int = 0) -> None:
        """Start a task.

        Args:
            description: printed before the bar.
            total: number of steps; None if unknown.
            completed: steps that an earlier run completed.
        """
        self.bar.remove_task(self.task)  # `reset` would keep a total where the new one is unknown
        self.task = self.bar.add_task(description, total=total, completed=completed, now="")
        self.description = description
        self.total = total
        self.initial = completed
        self.start_time = time.monotonic()

    def update(self, completed: int, now: str = "") -> None:
        """Report the number of completed steps, and the current figures as text."""
        self.bar.update(self.task, completed=completed, now=now)
        if not self.console.is_terminal and time.monotonic() - self.last_line >= _LINE_INTERVAL:
            self.last_line = time.monotonic()
            self.log(self._line(completed, now))

    def _line(self, completed: int, now: str) -> str:
        parts = [f"{self.description}: {completed:,}" + (f" of {self.total:,}" if self.total is not None else ""), now]
        if self.total is not None and completed > self.initial:
            seconds_per_step = (time.monotonic() - self.start_time) / (completed - self.initial)
            seconds = seconds_per_step * (self.total - completed)
            parts.append(f"about {duration(seconds)} left")
        return "  ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Format seconds for people: `40 s`, `3 min`, `1 h 20 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
