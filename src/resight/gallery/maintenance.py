"""A gallery as a whole: verify it, count what is in it, copy it to another engine."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from resight.gallery.engines.contract import Engine
from resight.gallery.record import Record


def verify(engine: Engine, identity: str | None = None) -> list[str]:
    """What is wrong with the gallery, or what is left of an identity: nothing, where all is well."""
    faults, seen, width = list[str](), set[str](), engine.info.width
    for record in engine.scan():
        if record.id in seen:
            faults.append(f"record {record.id!r} is there twice")
        seen.add(record.id)
        if record.vector.shape != (width,) or abs(float(np.linalg.norm(record.vector)) - 1) > 1e-2:
            faults.append(f"the vector of record {record.id!r} is corrupt")
        if identity is not None and record.identity == identity:
            faults.append(f"record {record.id!r} is of {identity!r}")
    if len(seen) != engine.count():
        faults.append(f"{len(seen)} records can be read, and {engine.count()} are counted")
    for entry in engine.read_log():
        if identity is not None and identity in (entry["identity"], *entry["before"].values()):
            faults.append(f"the log of names still tells of {identity!r}")
        faults += [f"the log of names tells of {i!r}, which is not there" for i in entry["before"] if i not in seen]
    return faults


@dataclass(frozen=True)
class Stats:
    """What a gallery holds."""

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
    """Names of the fields."""
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
    """Add every record, and the log, to another gallery of the same model; returns how many records.

    Raises:
        GalleryError: the other is of another model.
    """
    other.info.require(engine.info.embedding_id, "the gallery holds")
    count = 0
    for part in _parts(engine.scan(), 2000):
        other.add(part)
        count += len(part)
    other.write_log(engine.read_log())
    return count


def _parts(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    part = list[Record]()
    for record in records:
        part.append(record)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
