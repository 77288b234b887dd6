"""Names of modalities, and the columns of a table of sightings that state their images.

A modality may have any name. The images of `rgb`, `nir` and `tir` are in columns of these names, those of any other
modality in a column `image:NAME`, so that a table states its modalities without an option.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa

MODALITIES: Final = ("rgb", "nir", "tir")
"""Colour, near-infrared, thermal: the usual modalities, which come first, in this order."""
MAX_MODALITIES: Final = 8
"""Modalities of one table."""
LABELS: Final = ("identity", "camera", "view", "scene", "clothes", "tracklet")
_PREFIX: Final = "image:"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)


def name_fault(modality: object) -> str:
    """Return what keeps a value from being the name of a modality; empty if nothing does."""
    if isinstance(modality, str) and _NAME.fullmatch(modality):
        return ""
    return f"{modality!r:.60} is no name of a modality: 1 to 32 letters, digits, `_`, `-` or `.`"


def count_fault(modalities: Iterable[str]) -> str:
    """Return what is wrong with a number of modalities; empty if nothing is."""
    names = ordered(modalities)
    if len(names) <= MAX_MODALITIES:
        return ""
    return f"{len(names)} modalities ({', '.join(names)}); at most {MAX_MODALITIES} are possible"


def ordered(modalities: Iterable[str]) -> tuple[str, ...]:
    """Return distinct modalities in the order of a table: rgb, nir, tir, then the others by name."""
    names = set(modalities)
    return (*(name for name in MODALITIES if name in names), *sorted(names - set(MODALITIES)))


def image_column(modality: str) -> str:
    """Return the column of a modality's images."""
    return modality if modality in MODALITIES else f"{_PREFIX}{modality}"


def modality_of(column: str) -> str | None:
    """Return the modality whose images a column states; None for a column of anything else."""
    if column in MODALITIES:
        return column
    name = column.removeprefix(_PREFIX)
    return name if name != column and not name_fault(name) and name not in MODALITIES else None


def sightings_schema(modalities: Iterable[str] = ()) -> Any:
    """Return the columns of a table of sightings: rgb, nir, tir, further modalities, the labels, and time."""
    names = (*(image_column(name) for name in ordered({*MODALITIES, *modalities})), *LABELS)
    return pa.schema([(name, pa.string()) for name in names] + [("time", pa.float64())])  # pyright: ignore[reportArgumentType]


def schema_within(columns: Iterable[str]) -> Any:
    """Return the part of a table's columns that is a table of sightings, such as of a file of embeddings."""
    return sightings_schema(name for column in columns if (name := modality_of(column)) is not None)


def aligned(tables: Sequence[Any]) -> list[Any]:
    """Return tables of sightings with the same columns, those of all their modalities; a column is null where it was
    absent."""
    schema = schema_within(column for table in tables for column in table.column_names)
    return [
        pa.table(
            {
                name: table.column(name) if name in table.column_names else pa.nulls(len(table), pa.string())
                for name in schema.names
            },
            schema=schema,
        )
        for table in tables
    ]
