"""What the API takes and gives, as typed models; `resight.Client` returns the same ones."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from resight.gallery.answers import Answer
from resight.gallery.record import Filter, Record, Value
from resight.service.messages.types import Body, Text


class RecordOut(Body):
    """A record of the gallery."""

    id: str
    identity: str | None
    camera: str | None
    modality: str | None
    tracklet: str | None
    time: float | None
    """Seconds, on a clock that all cameras share."""
    metadata: dict[str, Value]
    thumbnail: bool
    """Whether `/v1/thumbnails/{id}` has a picture."""
    vector: list[float] | None = None
    """The embedding, where it was requested."""


class AnswerOut(Body):
    """One answer of a search."""

    record: RecordOut
    similarity: float
    """Inner product, from -1 to 1."""
    probability: float | None
    """Probability of the same identity; None where the model is not calibrated."""
    known: bool | None
    """Whether the similarity reaches the calibrated threshold."""
    members: int
    """In a grouped search, the number of candidates in the group."""


class SearchOut(Body):
    """Answers to each query, nearest first."""

    answers: list[list[AnswerOut]]


class EmbeddingsOut(Body):
    """Embeddings of unit length, one for each sighting."""

    embedding_id: str
    """Only embeddings with the same id can be compared."""
    embeddings: list[list[float]]


class CompareOut(Body):
    """The comparison of two pictures."""

    similarity: float
    """Inner product, from -1 to 1."""
    probability: float | None
    """Of the same identity; None where the model is not calibrated."""
    known: bool | None
    """Whether the similarity reaches the calibrated threshold."""


class PatchPairOut(Body):
    """Two patches that resemble each other: row and column of each, from 0."""

    first: tuple[int, int]
    second: tuple[int, int]
    similarity: float
    """Of both patches, from -1 to 1."""
    contribution: float
    """To `patch_similarity`."""


class PatchesOut(Body):
    """One picture of an explanation: rows of patches."""

    attention: list[list[float]]
    """How much the model attends to each patch; sums to 1."""
    contributions: list[list[float]]
    """Of each patch to `patch_similarity`, which is their sum."""
    from_thumbnail: bool
    """Whether the picture is the thumbnail of a record; the record's embedding is of a larger picture."""


class ExplainOut(CompareOut):
    """Why two pictures are similar."""

    patch_similarity: float
    """Of the patches, weighted with the attention to them; it is not the similarity of the embeddings."""
    first: PatchesOut
    second: PatchesOut
    pairs: list[PatchPairOut]
    """The largest contributions."""


class AddedOut(Body):
    """A record that is stored on disk."""

    record: RecordOut
    created: bool
    """False where a record with this id existed: it was not changed, unless `replace` was set."""


class RecordsOut(Body):
    """Records in the order in which they were added."""

    records: list[RecordOut]
    total: int
    """How many match."""


class IdentityOut(Body):
    """An identity, and the number of its records."""

    identity: str
    records: int


class IdentitiesOut(Body):
    """Identities, those with the most records first."""

    identities: list[IdentityOut]
    total: int


class RemoveIn(Body):
    """Which records to remove: by id, or all of an identity."""

    ids: list[Text] = Field(default=[], max_length=10_000)
    identity: Text | None = None


class AssignIn(Body):
    """Assign records to an identity, or make them unknown."""

    ids: list[Text] = Field(default=[], max_length=10_000)
    identity: Text | None = None
    """The new identity; None makes the records unknown."""
    of: Text | None = None
    """Also assign all records of this identity."""


class MergeIn(Body):
    """Assign all records of one identity to another."""

    identity: Text
    into: Text


class CountOut(Body):
    """How many records a change concerned."""

    records: int


class UndoOut(Body):
    """The assignment that was undone."""

    at: str
    """When it was made, in UTC (ISO 8601)."""
    identity: str | None
    records: int


class ClusterIn(Body):
    """How records are grouped."""

    threshold: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    """Lowest mean similarity at which groups are joined; None for the calibrated one."""
    neighbors: Annotated[int, Field(ge=1, le=200)] = 20
    include_named: bool = False
    """Also group records that have an identity."""


class ClusterAssignIn(ClusterIn):
    """How records are grouped, and what the groups are called."""

    name: Text
    """Groups become `name-1`, `name-2`, ..."""


class ClusterOut(Body):
    """Groups of record ids, in the order of their first records."""

    groups: list[list[str]]


class StatsOut(Body):
    """Counts of the gallery's records, and its model."""

    records: int
    identities: int
    unknown: int
    cameras: dict[str, int]
    modalities: dict[str, int]
    first: float | None
    last: float | None
    metadata: list[str]
    embedding_id: str


def record_fields(record: Record, vector: bool = False) -> dict[str, Any]:
    """Return the fields of a `RecordOut`: paths of images are left out."""
    return {
        "id": record.id,
        "identity": record.identity,
        "camera": record.camera,
        "modality": record.modality,
        "tracklet": record.tracklet,
        "time": record.time,
        "metadata": dict(record.metadata),
        "thumbnail": record.thumbnail is not None,
        "vector": record.vector.tolist() if vector else None,
    }


def record_out(record: Record, vector: bool = False) -> RecordOut:
    """Return what the API says of a record."""
    return RecordOut(**record_fields(record, vector))


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Return the fields of an `AnswerOut`."""
    return {
        "record": record_fields(answer.record),
        "similarity": float(answer.similarity),
        "probability": answer.probability,
        "known": None if answer.known is None else bool(answer.known),
        "members": answer.members,
    }


def answer_out(answer: Answer) -> AnswerOut:
    """Return what the API says of an answer."""
    return AnswerOut(**answer_fields(answer))


def filter_of(labels: Mapping[str, list[str]], after: float | None, before: float | None, metadata: Any) -> Filter:
    """Return the filter of a request: labels by name, times in seconds, and fields of metadata."""
    values = {name: tuple(names) for name, names in labels.items()}
    return Filter(**values, after=after, before=before, metadata=metadata or {})
