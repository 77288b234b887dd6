"""A section that is a file of its own: JSON with a format number and a SHA-256 of its content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pydantic import (
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from resight.config.section import Section, explain
from resight.errors import CheckpointError
from resight.files import file_digest

_SEAL = "sha256"


class Document(Section):
    """A section that is a file of its own. `model_dump_json` writes its SHA-256, and `read` checks it."""

    model_config = ConfigDict(allow_inf_nan=False)
    FORMAT: ClassVar[int] = 2
    """The format number that this version writes, and the only one that it reads."""
    format: int = 2
    """The format number of this file."""

    @model_serializer(mode="wrap")
    def _with_digest(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = cast("dict[str, Any]", dump(self))
        return {**content, _SEAL: _digest(content)}

    @model_validator(mode="before")
    @classmethod
    def _without_digest(cls, document: Any) -> Any:
        if not isinstance(document, dict) or _SEAL not in document:
            return document
        if not _has_its_digest(cast("dict[str, Any]", document)):
            raise ValueError(f"the content does not have its {_SEAL}")
        return {name: value for name, value in cast("dict[str, Any]", document).items() if name != _SEAL}

    @classmethod
    def read(cls, path: Path, subject: str, advice: str) -> Self:
        """Read a file that `model_dump_json` wrote.

        Args:
            path: of the file.
            subject: what the file describes, for error messages, such as `a model`.
            advice: how to make the file again.

        Raises:
            OSError: the file cannot be read.
            CheckpointError: it has another format, is corrupt, or was edited.
        """
        data = path.read_bytes()
        try:
            content = json.loads(data)
            if not isinstance(content, dict):
                raise CheckpointError(f"{path} does not describe {subject}: {advice}")
            _check(path, cast("dict[str, Any]", content), cls.FORMAT, advice)
            return cls.model_validate(content)
        except ValidationError as error:
            raise CheckpointError(f"{path} does not describe {subject}: {explain(error)}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is corrupt, it is no JSON ({error}): restore it from a copy, or {advice}"
            ) from error


def require_format(path: Path, number: object, current: int, advice: str) -> None:
    """Refuse a file of another format.

    Args:
        path: of the file.
        number: the format number in the file; None if it has none.
        current: the format number that this version reads.
        advice: what to do.

    Raises:
        CheckpointError: the numbers differ, or `number` is no integer.
    """
    if type(number) is not int or number != current:
        has = "has no format number" if number is None else f"has format {json.dumps(number)[:60]}"
        raise CheckpointError(f"{path} {has}, and this version of resight reads format {current}: {advice}")


def require_intact(folder: Path, files: Mapping[str, str], stated_in: str, advice: str) -> None:
    """Compare files with their SHA-256.

    Args:
        folder: of the files.
        files: the SHA-256 of each file, by its path in the folder.
        stated_in: the name of the document that states them, for error messages.
        advice: how to make the files again.

    Raises:
        CheckpointError: a file is missing or corrupt.
    """
    for name, digest in files.items():
        path = folder / name
        try:
            is_intact = file_digest(path) == digest
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be read ({error.strerror}): restore it from a copy, or {advice}"
            ) from error
        if not is_intact:
            raise CheckpointError(
                f"{path} is corrupt, its SHA-256 is not the one in {stated_in}: restore it from a copy, or {advice}"
            )


def _check(path: Path, content: dict[str, Any], current: int, advice: str) -> None:
    require_format(path, content.get("format"), current, advice)
    if _SEAL not in content:
        raise CheckpointError(f"{path} has no {_SEAL}, so whether it is intact cannot be checked: {advice}")
    if not _has_its_digest(content):
        raise CheckpointError(
            f"{path} is corrupt or was edited, its SHA-256 is not the one in it: restore it from a copy, or {advice}"
        )


def _has_its_digest(document: dict[str, Any]) -> bool:
    return document[_SEAL] == _digest({name: value for name, value in document.items() if name != _SEAL})


def _digest(content: dict[str, Any]) -> str:
    """Hash the content, however its JSON is laid out."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
