"""Rules that bring pictures of more than 8 bits, such as those of thermal cameras, to 8 bits. Imports no torch."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Annotated, Final, Literal

from pydantic import AfterValidator

from resight.errors import ConfigError

DEFAULT: Final = "default"
"""Stands for every modality that has no rule of its own."""


def _checked(rule: tuple[str, float, float]) -> tuple[str, float, float]:
    kind, low, high = rule
    if not low < high or not isfinite(high - low):
        raise ValueError(f"the low end must be less than the high end, and {low:g} is not less than {high:g}")
    if kind == "percentiles" and not 0 <= low < high <= 100:
        raise ValueError(f"percentiles are from 0 to 100, not {low:g} and {high:g}")
    return rule


ScalingRule = Annotated[tuple[Literal["percentiles", "limits"], float, float], AfterValidator(_checked)]
"""What becomes black and what becomes white, with 254 equally spaced levels of grey between them: two percentiles of
each picture, such as `("percentiles", 1, 99)`, or two values in the units of the pictures, such as
`("limits", 27315, 31315)` for 0 to 40 degrees Celsius in hundredths of a kelvin."""
Scaling = dict[str, ScalingRule]
"""The rule of each modality, by its name; that of `default` is for all others."""


def rule_of(scaling: Mapping[str, ScalingRule], modality: str | None) -> ScalingRule | None:
    """Return the rule of a modality; None if it has none, so that pictures of more than 8 bits are refused.

    Args:
        scaling: the rules.
        modality: its name; None if it is unknown.
    """
    return scaling.get(modality or DEFAULT, scaling.get(DEFAULT))


def require_modalities(scaling: Mapping[str, ScalingRule], known: Sequence[str]) -> None:
    """Make sure that every rule is for a modality that exists.

    Args:
        scaling: the rules.
        known: names of modalities.

    Raises:
        ConfigError: one is for another modality.
    """
    unknown = [name for name in scaling if name not in known and name != DEFAULT]
    if unknown:
        raise ConfigError(
            f"scaling has a rule for {unknown[0]!r:.60}, and the modalities are {', '.join(known)} ({DEFAULT} for all)"
        )
