"""What the benchmarks share: the machine they ran on, for their first line, and how long a call takes."""

import time
from collections.abc import Callable
from statistics import median

import torch

from resight.device import configure_process, processor_kind


def describe_machine() -> str:
    """Return the kind of processor, the threads, torch's version and the date, and limit the threads to the cores."""
    configure_process()
    threads, date = torch.get_num_threads(), time.strftime("%Y-%m-%d")
    return f"{processor_kind()}, {threads} {'thread' if threads == 1 else 'threads'}, torch {torch.__version__}, {date}"


def median_seconds(work: Callable[[], object], runs: int, limit_seconds: float = 20.0) -> float:
    """Return the median of several runs, after one that is not counted.

    Runs stop once they have taken `limit_seconds` together. Where the first run alone takes more than half of that, it
    is the only one and its time is returned.
    """
    first = _seconds(work)
    if first > limit_seconds / 2:
        return first
    durations = list[float]()
    while len(durations) < runs and sum(durations) < limit_seconds:
        durations.append(_seconds(work))
    return median(durations)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
