"""The domain's value objects: one sighting, a table of many, and a data set's split into three tables."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from resight.errors import DatasetError
from resight.files import write_file

MODALITIES: Final = ("rgb", "nir", "tir")
"""Colour, near-infrared, thermal: the order in which a batch holds them."""

LABELS: Final = ("identity", "camera", "view", "scene", "clothes", "tracklet")
SCHEMA: Final = pa.schema(
    [(name, pa.string()) for name in (*MODALITIES, *LABELS)] + [("time", pa.float64())]  # pyright: ignore[reportArgumentType]
)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One individual at one moment, in one or more registered pictures.

    Labels are the data set's own names, never renumbered; None means not known.
    """

    images: Mapping[str, Path]
    """Files by modality (`rgb`, `nir`, `tir`); a modality that is absent was not taken."""
    identity: str | None = None
    camera: str | None = None
    view: str | None = None
    time: float | None = None
    """Seconds, on any clock that the data set's cameras share."""
    scene: str | None = None
    clothes: str | None = None
    tracklet: str | None = None


@dataclass(frozen=True)
class SightingTable:
    """Many sightings as an Arrow table; rows keep their order."""

    arrow: pa.Table = field(default_factory=SCHEMA.empty_table)

    @classmethod
    def of(cls, sightings: Iterable[Sighting]) -> "SightingTable":
        """Builds a table from sightings.

        Raises:
            DatasetError: a sighting has no picture, or one of a modality that is not known.
        """
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for row, sighting in enumerate(sightings):
            strange = set(sighting.images) - set(MODALITIES)
            if strange or not sighting.images:
                what = f"unknown modality {sorted(strange)[0]!r}" if strange else "no picture"
                raise DatasetError(f"sighting {row} has {what}; the modalities are {', '.join(MODALITIES)}")
            for name in MODALITIES:
                path = sighting.images.get(name)
                columns[name].append(None if path is None else str(path))
            for name in (*LABELS, "time"):
                columns[name].append(getattr(sighting, name))
        return cls(pa.table(columns, schema=SCHEMA))

    @classmethod
    def read(cls, path: Path) -> "SightingTable":
        """Reads a table written by `write` (Parquet or CSV).

        Raises:
            DatasetError: the file is missing, or is no such table.
        """
        try:
            table = read_arrow(path)
            absent = [name for name in SCHEMA.names if name not in table.column_names]
            if absent:
                raise DatasetError(f"{path} is not a table of sightings: it has no column {', '.join(absent)}")
            return cls(table.select(SCHEMA.names).cast(SCHEMA))
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{path} is not a table of sightings: {error}") from error

    def write(self, path: Path) -> None:
        """Writes the table as Parquet, or as CSV where the name ends in `.csv`, in one step."""
        sink = pa.BufferOutputStream()
        if path.suffix == ".csv":
            pa_csv.write_csv(self.arrow, sink)
        else:
            pq.write_table(self.arrow, sink)
        write_file(path, sink.getvalue().to_pybytes())

    def __len__(self) -> int:
        return self.arrow.num_rows

    def __getitem__(self, row: int) -> Sighting:
        return _sighting(self.arrow.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sighting]:
        for batch in self.arrow.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                yield _sighting(row)

    def column(self, name: str) -> list[Any]:
        """One column as Python values; None where a value is not known."""
        return self.arrow.column(name).to_pylist()

    def values(self, name: str) -> list[str]:
        """The distinct known values of a column, sorted."""
        return sorted(set(self.column(name)) - {None})

    def take(self, rows: Sequence[int]) -> "SightingTable":
        """The given rows, in the given order."""
        return SightingTable(self.arrow.take(pa.array(rows, pa.int64())))

    def of_identities(self, identities: Iterable[str]) -> "SightingTable":
        """The rows of the given identities."""
        wanted = pa.array(sorted(identities), pa.string())
        return SightingTable(self.arrow.filter(pc.is_in(self.arrow.column("identity"), wanted)))  # pyright: ignore[reportAttributeAccessIssue]

    def qualify(self, name: str, columns: Sequence[str]) -> "SightingTable":
        """The table with `name:` before every label of some columns, so that labels of two sets stay apart."""
        arrow = self.arrow
        for column in columns:
            labels = [None if label is None else f"{name}:{label}" for label in self.column(column)]
            arrow = arrow.set_column(arrow.column_names.index(column), column, pa.array(labels, pa.string()))
        return SightingTable(arrow)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in which at least one picture exists, in the order of `MODALITIES`."""
        return tuple(m for m in MODALITIES if self.arrow.column(m).null_count < len(self))

    @property
    def paths(self) -> list[Path]:
        """Every picture file, row by row."""
        return [path for sighting in self for path in sighting.images.values()]


@dataclass(frozen=True, slots=True)
class Split:
    """A data set as it is used: what is learned from, what is asked, and what is searched."""

    name: str
    train: SightingTable
    query: SightingTable
    gallery: SightingTable
    notes: tuple[str, ...] = ()
    """What a user of this data set should be told: its terms, what was left out of it, and why."""
    protocol: str = "market"
    """The name of the protocol that it is measured by (docs/protocols.md)."""

    @property
    def tested(self) -> int:
        """Sightings that an evaluation embeds; where query and gallery are one table, it counts once."""
        return len(self.query) + (0 if self.gallery is self.query else len(self.gallery))


def read_arrow(path: Path) -> pa.Table:  # pyright: ignore[reportUnknownParameterType]
    """Reads a CSV or Parquet file; every CSV column but `time` is text, and an empty cell is not known.

    Raises:
        DatasetError: the file is missing or cannot be read as what its name says.
    """
    if not path.is_file():
        raise DatasetError(f"there is no table at {path}")
    try:
        if path.suffix != ".csv":
            return pq.read_table(path)
        with path.open(newline="") as file:
            names = next(csv.reader(file), [])
        types = {name: pa.float64() if name == "time" else pa.string() for name in names}
        options = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
        return pa_csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as a table: {error}") from error


def _sighting(row: dict[str, Any]) -> Sighting:
    images = {name: Path(row[name]) for name in MODALITIES if row[name] is not None}
    return Sighting(images, **{name: row[name] for name in (*LABELS, "time")})


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split | None]:
    """Keeps a share of the training identities aside: what is left to learn from, and a split that asks each picture
    of those kept aside against all the others (None where the share is 0)."""
    if share == 0:
        return split, None
    identities = split.train.values("identity")
    count = max(1, round(share * len(identities)))
    kept = set(np.random.default_rng(seed).choice(identities, count, replace=False).tolist())
    aside = split.train.of_identities(kept)
    learned = split.train.of_identities(set(identities) - kept)
    return (
        replace(split, train=learned),
        replace(split, name=f"{split.name}, held out", train=learned, query=aside, gallery=aside),
    )
