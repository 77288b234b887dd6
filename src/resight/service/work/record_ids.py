"""Ids of records: those that exist, and those that follow from a request."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from resight.gallery.gallery import Gallery
from resight.gallery.record import Record
from resight.service.errors import no_record


def find_record(gallery: Gallery, record_id: str) -> Record:
    """Return the record with an id.

    Raises:
        ServiceError: there is no such record (404).
    """
    records = gallery.engine.get([record_id])
    if not records:
        raise no_record(record_id)
    return records[0]


def require_records(gallery: Gallery, ids: Sequence[str]) -> None:
    """Check that records exist.

    Raises:
        ServiceError: one does not (404).
    """
    known = {record.id for record in gallery.engine.get(ids)}
    for record_id in ids:
        if record_id not in known:
            raise no_record(record_id)


def record_id_of(key: str | None, sighting: Mapping[str, bytes], labels: Mapping[str, Any]) -> str:
    """Return the id of a record that the client gave none: 24 hexadecimal digits, the same whenever it is repeated.

    Args:
        key: caller and `Idempotency-Key`; None makes the id from the content.
        sighting: the bytes of pictures by field name.
        labels: of the sighting.
    """
    digest = hashlib.sha256()
    if key is not None:
        digest.update(f"key {key}".encode())
    else:
        for name in sorted(sighting):
            digest.update(f"{name} {len(sighting[name])} ".encode() + sighting[name])
        digest.update(repr(sorted(labels.items())).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:24]
