"""The log: JSON lines on standard error, without names of persons, records or files, and without pictures."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

LOGGER: Final = logging.getLogger("resight.service")
_SERVER: Final = "uvicorn.error"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = {"at": now(), "level": record.levelname.lower(), "event": record.getMessage(), **fields}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = where(record.exc_info[1])
        return json.dumps(line)


def now() -> str:
    """Return the time in UTC, to the millisecond (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line."""
    LOGGER.log(level, event, extra={"fields": fields})


def where(error: BaseException) -> str:
    """Return the type of an error and the places in the code that it came through; its text may name a person."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"


def configure_logs() -> None:
    """Write the lines of the service and of the HTTP server, and errors of libraries, to standard error."""
    # A line names no thread and no process: finding them takes part of the time of a line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name, level in ((LOGGER.name, logging.INFO), (_SERVER, logging.INFO), (None, logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]  # of the root too: a library that finds none configures the log in its own way
        logger.setLevel(level)
        logger.propagate = False
