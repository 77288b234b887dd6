"""The letters of shapes, with the sizes that were measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from resight.report.walkthrough.value import Axis, Section, Step

MEANINGS: Final = {
    "B": "sightings of the batch",
    "M": "modalities",
    "R": "images that are present",
    "S": "rows of BNNeck: images, in a fusion before and after the attention",
    "H": "height in pixels",
    "W": "width in pixels",
    "N": "patches of an image",
    "T": "tokens of an image: patches and class token",
    "D": "numbers of a token and of a feature",
    "h": "heads of the attention",
    "d": "numbers of a token in one head",
    "F": "numbers of a token inside the MLP",
    "J": "local features of an image (JPM)",
    "L": "tokens of a group of patches",
    "A": "width of the attention between modalities",
    "C": "identities of the training set",
    "Q": "queries",
    "G": "sightings of the gallery",
    "E": "numbers of an embedding",
}


def measured_axes(steps: Sequence[Step]) -> tuple[Axis, ...]:
    """Return each letter that the steps use, with the size that it has where it is used first."""
    sizes: dict[str, int] = {}
    for name, size in _named(steps):
        if name in MEANINGS:
            sizes.setdefault(name, size)
        elif name == "J R":
            sizes.setdefault("J", size // sizes["R"])
    return tuple(Axis(letter, meaning, sizes[letter]) for letter, meaning in MEANINGS.items() if letter in sizes)


def consistent(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return sections in which a letter has one size: an axis with another size loses its letter.

    The width of a token grows from stage to stage in some networks.
    """
    axes = measured_axes([step for section in sections for step in section.steps])
    sizes = {axis.letter: axis.size for axis in axes}

    def clean(step: Step) -> Step:
        named = zip(step.axes, step.shape or (), strict=False)
        return replace(step, axes=tuple("" if sizes.get(name, size) != size else name for name, size in named))

    return tuple(replace(section, steps=tuple(map(clean, section.steps))) for section in sections)


def _named(steps: Sequence[Step]) -> list[tuple[str, int]]:
    return [axis for step in steps for axis in zip(step.axes, step.shape or (), strict=False)]
