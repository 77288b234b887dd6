"""Metadata on the command line: NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from resight.errors import ConfigError

if TYPE_CHECKING:
    from resight.gallery.record import Value


def parse_metadata(pairs: Iterable[str]) -> dict[str, Value]:
    """Parse NAME=VALUE; a value that is a JSON number, text or truth value has that type, and others are text.

    Raises:
        ConfigError: there is no = or no name.
    """
    values: dict[str, Value] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"metadata is NAME=VALUE, not {pair!r}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        values[name] = value if isinstance(value, str | int | float | bool) else text
    return values
