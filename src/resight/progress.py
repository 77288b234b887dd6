"""Progress of long tasks: a bar on a terminal, lines elsewhere; and numbers as people read them."""

import threading
import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console

_LINE_INTERVAL = 30.0  # seconds between progress lines where standard error is no terminal
_FIRST_ESTIMATE = 5.0  # seconds after the start of a task, when its remaining time is printed for the first time
_TICK = 1.0  # seconds between two looks at the clock


class Progress:
    """Progress on standard error: a bar on a terminal; elsewhere an estimate after the first steps, then a line every
    30 seconds, also while a single step takes longer.

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
        self.completed = 0
        self.start_time = time.monotonic()  # seconds
        self.last_line = self.start_time
        self._now = ""
        self._estimate_is_due = False
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.bar.start()
        elif not self.console.quiet:
            self._ticker = threading.Thread(target=self._tick_until_ended, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        if self.bar.live.is_started:
            self.bar.stop()

    def log(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            self.console.print(text, soft_wrap=True)

    def start(self, description: str, total: int | None, completed: int = 0, estimate: bool = True) -> None:
        """Start a task.

        Args:
            description: printed before the bar.
            total: number of steps; None if unknown.
            completed: steps that an earlier run completed.
            estimate: print the remaining time after the first steps, if it is more than half a minute; False for a
                task whose caller does so.
        """
        with self._lock:
            self.bar.remove_task(self.task)  # `reset` would keep a total where the new one is unknown
            self.task = self.bar.add_task(description, total=total, completed=completed, now="")
            self.description = description
            self.total = total
            self.initial = completed
            self.completed = completed
            self.start_time = time.monotonic()
            self.last_line = self.start_time
            self._now = ""
            self._estimate_is_due = estimate

    def update(self, completed: int, now: str = "") -> None:
        """Report the number of completed steps, and the current figures as text."""
        with self._lock:
            self.bar.update(self.task, completed=completed, now=now)
            self.completed = completed
            self._now = now
            self.tick()

    def tick(self) -> None:
        """Print a line if one is due; the thread of a `with` block calls this every second."""
        with self._lock:
            if self.console.is_terminal or not self.description:
                return
            moment = time.monotonic()
            remaining = self._remaining(moment)
            is_first = (
                self._estimate_is_due
                and remaining is not None
                and moment - self.start_time >= _FIRST_ESTIMATE
                and remaining >= _LINE_INTERVAL
            )
            if is_first or moment - self.last_line >= _LINE_INTERVAL:
                self._estimate_is_due = False
                self.last_line = moment
                self.log(self._line(moment, remaining))

    def _tick_until_ended(self) -> None:
        while not self._ended.wait(_TICK):
            self.tick()

    def _remaining(self, moment: float) -> float | None:
        """Seconds that the rest of the task takes; None if its number of steps is unknown, or no step is completed."""
        steps = self.completed - self.initial
        if self.total is None or steps <= 0:
            return None
        return (moment - self.start_time) / steps * (self.total - self.completed)

    def _line(self, moment: float, remaining: float | None) -> str:
        count = f"{self.completed:,}" + (f" of {self.total:,}" if self.total is not None else "")
        parts = [f"{self.description}: {count}", self._now]
        if remaining is not None:
            parts.append(f"about {duration(remaining)} left")
        elif self.completed == self.initial:
            parts.append(f"{duration(moment - self.start_time)} so far")
        return "  ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """Format seconds for people: `40 s`, `3 min`, `1 h 20 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def percent(rate: float) -> str:
    """Format a rate from 0 to 1 for people, as percent with one decimal: `51.2 %`.

    This is the only form in which rates are printed; JSON and Python have them from 0 to 1.
    """
    return f"{100 * rate:.1f} %"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: `1 record`, `2 records`, `1,234 identities`.

    Args:
        number: how many.
        noun: of one.
        plural: of several; None appends an s.
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {f'{noun}s' if plural is None else plural}"
