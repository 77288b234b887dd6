"""Subsets of modalities: which modalities a sighting has, as a name such as `rgb+tir`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from resight.data.sightings import SightingTable


def subset_name(present: Iterable[str], modalities: Sequence[str]) -> str:
    """Return the name of a subset: the modalities that are present, in the model's order, joined by `+`."""
    names = set(present)
    return "+".join(modality for modality in modalities if modality in names)


def all_subsets(modalities: Sequence[str]) -> list[str]:
    """Return the names of all subsets but the empty one, small ones first: 2**M - 1 of M modalities."""
    sizes = range(1, len(modalities) + 1)
    return ["+".join(names) for size in sizes for names in combinations(modalities, size)]


def reduce_to(table: SightingTable, subset: str) -> SightingTable:
    """Return the sightings that have every modality of a subset, with these images alone."""
    names = subset.split("+")
    return SightingTable.of(
        replace(sighting, images={name: sighting.images[name] for name in names})
        for sighting in table
        if all(name in sighting.images for name in names)
    )
