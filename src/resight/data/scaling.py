"""Scale the values of a picture to 8 bits by a stated rule. Nothing here imports torch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from resight.config.scaling import ScalingRule, rule_of
from resight.data.sightings import SightingTable
from resight.errors import PictureError

MIDDLE: Final = 128
"""The grey level of a picture whose values are all equal, where percentiles have nothing between them."""
_BLOCK: Final = 1 << 20  # values that are scaled at a time


def require_rule(rule: ScalingRule | None, kind: str, name: str) -> ScalingRule:
    """Return the rule, if there is one.

    Args:
        rule: how values become 8 bits.
        kind: of the picture, such as `16-bit`.
        name: of the picture in error texts.

    Raises:
        PictureError: there is none; the text says how to state one.
    """
    if rule is None:
        raise PictureError(
            f"{name} is a {kind} picture, and 8 bits are needed: scale it to 8 bits first, or state a rule with the "
            "setting scaling, such as --scaling default percentiles 1 99 (in training: --preprocessing.scaling)"
        )
    return rule


def scale(values: np.ndarray, rule: ScalingRule, name: str) -> np.ndarray:
    """Scale values to grey levels: 0 for the low end of the rule and below, 255 for the high end and above.

    Between them the level is the nearest to 255 (value - low) / (high - low). Values that are not finite have no part
    in percentiles; NaN becomes 0. Where both percentiles are one value, this becomes `MIDDLE`.

    Args:
        values: real numbers [h, w].
        rule: what the ends are.
        name: of the picture in error texts.

    Returns:
        uint8 [h, w].

    Raises:
        PictureError: no value is finite.
    """
    kind, low, high = rule
    finite = values if values.dtype.kind in "ui" else values[np.isfinite(values)]
    if not finite.size:
        raise PictureError(f"{name} has no finite value: all of its pixels are NaN or infinite")
    if kind == "percentiles":
        copied = finite.astype(np.float64).ravel()
        low, high = (float(end) for end in np.percentile(copied, (low, high), overwrite_input=True))
    levels = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // values.shape[1])
    for start in range(0, len(values), rows):
        levels[start : start + rows] = _levels(values[start : start + rows].astype(np.float64), low, high)
    return levels


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if low < high:
        levels = np.rint((values.clip(low, high) - low) / (high - low) * 255)
    else:
        levels = np.where(values < low, 0.0, np.where(values > high, 255.0, MIDDLE))
    return np.where(np.isnan(values), 0, levels).astype(np.uint8)


def rules_of_files(tables: Iterable[SightingTable], scaling: Mapping[str, ScalingRule]) -> dict[Path, ScalingRule]:
    """Return the rule of each image file whose modality has one."""
    if not scaling:
        return {}
    images = (item for table in tables for sighting in table for item in sighting.images.items())
    rules = {Path(path): rule_of(scaling, modality) for modality, path in images}
    return {path: rule for path, rule in rules.items() if rule is not None}
