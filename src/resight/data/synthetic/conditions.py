"""Conditions of the hard synthetic set, in each of which at least one modality shows little of the object.

One condition is drawn for each sighting. Query and gallery sightings of an object are usually taken in different
conditions, so that no single modality is enough, and which modality helps must be decided for each sighting.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

_HEIGHT, _WIDTH = 128, 64  # pixels
_SMOKE = 0.6  # brightness


@dataclass(frozen=True)
class Condition:
    """What a condition does to each modality; a modality that is not named is not changed."""

    fraction: float
    """Fraction of the sightings."""
    darkness: dict[str, float] = field(default_factory=dict)
    """By modality: the fraction of the light that is missing. The noise of the sensor stays."""
    fade: dict[str, float] = field(default_factory=dict)
    """By modality: how far the object looks like the background, from 0 to 1."""
    smoke: dict[str, float] = field(default_factory=dict)
    """By modality: the opacity of the smoke, from 0 to 1."""
    glare: dict[str, float] = field(default_factory=dict)
    """By modality: the brightness of a light that shines into the camera; 1 is white."""


CONDITIONS: Final = {
    "day": Condition(0.15),
    "night": Condition(0.20, darkness={"rgb": 0.95}),
    "glare": Condition(0.10, glare={"rgb": 1.6, "nir": 0.7}),
    "floodlight": Condition(0.10, glare={"nir": 1.6}),
    "camouflage": Condition(0.10, fade={"rgb": 0.85, "nir": 0.7}),
    "cold clothes": Condition(0.25, fade={"tir": 0.85}),
    "smoke": Condition(0.10, smoke={"rgb": 0.9, "nir": 0.8}),
}


def draw_condition(rng: np.random.Generator) -> str:
    """Draw the name of a condition."""
    names = list(CONDITIONS)
    return names[int(rng.choice(len(names), p=[condition.fraction for condition in CONDITIONS.values()]))]


def fade(pixels: np.ndarray, ground: np.ndarray, condition: Condition, modality: str) -> np.ndarray:
    """Let the object look like the background.

    Args:
        pixels: float [H, W, C] in [0, 1], the object before its background.
        ground: float [H, W, C] in [0, 1], the background alone.
        condition: whose `fade` is applied.
        modality: of the image.
    """
    amount = condition.fade.get(modality, 0.0)
    return (1 - amount) * pixels + amount * ground


def expose(light: np.ndarray, condition: Condition, modality: str, glare: tuple[float, float]) -> np.ndarray:
    """Apply darkness, smoke and glare to the light that reaches a camera.

    Args:
        light: float [H, W, C]; 1 is white.
        condition: that is applied.
        modality: of the image.
        glare: column and row of a glare, as fractions of the image.
    """
    opacity = condition.smoke.get(modality, 0.0)
    light = light * (1 - condition.darkness.get(modality, 0.0))
    light = (1 - opacity) * light + opacity * _SMOKE
    brightness = condition.glare.get(modality, 0.0)
    if not brightness:
        return light
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    distance = ((x / _WIDTH - glare[0]) / 0.5) ** 2 + ((y / _HEIGHT - glare[1]) / 0.4) ** 2  # [H, W]
    return light + brightness * np.exp(-distance)[..., None]
