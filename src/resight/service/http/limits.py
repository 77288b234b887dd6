"""Limits on the rate of requests: a bucket of tokens for each key or address."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_MAX_BUCKETS: Final = 10_000  # callers that are remembered; the one that was quiet for longest is forgotten first
_BURST_SECONDS: Final = 10.0  # a caller that was quiet may send the requests of so many seconds at once


class RateLimiter:
    """Limits the requests of each caller.

    Args:
        per_minute: requests in a minute; None for no limit.
        clock: seconds, monotonic.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_until_allowed(self, caller: str) -> float:
        """Count a request; return 0 if it may be answered, else after how many seconds the next one may be."""
        if self._per_second is None:
            return 0.0
        size = max(1.0, self._per_second * _BURST_SECONDS)
        now = self._clock()
        tokens, at = self._buckets.pop(caller, (size, now))
        tokens = min(size, tokens + (now - at) * self._per_second)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_second
