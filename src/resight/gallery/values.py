"""Checks of the values that a gallery is called with."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from resight.errors import ConfigError, GalleryError
from resight.gallery.record import LABELS, Filter, is_number, is_text


def require_number(value: Any, name: str, low: float, high: float, inclusive: bool = True) -> float:
    """Return a number, checked.

    Raises:
        ConfigError: it is no number, or not between `low` and `high`.
    """
    if is_number(value) and (low <= value <= high if inclusive else low < value < high):
        return float(value)
    raise ConfigError(f"{name} must be between {low:g} and {high:g}, not {value!r:.60}")


def require_count(value: Any, name: str) -> int:
    """Return a whole number of 1 or more, checked.

    Raises:
        ConfigError: it is none.
    """
    if is_number(value) and isinstance(value, int | np.integer) and value >= 1:
        return int(value)
    raise ConfigError(f"{name} must be 1 or more, not {value!r:.60}")


def require_texts(values: Any, name: str) -> list[str]:
    """Return texts, such as record ids, checked; one text is not a list of them.

    Raises:
        GalleryError: they are no list of texts that can be stored.
    """
    texts = list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping) else None
    if texts is None or not all(map(is_text, texts)):
        raise GalleryError(f"the {name} must be a list of texts that can be stored, not {values!r:.60}")
    return texts


def require_label(value: Any, name: str) -> str | None:
    """Return a text or None, checked.

    Raises:
        GalleryError: it is neither.
    """
    if value is None or is_text(value):
        return value
    raise GalleryError(f"the {name} must be a text that can be stored, or None, not {value!r:.60}")


def require_filter(where: Filter) -> Filter:
    """Return a filter, checked, with its labels as tuples.

    Raises:
        GalleryError: a label is no text, a time no number, or a metadata value of a type that no record has.
    """
    labels = {name: tuple(require_texts(getattr(where, name), f"labels of {name} in a filter")) for name in LABELS}
    for name in ("after", "before"):
        seconds = getattr(where, name)
        is_infinite = isinstance(seconds, float) and math.isinf(seconds)
        if not (seconds is None or is_infinite or is_number(seconds)):
            raise GalleryError(f"`{name}` of a filter must be a number of seconds or None, not {seconds!r:.60}")
    metadata: Any = where.metadata
    if not isinstance(metadata, Mapping):
        raise GalleryError(f"the metadata of a filter must be values by name, not {metadata!r:.60}")
    for name, value in metadata.items():
        is_value = is_text(value) or isinstance(value, bool) or (isinstance(value, int | float) and is_number(value))
        if not is_text(name) or not is_value:
            raise GalleryError(f"no record has metadata {name!r:.60} of the value {value!r:.60}")
    return replace(where, **labels)
