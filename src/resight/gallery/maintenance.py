"""Looking after a gallery as a whole: is it sound, what is in it, and to another engine with it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from resight.gallery.engines.contract import Engine
from resight.gallery.gallery import Gallery
from resight.gallery.record import Record


def verify(engine: Engine, identity: str | None = None) -> list[str]:
    """What is wrong with the gallery, or what is left of an identity: nothing, where all is well."""
    faults, seen, width = list[str](), set[str](), engine.about["width"]
    for record in engine.scan():
        if record.id in seen:
            faults.append(f"record {record.id!r} is there twice")
        seen.add(record.id)
        if record.vector.shape != (width,) or abs(float(np.linalg.norm(record.vector)) - 1) > 1e-2:
            faults.append(f"the vector of record {record.id!r} is damaged")
        if identity is not None and record.identity == identity:
            faults.append(f"record {record.id!r} is of {identity!r}")
    if len(seen) != engine.count():
        faults.append(f"{len(seen)} records can be read, and {engine.count()} are counted")
    for entry in engine.read_log():
        if identity is not None and identity in (entry["identity"], *entry["before"].values()):
            faults.append(f"the log of names still tells of {identity!r}")
        faults += [f"the log of names tells of {i!r}, which is not there" for i in entry["before"] if i not in seen]
    return faults


def stats(engine: Engine) -> dict[str, Any]:
    """How many records there are, by label."""
    labels: dict[str, dict[str, int]] = {name: {} for name in ("identity", "camera", "modality")}
    times = list[float]()
    for record in engine.scan():
        for name, counts in labels.items():
            value = getattr(record, name)
            counts[value or "unknown"] = counts.get(value or "unknown", 0) + 1
        if record.time is not None:
            times.append(record.time)
    identities = labels["identity"]
    return {
        "records": engine.count(),
        "identities": len(identities) - ("unknown" in identities),
        "without an identity": identities.get("unknown", 0),
        "cameras": dict(sorted(labels["camera"].items())),
        "modalities": dict(sorted(labels["modality"].items())),
        "from": min(times, default=None),
        "to": max(times, default=None),
        "metadata": sorted(engine.fields()),
        "model": engine.about["fingerprint"],
    }


def copy(engine: Engine, other: Engine) -> int:
    """Adds every record, and the log, to another gallery of the same model; returns how many records.

    Raises:
        GalleryError: the other is of another model.
    """
    Gallery(other).require(engine.about["fingerprint"])
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
