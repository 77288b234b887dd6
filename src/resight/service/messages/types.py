"""The types that the models of the API share."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from resight.gallery.record import Value, is_number, is_text

MAX_SECONDS: Final = 1e15


def _require_text(text: str) -> str:
    if not is_text(text):
        raise ValueError("it has a character that cannot be stored")
    return text


def _require_value(value: Value) -> Value:
    valid = is_text(value) or isinstance(value, bool) or is_number(value)
    if not valid:
        raise ValueError("it cannot be stored")
    return value


Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$"), AfterValidator(_require_text)]
"""A label or an id."""
Seconds = Annotated[float, Field(ge=-MAX_SECONDS, le=MAX_SECONDS, allow_inf_nan=False)]
Metadata = dict[
    Annotated[str, Field(max_length=200), AfterValidator(_require_text)],
    Annotated[Value, AfterValidator(_require_value)],
]
Count = Annotated[int, Field(ge=1, le=1000)]
Group = Literal["identity", "tracklet"]


class Body(BaseModel):
    """A document of the API: fields that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Problem(BaseModel):
    """Why a request is refused."""

    detail: str
    """One sentence."""
    request: str
    """The id of the request, which the service's log has too."""
