"""The forms of the page. Browsers send the fields that were not filled in, too: empty ones are left out."""

from typing import Annotated, Any

from fastapi import UploadFile
from pydantic import BeforeValidator, ConfigDict, Field

from resight.service.messages.forms import DEFAULT, MODALITIES, OptionalText, SearchFields, as_sightings
from resight.service.messages.schemas_admin import KeyIn
from resight.service.messages.types import Body, Count, Seconds, Text
from resight.service.page.times import parse_time


def _none_of_empty(value: Any) -> Any:
    return None if value == "" else value


def _without_empty(values: Any) -> Any:
    return [value for value in values if value != ""] if isinstance(values, list) else values


def _without_empty_files(values: Any) -> Any:
    return (
        [file for file in values if file != "" and getattr(file, "size", 1) != 0]
        if isinstance(values, list)
        else values
    )


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Texts = Annotated[list[Text], BeforeValidator(_without_empty)]
Files = Annotated[list[UploadFile], BeforeValidator(_without_empty_files)]
ExtraFiles = Annotated[Files, BeforeValidator(_as_list)]
"""Files of a field that the form does not name: FastAPI gives one file alone."""
Time = Annotated[Seconds | None, BeforeValidator(parse_time)]


class PageForm(Body):
    """A form of the page."""

    token: str = ""


class PageSearchForm(SearchFields, PageForm):
    """The search form: at most one picture of each modality, in a field of its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ExtraFiles] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    k: Count = 24
    image: Files = Field(default=[])
    rgb: Files = Field(default=[])
    nir: Files = Field(default=[])
    tir: Files = Field(default=[])
    query_camera: OptionalText = None
    query_view: OptionalText = None
    identity: Texts = Field(default=[])
    camera: Texts = Field(default=[])
    modality: Texts = Field(default=[])
    after: Time = None
    before: Time = None
    add_identity: OptionalText = None
    """Of the sighting that the form's second button adds."""
    add_time: Time = None

    async def sightings(self) -> list[dict[str, bytes]]:
        """Return the bytes of each sighting's pictures by field name.

        Raises:
            ServiceError: as `resight.service.messages.forms.as_sightings`.
        """
        files = {name: getattr(self, name) for name in (DEFAULT, *MODALITIES)} | self.__pydantic_extra__
        return as_sightings({name: [await file.read() for file in part] for name, part in files.items()})


class WhyForm(PageForm):
    """A result of a search, and the query: a small picture, or a record."""

    record: Text
    """Id of the result."""
    query: Annotated[str | None, BeforeValidator(_none_of_empty)] = Field(None, max_length=200_000)
    """A JPEG in base64, as the results have it."""
    query_record: OptionalText = None
    query_camera: OptionalText = None
    query_modality: OptionalText = None


class PictureForm(PageForm):
    """Two pictures to compare."""

    first: Files = Field(default=[])
    second: Files = Field(default=[])
    first_camera: OptionalText = None
    second_camera: OptionalText = None
    modality: OptionalText = None
    """Of both."""


class AddManyForm(PageForm):
    """Pictures to add, each a sighting of its own, with labels that they share."""

    images: Files = Field(default=[])
    identity: OptionalText = None
    camera: OptionalText = None
    modality: OptionalText = None
    time: Time = None


class JudgeForm(PageForm):
    """Whether a sighting shows the identity of the form."""

    identity: OptionalText = None
    same: Text | None = None
    """Id of a record that shows it."""
    different: Text | None = None
    """Id of a record that does not."""


class UndoForm(PageForm):
    """Which assignment is undone, and where the browser goes then."""

    name: str = Field(max_length=64)
    """Of the assignment, so that no later one is undone."""
    next: str = Field("/", max_length=2000)


class RecordsForm(PageForm):
    """Records, and the identity that they get or have."""

    ids: Texts = Field(default=[], max_length=10_000)
    identity: OptionalText = None
    of: OptionalText = None
    """The identity whose page has the form."""
    all_of: OptionalText = None
    """An identity that is removed as a whole."""


class KeyForm(KeyIn, PageForm):
    """A key to create."""

    days: Annotated[float | None, BeforeValidator(_none_of_empty)] = Field(None, gt=0, le=36_500)


class RevokeForm(PageForm):
    """A key to delete."""

    key_id: Text


class SignInForm(PageForm):
    """The key of a person."""

    key: str = Field("", max_length=200)
    next: str = Field("/", max_length=2000)
