"""Progress of long work: a bar on a terminal, a line every half minute elsewhere, and log lines."""

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

_EVERY = 30.0  # seconds between lines where nobody sees the moving bar


class Progress:
    """Shows progress on standard error: a moving bar on a terminal, elsewhere a line every half minute.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[now]}"),
            bars.TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, now="")
        self.what = ""
        self.total: int | None = None
        self.first = 0
        self.began = self.last_line = time.monotonic()

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

    def start(self, what: str, total: int | None, done: int = 0) -> None:
        """Start a task of `total` steps (None: unknown), of which `done` are done."""
        self.bar.reset(self.task, total=total, completed=done, description=what, now="")
        self.what, self.total, self.first, self.began = what, total, done, time.monotonic()

    def update(self, done: int, now: str = "") -> None:
        """Report that `done` steps of the task are done."""
        self.bar.update(self.task, completed=done, now=now)
        if not self.console.is_terminal and time.monotonic() - self.last_line >= _EVERY:
            self.last_line = time.monotonic()
            self.log(self._line(done, now))

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
