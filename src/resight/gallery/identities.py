"""Assignments of records to identities, as every engine logs them."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime

from resight.errors import GalleryError
from resight.gallery.record import Assignment


def new_assignment(identity: str | None, before: Mapping[str, str | None]) -> Assignment:
    """Return the log entry of an assignment that is made now."""
    return Assignment(now(), identity, before)


def now() -> str:
    """Return the time in UTC, to the second (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def entry_to_text(entry: Assignment) -> str:
    """Write a log entry as JSON; `Assignment(**json.loads(text))` reads it."""
    return json.dumps({"at": entry.at, "identity": entry.identity, "before": dict(entry.before)})


def require_assignable(before: Mapping[str, str | None], ids: Sequence[str]) -> Mapping[str, str | None]:
    """Return the identities of the records to assign, checked.

    Args:
        before: the identity of each record that exists, by id.
        ids: the record ids that were given.

    Raises:
        GalleryError: an id does not exist, or there is nothing to assign.
    """
    absent = [record_id for record_id in ids if record_id not in before]
    if absent:
        raise GalleryError(f"there is no record {absent[0]!r} in the gallery")
    if not before:
        raise GalleryError("there is nothing to assign: give record ids, or an identity that has records")
    return before


def without_records(entry: Assignment, removed: Set[str], identity: str | None) -> Assignment | None:
    """Return an entry of the log without some records, and without the name of an identity.

    Args:
        entry: of the log.
        removed: ids of removed records.
        identity: an identity that was removed; None for no identity.

    Returns:
        the rest of the entry; None where nothing is left, or the assignment was to that identity.
    """
    before = {i: name for i, name in entry.before.items() if i not in removed}
    if identity is not None:
        before = {i: None if name == identity else name for i, name in before.items()}
    if not before or (identity is not None and entry.identity == identity):
        return None
    return replace(entry, before=before)
