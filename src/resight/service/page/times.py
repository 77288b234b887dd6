"""Times as people read and write them: seconds of a shared clock, or dates where they are Unix time."""

import re
from datetime import UTC, datetime
from typing import Any, Final

_UNIX: Final = 1e8  # seconds; a time of 1973 or later is taken as Unix time, an earlier one as seconds of a clock
_LAST: Final = 2.5e11  # seconds; the last year that a date can have is 9999


def time_text(seconds: float | None) -> str:
    """Return a time as text: a date in UTC where the number can be Unix time, else seconds; empty for None."""
    if seconds is None:
        return ""
    if _UNIX <= seconds <= _LAST:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{seconds:,.1f} s".replace(".0 s", " s")


def parse_time(value: Any) -> Any:
    """Return the seconds of a form field: a number, or a date in UTC such as `2026-05-31 14:30`.

    Args:
        value: the field; an empty one is None.

    Raises:
        ValueError: the text is neither.
    """
    text = str(value or "").strip()
    if not text:
        return None
    if re.fullmatch(r"[-+]?[0-9.,]+( ?s)?", text):
        return float(text.removesuffix("s").replace(",", ""))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write a time in seconds, or as 2026-05-31 14:30") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
