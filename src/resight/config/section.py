"""The base class of all sections of the configuration, and its errors."""

from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from resight.errors import ConfigError

_PROBLEMS: Final = 5  # that a message lists


class Section(BaseModel):
    """A part of the configuration; it is immutable, and refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_utf8(cls, value: Any) -> Any:
        if isinstance(value, str | Path) and not is_utf8(str(value)):
            raise ValueError("it has a character that UTF-8 does not have, so that no file can store it")
        return value

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values of some fields, checked.

        Raises:
            ConfigError: a field does not exist, or a value is invalid.
        """
        try:
            fields = {name: getattr(self, name) for name in type(self).model_fields}
            return type(self).model_validate(fields | values)
        except ValidationError as error:
            raise explain(error) from error


def explain(error: ValidationError) -> ConfigError:
    """Turn the errors of pydantic into one `ConfigError`, whose text is one sentence."""
    problems = list[str]()
    for problem in error.errors(include_url=False):
        field = ".".join(map(str, problem["loc"]))[:100] or "the configuration"
        problems.append(f"{field}: {problem['msg'].removeprefix('Value error, ')}{_value(problem)}")
    more = f"; and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
    return ConfigError("; ".join(problems[:_PROBLEMS]) + more)


def is_utf8(text: str) -> bool:
    """Return whether a text can be stored as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(problem: Any) -> str:
    value = problem["input"]
    if problem["type"] in ("value_error", "missing") or not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    return f", not {text}" if len(text) <= 60 else ""
