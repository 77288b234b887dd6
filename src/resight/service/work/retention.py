"""Retention: records that are older than a number of days are removed."""

import time
from typing import Final

from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.service.messages.schemas_admin import RetentionOut

ADDED: Final = "added"
"""Metadata field of each record that the service adds: when, in Unix time (seconds)."""
EVERY_SECONDS: Final = 3600.0
_EARLIEST_UNIX_TIME: Final = 1e9  # 2001; a smaller number counts seconds from something else
_DAY: Final = 86_400
_BATCH: Final = 1000


def date_of(record: Record) -> float | None:
    """Return when a record was made, in Unix time: when the service added it; else its time, if that is Unix time."""
    added = record.metadata.get(ADDED)
    if isinstance(added, int | float) and not isinstance(added, bool):
        return float(added)
    return record.time if record.time is not None and record.time >= _EARLIEST_UNIX_TIME else None


def expired_ids(gallery: Gallery, days: float, now: float | None = None) -> tuple[list[str], int]:
    """Return the ids of records that are older than some days, and the number of records that have no date."""
    oldest = (time.time() if now is None else now) - days * _DAY
    expired = list[str]()
    without_date = 0
    for record in gallery.engine.scan():
        date = date_of(record)
        if date is None:
            without_date += 1
        elif date < oldest:
            expired.append(record.id)
    return expired, without_date


def remove_expired(gallery: Gallery, ids: list[str], without_date: int) -> RetentionOut:
    """Remove records, a thousand in a transaction, with everything derived from them."""
    removed = sum(gallery.remove(ids[start : start + _BATCH]) for start in range(0, len(ids), _BATCH))
    return RetentionOut(removed=removed, without_date=without_date)
