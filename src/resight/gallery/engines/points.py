"""Records and filters as Qdrant's points and conditions; `models` is `qdrant_client.models`."""

import base64
import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from resight.gallery.record import LABELS, Filter, Record, images_from_text, images_to_text


def to_point(models: Any, number: int, record: Record) -> Any:
    """A record as a point; `number` puts points in the order in which they were added."""
    thumbnail = None if record.thumbnail is None else base64.b64encode(record.thumbnail).decode()
    payload = {name: getattr(record, name) for name in ("id", *LABELS, "time")}
    payload["images"] = images_to_text(record.images)
    payload |= {"number": number, "thumbnail": thumbnail, "metadata": json.dumps(dict(record.metadata))}
    payload |= {"fields": list(record.metadata), "tags": [_tag(*pair) for pair in record.metadata.items()]}
    return models.PointStruct(id=number_of(record.id), vector=record.vector.tolist(), payload=payload)


def conditions(models: Any, where: Filter) -> Any:
    """A filter as Qdrant's."""
    must = [
        models.FieldCondition(key=name, match=models.MatchAny(any=list(getattr(where, name))))
        for name in LABELS
        if getattr(where, name)
    ]
    if where.after is not None or where.before is not None:
        must.append(models.FieldCondition(key="time", range=models.Range(gte=where.after, lt=where.before)))
    for pair in where.metadata.items():
        must.append(models.FieldCondition(key="tags", match=models.MatchValue(value=_tag(*pair))))
    return models.Filter(must=must)


def number_of(record_id: str) -> str:
    """The point's own number, which follows from the record's id."""
    return str(uuid5(NAMESPACE_URL, f"resight:{record_id}"))


def _tag(name: str, value: Any) -> str:
    return json.dumps([name, value])  # 2 is not 2.0 is not true


def to_record(point: Any) -> Record:
    """`to_point` taken back."""
    held = dict(point.payload)
    thumbnail = held.get("thumbnail")
    return Record(
        vector=np.array(point.vector, np.float32),
        thumbnail=None if thumbnail is None else base64.b64decode(thumbnail),
        id=held["id"],
        metadata=json.loads(held["metadata"]),
        images=images_from_text(held.get("images")),
        **{name: held.get(name) for name in (*LABELS, "time")},
    )
