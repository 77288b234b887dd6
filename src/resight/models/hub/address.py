"""Addresses of models on the Hugging Face Hub: `hf://ORG/NAME@REVISION`, and timm's `hf-hub:ORG/NAME@REVISION`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resight.errors import ConfigError

_OURS: Final = re.compile(r"hf:/{1,2}(.*)", re.DOTALL)  # pathlib makes one slash of two
TIMM_PREFIX: Final = "hf-hub:"
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION: Final = re.compile(r"[\w./-]+", re.ASCII)
_LONGEST: Final = 96


@dataclass(frozen=True)
class HubAddress:
    """A repository of the Hub, and which revision of it."""

    repository: str
    """ORG/NAME."""
    revision: str | None = None
    """A branch, tag or commit; None for the branch main."""

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub_address(model: str | Path) -> bool:
    """Return whether a model is named by its address on the Hub, and not by a path."""
    return _OURS.fullmatch(str(model)) is not None


def parse_address(model: str | Path) -> HubAddress:
    """Parse `hf://ORG/NAME` or `hf://ORG/NAME@REVISION`.

    Raises:
        ConfigError: it is no such address.
    """
    match = _OURS.fullmatch(str(model))
    return _parse(
        match[1] if match else str(model), f"hf://ORG/NAME or hf://ORG/NAME@REVISION, not {str(model)!r:.120}"
    )


def parse_timm_address(name: str) -> HubAddress:
    """Parse `hf-hub:ORG/NAME` or `hf-hub:ORG/NAME@REVISION`, as timm writes it.

    Raises:
        ConfigError: it is no such name.
    """
    expected = f"hf-hub:ORG/NAME or hf-hub:ORG/NAME@REVISION, not {name!r:.120}"
    return _parse(name.removeprefix(TIMM_PREFIX), expected)


def parse_repository(name: str) -> str:
    """Check the name of a repository, ORG/NAME.

    Raises:
        ConfigError: the Hub cannot have a repository of that name.
    """
    expected = f"ORG/NAME, not {name!r:.120}"
    address = _parse(name, expected)
    if address.revision is not None:
        raise ConfigError(
            f"a repository of the Hub is named ORG/NAME, not {name!r:.120}: give the branch as --revision"
        )
    return address.repository


def require_revision(revision: str) -> None:
    """Check the name of a branch, tag or commit.

    Raises:
        ConfigError: git cannot have one of that name.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision or revision.startswith(("-", "/")):
        raise ConfigError(f"a revision is a branch, tag or commit, not {revision!r:.120}")


def _parse(text: str, expected: str) -> HubAddress:
    repository, at, revision = text.partition("@")
    is_name = _REPOSITORY.fullmatch(repository) and len(repository) <= _LONGEST
    if not is_name or any(part in repository for part in ("--", "..")) or repository.endswith((".git", "-", ".")):
        raise ConfigError(f"a model on the Hub is named {expected}")
    if not at:
        return HubAddress(repository)
    require_revision(revision)
    return HubAddress(repository, revision)
