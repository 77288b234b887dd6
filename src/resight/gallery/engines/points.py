"""Conversion of records and filters to Qdrant's points and conditions; `models` is `qdrant_client.models`."""

import base64
import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from resight.gallery.record import LABELS, Filter, Record, images_from_text, images_to_text


def to_point(models: Any, number: int, record: Record) -> Any:
    """Convert a record to a point; `number` orders points by when they were added."""
    thumbnail = None if record.thumbnail is None else base64.b64encode(record.thumbnail).decode()
    payload = {name: getattr(record, name) for name in ("id", *LABELS, "time")}
    payload["images"] = images_to_text(record.images)
    payload |= {"number": number, "thumbnail": thumbnail, "metadata": json.dumps(dict(record.metadata))}
    payload |= {"fields": list(record.metadata), "tags": [_tag(*pair) for pair in record.metadata.items()]}
    return models.PointStruct(id=number_of(record.id), vector=record.vector.tolist(), payload=payload)


def conditions(models: Any, where: Filter) -> Any:
    """Convert a filter to Qdrant's."""
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


def edge_conditions(edge: Any, where: Filter) -> Any:
    """Convert a filter to Qdrant Edge's, None for no condition; `edge` is `qdrant_edge`."""
    must = [
        edge.FieldCondition(name, match=edge.MatchAny(list(getattr(where, name))))
        for name in LABELS
        if getattr(where, name)
    ]
    if where.after is not None or where.before is not None:
        must.append(edge.FieldCondition("time", range=edge.RangeFloat(gte=where.after, lt=where.before)))
    for pair in where.metadata.items():
        must.append(edge.FieldCondition("tags", match=edge.MatchValue(_tag(*pair))))
    return edge.Filter(must=must) if must else None


def number_of(record_id: str) -> str:
    """Return the id of a record's point, a UUID computed from the record's id."""
    return str(uuid5(NAMESPACE_URL, f"resight:{record_id}"))


def _tag(name: str, value: Any) -> str:
    return json.dumps([name, value])  # JSON keeps 2, 2.0 and true apart


def to_record(point: Any) -> Record:
    """Convert a point of `to_point` to a record."""
    payload = dict(point.payload)
    thumbnail = payload.get("thumbnail")
    return Record(
        vector=np.array(point.vector, np.float32),
        thumbnail=None if thumbnail is None else base64.b64decode(thumbnail),
        id=payload["id"],
        metadata=json.loads(payload["metadata"]),
        images=images_from_text(payload.get("images")),
        **{name: payload.get(name) for name in (*LABELS, "time")},
    )
