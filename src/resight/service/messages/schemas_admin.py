"""Models of the routes about the service itself: health, model, keys, settings, audit and retention."""

from typing import Annotated, Any, Literal

from pydantic import Field

from resight.service.messages.types import Body
from resight.service.security.keys import Role


class HealthOut(Body):
    """That the process answers."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyOut(Body):
    """That model and gallery answer."""

    status: Literal["ready"] = "ready"
    records: int


class ModelOut(Body):
    """The model card, and what this service computes with."""

    card: dict[str, Any]
    embedding_id: str
    width: int
    modalities: list[str]
    """Names of the upload fields that the model knows."""
    calibrated: bool
    threshold: float | None
    """The calibrated similarity; a lower one is no match."""
    compute: str
    """Device, kind of processor, precision, image size and batch size."""


class KeyIn(Body):
    """A key to create."""

    role: Role
    days: Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)] | None = None
    """Until it expires; None for never."""
    note: str = Field("", max_length=200)


class KeyOut(Body):
    """A key, without its secret."""

    id: str
    role: Role
    created: str
    expires: str | None
    expired: bool
    note: str


class KeyListOut(Body):
    """All keys, expired ones too."""

    keys: list[KeyOut]  # words: ok


class NewKeyOut(Body):
    """A new key: the only time that its text is shown."""

    key: str
    stored: KeyOut


class AuditOut(Body):
    """The newest lines of the audit log, oldest first."""

    lines: list[dict[str, Any]]


class SettingsOut(Body):
    """The settings of the service, without paths and passwords."""

    settings: dict[str, Any]


class RetentionOut(Body):
    """What a run of the retention did."""

    removed: int
    without_date: int
    """Records that have neither a date of addition nor a Unix time; they are never removed by age."""
