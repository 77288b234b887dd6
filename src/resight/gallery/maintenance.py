"""Maintenance of a gallery: verify it, count its records, copy it to another engine."""

from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from resight.gallery.engines.contract import Engine
from resight.gallery.record import MAX_LENGTH_ERROR

_BATCH: Final = 2000  # records that are copied at once


def verify(engine: Engine, identity: str | None = None) -> list[str]:
    """Read every record and the log, and return a list of faults.

    Args:
        engine: the engine of the gallery.
        identity: an identity that was removed; its remaining records and log entries are faults too.
    """
    faults = engine.faults()
    if faults:
        return faults  # what follows reads the same data
    seen = set[str]()
    width = engine.info.width
    for record in engine.scan():
        if record.id in seen:
            faults.append(f"record {record.id!r} is stored twice")
        seen.add(record.id)
        if record.vector.shape != (width,) or abs(float(np.linalg.norm(record.vector)) - 1) > MAX_LENGTH_ERROR:
            faults.append(f"the vector of record {record.id!r} is corrupt")
        if identity is not None and record.identity == identity:
            faults.append(f"record {record.id!r} has the identity {identity!r}")
    if len(seen) != engine.count():
        faults.append(f"{len(seen)} records can be read, and the engine counts {engine.count()}")
    for entry in engine.assignments():
        if identity is not None and identity in (entry.identity, *entry.before.values()):
            faults.append(f"the log of assignments still has the identity {identity!r}")
        faults += [
            f"the log of assignments has the record {i!r}, which does not exist" for i in entry.before if i not in seen
        ]
    return faults


@dataclass(frozen=True)
class Stats:
    """Counts of a gallery's records, and its model."""

    records: int
    identities: int
    unknown: int
    """Records without an identity."""
    cameras: dict[str, int]
    """Records by camera."""
    modalities: dict[str, int]
    """Records by modality."""
    first: float | None
    """The earliest time, in seconds."""
    last: float | None
    """The latest time, in seconds."""
    metadata: list[str]
    """Names of the metadata fields."""
    embedding_id: str
    model: str | None


def stats(engine: Engine) -> Stats:
    """Count records by label."""
    labels: dict[str, dict[str, int]] = {name: {} for name in ("identity", "camera", "modality")}
    times = list[float]()
    for record in engine.scan():
        for name, counts in labels.items():
            value = getattr(record, name) or "unknown"
            counts[value] = counts.get(value, 0) + 1
        if record.time is not None:
            times.append(record.time)
    unknown = labels["identity"].pop("unknown", 0)
    return Stats(
        records=engine.count(),
        identities=len(labels["identity"]),
        unknown=unknown,
        cameras=dict(sorted(labels["camera"].items())),
        modalities=dict(sorted(labels["modality"].items())),
        first=min(times, default=None),
        last=max(times, default=None),
        metadata=sorted(engine.fields()),
        embedding_id=engine.info.embedding_id,
        model=engine.info.model,
    )


def copy(engine: Engine, other: Engine) -> int:
    """Copy every record, and the log, to another gallery of the same model; return the number of records.

    Raises:
        GalleryError: the other gallery is of another model.
    """
    other.info.require(engine.info.embedding_id, "the gallery holds")
    count = 0
    records = engine.scan()
    while batch := list(islice(records, _BATCH)):
        other.add(batch)
        count += len(batch)
    log = other.assignments()
    other.add_assignments([entry for entry in engine.assignments() if entry not in log])
    return count
