"""Identities of stored records: assign them, undo assignments, and remove records with all traces."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from resight.errors import GalleryError
from resight.gallery.engines.contract import Engine
from resight.gallery.record import Filter


def assign(engine: Engine, ids: Sequence[str], identity: str | None, of: str | None) -> int:
    """Assign records to an identity, and log it.

    Args:
        engine: the engine of the gallery.
        ids: record ids.
        identity: the new identity; None makes the records unknown.
        of: also assign all records of this identity.

    Returns:
        the number of records.

    Raises:
        GalleryError: an id does not exist, or there is nothing to assign.
    """
    ids = list(ids)
    if of is not None:
        ids += [record.id for record in engine.scan(Filter(identity=(of,)))]
    if not ids:
        raise GalleryError("there is nothing to assign: give record ids, or an identity that has records")
    before = {record.id: record.identity for record in engine.get(ids)}
    absent = [record_id for record_id in ids if record_id not in before]
    if absent:
        raise GalleryError(f"there is no record {absent[0]!r} in the gallery")
    engine.assign(list(before), identity)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"at": now, "did": "name", "identity": identity, "before": before}
    engine.write_log([*engine.read_log(), entry])
    return len(before)


def undo(engine: Engine) -> dict[str, Any]:
    """Undo the last assignment and remove it from the log.

    Returns:
        its log entry.

    Raises:
        GalleryError: the log is empty.
    """
    log = engine.read_log()
    if not log:
        raise GalleryError("there is no assignment to take back")
    last = log[-1]
    present = {record.id for record in engine.get(list(last["before"]))}
    for identity in set(last["before"].values()):
        ids = [i for i, before in last["before"].items() if before == identity and i in present]
        engine.assign(ids, identity)
    engine.write_log(log[:-1])
    return last


def remove(engine: Engine, ids: Sequence[str], identity: str | None) -> int:
    """Remove records, or all of an identity: record, vector, thumbnail and log entries.

    Returns:
        the number of records that were removed.
    """
    removed = set(ids)
    if identity is not None:
        removed |= {record.id for record in engine.scan(Filter(identity=(identity,)))}
    log = list[dict[str, Any]]()
    for entry in engine.read_log():
        before = {i: name for i, name in entry["before"].items() if i not in removed}
        before = {i: None if identity is not None and name == identity else name for i, name in before.items()}
        if before and (identity is None or entry["identity"] != identity):
            log.append({**entry, "before": before})
    engine.write_log(log)  # the log first: after an interruption, the records still say what is to be removed
    return engine.delete(sorted(removed))
