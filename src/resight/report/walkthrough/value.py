"""The typed value of a walkthrough, from which every form of it is rendered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Step:
    """A tensor, or a few figures, and what happens there."""

    name: str
    text: str
    """One sentence: what happens there."""
    shape: tuple[int, ...] | None = None
    """As it was measured; None for figures alone."""
    axes: tuple[str, ...] = ()
    """The name of each axis, such as R, T, D; empty where the axes have no names."""
    dtype: str = ""
    content: list[int] | list[float] | list[list[int]] | list[list[float]] | None = None
    """The values, where the tensor is small."""
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Figures by name, such as the value and the weight of a loss."""
    parameters: int = 0
    """Number of parameters of the code that computes it."""
    flops: int = 0
    """Floating point operations for one image, or in a fusion for one sighting; a multiply-add counts as two."""
    gradient: float | None = None
    """The Euclidean norm of the loss's gradient on the tensor; None where no gradient flows."""
    source: str = ""
    """The file, class and method that compute it."""


@dataclass(frozen=True)
class Section:
    """The steps of one part of the way."""

    title: str
    text: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Axis:
    """A letter that shapes use."""

    letter: str
    meaning: str
    size: int


@dataclass(frozen=True)
class Walkthrough:
    """A recipe's walkthrough: one step of training and one evaluation, with random weights, on synthetic images."""

    recipe: str
    backbone: str
    form: str
    """In one sentence, what one row of the batch is."""
    parameters: int
    """Of the complete model."""
    flops: int
    """Of the backbone, for one image; a multiply-add counts as two."""
    axes: tuple[Axis, ...]
    sections: tuple[Section, ...]
    modalities: tuple[str, ...]
    thumbnails: tuple[tuple[bytes | None, ...], ...] = field(default=(), repr=False)
    """PNG files of the training batch, for each sighting one for each modality; None where it is absent."""

    @property
    def steps(self) -> list[Step]:
        """The steps of all sections, in order."""
        return [step for section in self.sections for step in section.steps]

    def step(self, name: str) -> Step:
        """Return the first step of that name.

        Raises:
            KeyError: there is none.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)
