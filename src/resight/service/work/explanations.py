"""Why two pictures are similar, for the API and the page: pictures that are uploaded, or thumbnails of records."""

from dataclasses import dataclass

import torch

from resight.inference.explain import Explanation, explain
from resight.service.errors import ServiceError
from resight.service.messages.schemas import ExplainOut, PatchesOut, PatchPairOut
from resight.service.work.core import Service
from resight.service.work.decode_worker import DecodeTask
from resight.service.work.record_ids import find_record


@dataclass(frozen=True)
class Side:
    """One of two pictures."""

    picture: bytes | None
    """The bytes of its file; None for the thumbnail of the record."""
    record_id: str | None = None
    camera: str | None = None
    modality: str | None = None


@dataclass(frozen=True)
class Explained:
    """An explanation, and what the page shows of both pictures."""

    explanation: Explanation
    thumbnails: tuple[bytes, bytes]
    """A small JPEG of each."""
    from_thumbnail: tuple[bool, bool]
    """Whether a picture is the thumbnail of a record: the model has seen a larger one when it was added."""


async def explain_sides(service: Service, first: Side, second: Side) -> Explained:
    """Explain the similarity of two pictures.

    Raises:
        ServiceError: a side has no picture and no record, or both; a record does not exist (404) or has no thumbnail;
            a picture cannot be decoded (422); a queue is full (503).
        ConfigError: the model has no tokens, or does not know a modality.
    """
    sides = [await _with_picture(service, side, name) for side, name in ((first, "first"), (second, "second"))]
    encoded = tuple(side.picture for side in sides if side.picture is not None)
    a, b = await service.decode(DecodeTask(encoded, True))
    pixels = [torch.from_numpy(picture.pixels) for picture in (a, b)]
    names = [side.modality or service.default_modality for side in sides]
    explanation = await service.background.explain(
        lambda: explain(
            service.embedder, pixels[0], pixels[1], (sides[0].camera, sides[1].camera), (names[0], names[1]),
            service.settings.prior,
        )
    )  # fmt: skip
    assert a.thumbnail is not None
    assert b.thumbnail is not None
    return Explained(explanation, (a.thumbnail, b.thumbnail), (first.picture is None, second.picture is None))


def explain_out(explained: Explained) -> ExplainOut:
    """Return what the API says of an explanation."""
    explanation = explained.explanation
    first, second = (
        PatchesOut(attention=attention.tolist(), contributions=terms.tolist(), from_thumbnail=from_thumbnail)
        for attention, terms, from_thumbnail in zip(
            explanation.attention, explanation.maps, explained.from_thumbnail, strict=True
        )
    )
    pairs = [PatchPairOut(**vars(pair)) for pair in explanation.pairs()]
    return ExplainOut(
        **vars(explanation.comparison), patch_similarity=explanation.patch_similarity, first=first, second=second,
        pairs=pairs,
    )  # fmt: skip


async def _with_picture(service: Service, side: Side, name: str) -> Side:
    """The side with the bytes of its picture; those of a record have the labels of the record."""
    if (side.picture is None) == (side.record_id is None):
        raise ServiceError(422, f"the {name} side needs a picture or the id of a record, and not both")
    record_id = side.record_id
    if record_id is None:
        return side
    record = await service.with_gallery(lambda gallery: find_record(gallery, record_id))
    if record.thumbnail is None:
        raise ServiceError(422, f"the record {record_id!r:.80} has no thumbnail, so there is no picture to explain")
    modality = None if record.modality is None else record.modality.partition("+")[0]
    return Side(record.thumbnail, None, record.camera, modality)
