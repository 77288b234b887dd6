"""What a person sees of a training: a moving line within an epoch, and one that stays after it."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY = 30.0  # seconds between lines where nobody sees the moving bar


class Screen:
    """Shows progress on standard error: a moving bar on a terminal, elsewhere a line every half minute.

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
        self.what = ""
        self.total: int | None = None
        self.first = 0
        self.began = self.last_line = time.monotonic()

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
        self.what, self.total, self.first, self.began = what, total, done, time.monotonic()

    def step(self, done: int, now: str = "") -> None:
        """`done` steps are done."""
        self.progress.update(self.task, completed=done, now=now)
        if not self.console.is_terminal and time.monotonic() - self.last_line >= _EVERY:
            self.last_line = time.monotonic()
            self.say(self._line(done, now))

    def _line(self, done: int, now: str) -> str:
        parts = [f"{self.what}: {done:,}" + (f" of {self.total:,}" if self.total is not None else ""), now]
        if self.total is not None and done > self.first:
            seconds = (time.monotonic() - self.began) / (done - self.first) * (self.total - done)
            parts.append(f"about {duration(seconds)} left")
        return "  ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `3 min`, `1 h 20 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
