"""Paint persons and vehicles: the same shapes in every modality, with an appearance of each part in each modality.

The constant properties of an object are its `Traits`. A part's `Material` has a colour, a near-infrared reflectance and
a temperature, which are drawn independently. So each modality shows what the others hide: two shirts of the same colour
differ in near-infrared, and a bag of the shirt's colour is cold in thermal.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

Tone = tuple[int, int, int]
Box = tuple[float, float, float, float]
Shape = Callable[..., None]
"""Paints a part with the corners x0, y0, x1, y1, as fractions of the object's box."""


@dataclass(frozen=True)
class Material:
    """The appearance of a part in each modality; every value is in [0, 1]."""

    colour: tuple[float, float, float]
    nir: float
    heat: float

    def tone(self, modality: str) -> Tone:
        """Return the colour in one modality, as 8-bit RGB."""
        if modality == "rgb":
            r, g, b = (round(255 * c) for c in self.colour)
            return r, g, b
        grey = round(255 * (self.nir if modality == "nir" else self.heat))
        return grey, grey, grey


@dataclass(frozen=True)
class Traits:
    """The constant properties of an object."""

    vehicle: bool
    build: tuple[float, float]
    """Factors on width and height."""
    parts: dict[str, Material]
    stripes: int
    """Number of stripes on the torso or body."""
    upright: bool
    """Whether the stripes are vertical."""
    load: str
    """`none`, `left`, `right` or `top`: a bag, a backpack, or a vehicle's roof box."""
    lights: int
    """Shape of a vehicle's lights, or of a person's reflective band."""


@dataclass(frozen=True)
class Pose:
    """Position and size of the object in one sighting, as fractions of the image."""

    left: float
    top: float
    width: float
    height: float
    swing: float
    """Of arms and legs, from -1 to 1."""
    mirrored: bool


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw the traits of a new object."""
    vehicle = bool(rng.random() < 0.4)
    names = ("body", "cabin", "window", "wheel") if vehicle else ("torso", "legs", "hair", "skin", "shoes")
    parts = {name: _material(rng) for name in names}
    if vehicle:
        parts["window"] = Material((0.12, 0.14, 0.18), parts["window"].nir * 0.3, parts["window"].heat * 0.5)
        parts["wheel"] = Material((0.06, 0.06, 0.07), 0.1, 0.4 + 0.6 * parts["wheel"].heat)
    else:
        brown = rng.uniform(0.25, 0.9)
        parts["skin"] = Material((brown, brown * 0.75, brown * 0.6), rng.uniform(0.5, 0.9), rng.uniform(0.8, 1.0))
    main = parts["body" if vehicle else "torso"]
    hidden = _material(rng)
    # Half of all stripes and loads have the colour of the part below them: only other modalities show them
    parts["stripe"] = Material(main.colour if rng.random() < 0.5 else hidden.colour, 1 - round(main.nir), main.heat)
    parts["load"] = Material(
        main.colour if rng.random() < 0.5 else _material(rng).colour, hidden.nir, rng.uniform(0, 0.3)
    )
    parts["light"] = Material((1.0, 0.85, 0.5), 1.0, rng.uniform(0.3, 1.0))
    return Traits(
        vehicle,
        (rng.uniform(0.75, 1.2), rng.uniform(0.85, 1.08)),
        parts,
        int(rng.choice([0, 2, 3, 5])),
        bool(rng.random() < 0.5),
        str(rng.choice(["none", "left", "right", "top"])),
        int(rng.integers(0, 3)),
    )


def paint(draw: ImageDraw.ImageDraw, traits: Traits, pose: Pose, modality: str) -> None:
    """Paint an object into an image."""
    width, height = draw.im.size
    w = pose.width * traits.build[0]
    h = pose.height * traits.build[1]

    def place(x0: float, y0: float, x1: float, y1: float) -> Box:
        if pose.mirrored:
            x0, x1 = 1 - x1, 1 - x0
        x, y = pose.left + pose.width / 2 - w / 2, pose.top + pose.height - h
        return (x + x0 * w) * width, (y + y0 * h) * height, (x + x1 * w) * width, (y + y1 * h) * height

    def box(part: str, x0: float, y0: float, x1: float, y1: float, round_by: float = 0.02) -> None:
        draw.rounded_rectangle(place(x0, y0, x1, y1), round_by * width, fill=traits.parts[part].tone(modality))

    def disc(part: str, x0: float, y0: float, x1: float, y1: float) -> None:
        draw.ellipse(place(x0, y0, x1, y1), fill=traits.parts[part].tone(modality))

    (_paint_vehicle if traits.vehicle else _paint_person)(traits, pose.swing, box, disc)


def _paint_person(traits: Traits, swing: float, box: Shape, disc: Shape) -> None:
    if traits.load == "top":
        box("load", 0.18, 0.2, 0.82, 0.5, round_by=0.06)  # a backpack shows at both sides
    for side, sign in ((0.3, 1), (0.54, -1)):
        box("legs", side + 0.05 * swing * sign, 0.5, side + 0.16 + 0.05 * swing * sign, 0.95)
        box("shoes", side + 0.07 * swing * sign, 0.94, side + 0.2 + 0.07 * swing * sign, 1.0)
    for left, sign in ((0.12, 1), (0.76, -1)):
        box("torso", left + 0.04 * swing * sign, 0.19, left + 0.12 + 0.04 * swing * sign, 0.45)
        disc("skin", left + 0.05 * swing * sign, 0.44, left + 0.11 + 0.05 * swing * sign, 0.5)
    box("torso", 0.24, 0.17, 0.76, 0.54, round_by=0.05)
    _paint_stripes(traits, (0.24, 0.2, 0.76, 0.52), box)
    if traits.lights:
        box("light", 0.24, 0.3 + 0.08 * traits.lights, 0.76, 0.32 + 0.08 * traits.lights, round_by=0)
    if traits.load in ("left", "right"):
        x = 0.02 if traits.load == "left" else 0.7
        box("load", x, 0.4, x + 0.28, 0.6)
    disc("skin", 0.36, 0.0, 0.64, 0.18)
    disc("hair", 0.35, -0.02, 0.65, 0.09)


def _paint_vehicle(traits: Traits, swing: float, box: Shape, disc: Shape) -> None:
    for left in (0.06, 0.76):
        box("wheel", left, 0.86, left + 0.18, 1.0)
    if traits.load == "top":
        box("load", 0.25, 0.2, 0.75, 0.32)
    box("cabin", 0.14, 0.3, 0.86, 0.62, round_by=0.08)
    box("window", 0.2, 0.36, 0.8, 0.58, round_by=0.05)
    box("body", 0.0, 0.56, 1.0, 0.92, round_by=0.06)
    _paint_stripes(traits, (0.04, 0.62, 0.96, 0.88), box)
    for left in (0.03, 0.83):
        if traits.lights == 0:
            disc("light", left, 0.64, left + 0.14, 0.72)
        else:
            box("light", left, 0.62, left + 0.14, 0.64 + 0.07 * traits.lights, round_by=0)
    if traits.load in ("left", "right"):
        x = 0.1 if traits.load == "left" else 0.6
        box("load", x + 0.02 * swing, 0.74, x + 0.3 + 0.02 * swing, 0.9)


def _paint_stripes(traits: Traits, area: Box, box: Shape) -> None:
    x0, y0, x1, y1 = area
    for i in range(traits.stripes):
        a, b = (i + 0.3) / traits.stripes, (i + 0.7) / traits.stripes
        if traits.upright:
            box("stripe", x0 + a * (x1 - x0), y0, x0 + b * (x1 - x0), y1, round_by=0)
        else:
            box("stripe", x0, y0 + a * (y1 - y0), x1, y0 + b * (y1 - y0), round_by=0)


def _material(rng: np.random.Generator) -> Material:
    colour = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 1.0), rng.uniform(0.15, 1.0))
    return Material(colour, rng.uniform(0.1, 0.95), rng.uniform(0.2, 0.8))
