"""The pictures that `resight.Client` sends: read here, and put into as many requests as they need."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from resight.errors import GalleryError

Picture = str | Path | bytes
"""A picture: its file on this machine, or the bytes of a file."""
Query = Picture | Mapping[str, Picture]
"""A picture, or the pictures of one sighting by modality (`rgb`, `nir`, `tir`)."""
Files = list[tuple[str, tuple[str, bytes]]]
"""Files of a form by field, each with a name that says nothing."""


def upload_files(images: Query | Sequence[Query]) -> Files:
    """Upload fields of one request; the name of a file stays here.

    Raises:
        GalleryError: there is no picture, or one cannot be read.
    """
    files: Files = [
        (name, ("picture", picture_bytes(image))) for sighting in _sightings(images) for name, image in sighting.items()
    ]
    if not files:
        raise GalleryError("there is no picture to send")
    return files


def upload_groups(images: Query | Sequence[Query], per_request: int) -> Iterator[Files]:
    """Upload fields of several requests, each of whole sightings; pictures are read when their request is made."""
    group = list[Query]()
    count = 0
    for sighting in _sightings(images):
        if group and count + len(sighting) > per_request:
            yield upload_files(group)
            group = []
            count = 0
        group.append(sighting)
        count += len(sighting)
    yield upload_files(group)


def _sightings(images: Query | Sequence[Query]) -> list[Mapping[str, Picture]]:
    queries = [images] if isinstance(images, str | Path | bytes | Mapping) else list(images)
    return [query if isinstance(query, Mapping) else {"image": query} for query in queries]


def picture_bytes(image: Picture) -> bytes:
    """Return the bytes of a picture.

    Raises:
        GalleryError: its file cannot be read.
    """
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise GalleryError(f"{image} cannot be read: {error.strerror}") from error
