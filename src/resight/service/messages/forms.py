"""The multipart forms of requests that send pictures. File names are ignored; nothing but the bytes is used."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from annotated_types import Len
from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from resight.gallery.record import Filter
from resight.service.errors import ServiceError
from resight.service.messages.schemas import filter_of
from resight.service.messages.types import Body, Count, Group, Metadata, Seconds, Text

MODALITIES: Final = ("rgb", "nir", "tir")
DEFAULT: Final = "image"
_METADATA: Final = TypeAdapter(Metadata)


def _none_of_empty(value: Any) -> Any:
    """An empty field of a form is one that was not filled in."""
    return None if value == "" else value


OptionalText = Annotated[Text | None, BeforeValidator(_none_of_empty)]
OptionalSeconds = Annotated[Seconds | None, BeforeValidator(_none_of_empty)]
Upload = Annotated[bytes, Strict()]
"""The bytes of a file; a text is refused."""
# The lists of searches below have a `default_factory`: pydantic makes a deep copy of a default for every request.


class ImagesForm(Body):
    """Pictures of one or several sightings: the n-th file of each field is of the n-th sighting.

    A modality with another name is a field of that name.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, list[Upload]] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    image: list[Upload] = Field(default_factory=list)
    """Pictures of the model's default modality; excludes the fields of modalities."""
    rgb: list[Upload] = Field(default_factory=list)
    """Colour pictures."""
    nir: list[Upload] = Field(default_factory=list)
    """Near-infrared pictures."""
    tir: list[Upload] = Field(default_factory=list)
    """Thermal pictures."""
    query_camera: OptionalText = None
    """Camera of the pictures."""
    query_view: OptionalText = None
    """View of the pictures."""

    def sightings(self) -> list[dict[str, bytes]]:
        """Return the bytes of each sighting's pictures by field name.

        Raises:
            ServiceError: there is no picture, or fields exclude each other or have different numbers of files (422).
        """
        return as_sightings({name: getattr(self, name) for name in (DEFAULT, *MODALITIES)} | self.__pydantic_extra__)


class SearchFields(Body):
    """How many answers a search has, and which records are searched."""

    k: Count = 10
    """Number of answers for each query."""
    group: Annotated[Group | None, BeforeValidator(_none_of_empty)] = None
    """One answer for each identity or tracklet."""
    rerank: bool = False
    """Order the nearest records by their k-reciprocal neighbors."""
    same_object: bool = False
    """All sightings show the same object: search once, with the mean of their embeddings."""
    exclude: list[Text] = Field(default_factory=list)
    """Ids of records that are no answers."""
    identity: list[Text] = Field(default_factory=list)
    """Search only records of these identities."""
    camera: list[Text] = Field(default_factory=list)
    """Search only records of these cameras."""
    modality: list[Text] = Field(default_factory=list)
    """Search only records of these modalities."""
    tracklet: list[Text] = Field(default_factory=list)
    """Search only records of these tracklets."""
    after: OptionalSeconds = None
    """Search only records of this time or later, in seconds."""
    before: OptionalSeconds = None
    """Search only records of an earlier time, in seconds."""
    metadata: Annotated[str | None, BeforeValidator(_none_of_empty)] = None
    """Search only records with these fields: a JSON object, such as {"gate": "north"}."""

    def where(self) -> Filter:
        """Return the filter.

        Raises:
            ServiceError: the metadata are not a JSON object of values (422).
        """
        labels = {name: getattr(self, name) for name in ("identity", "camera", "modality", "tracklet")}
        return filter_of(labels, self.after, self.before, read_metadata(self.metadata))


class SearchForm(SearchFields, ImagesForm):
    """A search: the queries, how many answers, and which records are searched."""


class AddForm(Body):
    """One sighting to store, with its labels. A modality with another name is a field of that name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[list[Upload], Len(1, 1)]] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    image: Upload | None = None
    """A picture of the model's default modality; excludes the fields of modalities."""
    rgb: Upload | None = None
    """A colour picture."""
    nir: Upload | None = None
    """A near-infrared picture."""
    tir: Upload | None = None
    """A thermal picture."""
    id: OptionalText = None
    """Id of the record. None: from the Idempotency-Key header, or else from the content."""
    replace: bool = False
    """Store the record also where its id exists, in place of the old one."""
    identity: OptionalText = None
    camera: OptionalText = None
    view: OptionalText = None
    tracklet: OptionalText = None
    time: OptionalSeconds = None
    """Seconds, on a clock that all cameras share; Unix time lets the retention see the record's age."""
    metadata: Annotated[str | None, BeforeValidator(_none_of_empty)] = None
    """Further fields: a JSON object, such as {"gate": "north"}."""

    def sighting(self) -> dict[str, bytes]:
        """Return the bytes of the sighting's pictures by field name.

        Raises:
            ServiceError: there is no picture, or fields exclude each other (422).
        """
        files: Mapping[str, bytes | None] = {name: getattr(self, name) for name in (DEFAULT, *MODALITIES)}
        usual = {name: [] if file is None else [file] for name, file in files.items()}
        return as_sightings(usual | self.__pydantic_extra__)[0]


class CompareForm(Body):
    """Two pictures to compare."""

    first: Upload
    second: Upload
    first_camera: OptionalText = None
    second_camera: OptionalText = None
    first_modality: OptionalText = None
    """Modality of the first picture, such as tir."""
    second_modality: OptionalText = None


class ExplainForm(Body):
    """Two pictures to explain: each a file, or the thumbnail of a record."""

    first: Upload | None = None
    second: Upload | None = None
    first_record: OptionalText = None
    """Id of a record whose thumbnail is the first picture."""
    second_record: OptionalText = None
    first_camera: OptionalText = None
    second_camera: OptionalText = None
    first_modality: OptionalText = None
    """Modality of the first file, such as tir."""
    second_modality: OptionalText = None


def as_sightings(files: Mapping[str, Sequence[bytes]]) -> list[dict[str, bytes]]:
    """Return the pictures of each sighting by field name, from the pictures of each field.

    Raises:
        ServiceError: there is no picture, or fields exclude each other or have different numbers of files (422).
    """
    files_of_field = {name: part for name, part in files.items() if part}
    if not files_of_field:
        raise ServiceError(
            422, "the request has no picture: send one in the field image, or in one with a modality's name"
        )
    if DEFAULT in files_of_field and len(files_of_field) > 1:
        raise ServiceError(422, "the field image excludes those with a modality's name")
    if len({len(part) for part in files_of_field.values()}) > 1:
        counts = ", ".join(f"{len(part)} of {name}" for name, part in files_of_field.items())
        raise ServiceError(422, f"each sighting needs a picture of each modality, and there are {counts}")
    number = len(next(iter(files_of_field.values())))
    return [{name: part[n] for name, part in files_of_field.items()} for n in range(number)]


def read_metadata(text: str | None) -> dict[str, Any]:
    """Return the metadata of a form field.

    Raises:
        ServiceError: they are not a JSON object of texts, finite numbers and truth values (422).
    """
    if text is None:
        return {}
    try:
        return _METADATA.validate_json(text)
    except ValidationError:
        raise ServiceError(
            422, "metadata must be a JSON object whose values are texts, finite numbers or truth values"
        ) from None
