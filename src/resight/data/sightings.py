"""Sightings, tables of sightings, and the split of a data set into three tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from resight.data import modalities as naming
from resight.data.modalities import LABELS
from resight.data.modalities import MODALITIES as MODALITIES
from resight.data.readers.arrow import plain_column, read_arrow
from resight.errors import ConfigError, DatasetError
from resight.files import write_file

MAX_TIME: Final = 1e15
"""Seconds; a larger number is no time."""
SCHEMA: Final = naming.sightings_schema()
"""The columns that every table of sightings has."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object at one moment, in one or more registered images.

    Labels are the names that the data set uses; None where unknown.
    """

    images: Mapping[str, Path]
    """Image files by modality: `rgb`, `nir`, `tir`, or any other name."""
    identity: str | None = None
    camera: str | None = None
    view: str | None = None
    time: float | None = None
    """Seconds, on a clock that all cameras of the data set share."""
    scene: str | None = None
    clothes: str | None = None
    tracklet: str | None = None


@dataclass(frozen=True)
class SightingTable:
    """N sightings as an Arrow table, in a fixed order: a column of image files for each modality, labels, and time.

    The columns of modalities are named as `resight.data.modalities` says: `rgb`, `nir`, `tir`, `image:NAME`.
    """

    arrow: pa.Table = field(default_factory=SCHEMA.empty_table)

    @classmethod
    def of(cls, sightings: Iterable[Sighting]) -> "SightingTable":
        """Build a table from sightings.

        Raises:
            DatasetError: a sighting has no image, an image that is no file, a modality that is no name, a label that is
                no text, or a time that is no finite number; or there are more than eight modalities.
        """
        rows = list(sightings)
        for row, sighting in enumerate(rows):
            fault = _fault(sighting)
            if fault:
                raise DatasetError(f"sighting {row} has {fault}")
        modalities = {name for sighting in rows for name in sighting.images}
        if fault := naming.count_fault(modalities):
            raise DatasetError(f"the sightings have {fault}")
        schema = naming.sightings_schema(modalities)
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        images = {column: name for column in schema.names if (name := naming.modality_of(column)) is not None}
        for sighting in rows:
            for column, name in images.items():
                columns[column].append(_text(sighting.images.get(name)))
            for name in LABELS:
                columns[name].append(_text(getattr(sighting, name)))
            columns["time"].append(None if sighting.time is None else float(sighting.time))
        return cls(pa.table(columns, schema=schema))

    @classmethod
    def read(cls, path: Path) -> "SightingTable":
        """Read a table that `write` wrote (Parquet or CSV).

        Raises:
            DatasetError: the file does not exist, or is no table of sightings.
        """
        table = read_arrow(path)
        absent = [name for name in SCHEMA.names if name not in table.column_names]
        if absent:
            raise DatasetError(f"{path} is not a table of sightings: it has no column {', '.join(absent)}")
        schema = naming.schema_within(table.column_names)
        columns = {name: plain_column(table.column(name), name, path) for name in schema.names}
        return cls(pa.table(columns, schema=schema))

    def write(self, path: Path) -> None:
        """Write the table as Parquet, or as CSV if the name ends in `.csv`, in one step.

        Raises:
            StorageError: the file cannot be written.
        """
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
        """Return a column as Python values; None where unknown."""
        return self.arrow.column(name).to_pylist()

    def values(self, name: str) -> list[str]:
        """Return the distinct known values of a column, sorted."""
        return sorted(set(self.column(name)) - {None})

    def take(self, rows: Sequence[int]) -> "SightingTable":
        """Return the table of some rows, in the given order."""
        return SightingTable(self.arrow.take(pa.array(rows, pa.int64())))

    def of_identities(self, identities: Iterable[str]) -> "SightingTable":
        """Return the table of the rows of some identities."""
        labels = pa.array(sorted(identities), pa.string())
        return SightingTable(self.arrow.filter(pc.is_in(self.arrow.column("identity"), labels)))  # pyright: ignore[reportAttributeAccessIssue]

    def qualify(self, name: str, columns: Sequence[str]) -> "SightingTable":
        """Return the table with `name:` before every label of some columns, so that those of two data sets differ."""
        arrow = self.arrow
        for column in columns:
            labels = [None if label is None else f"{name}:{label}" for label in self.column(column)]
            arrow = arrow.set_column(arrow.column_names.index(column), column, pa.array(labels, pa.string()))
        return SightingTable(arrow)

    def files(self, modality: str) -> Any:
        """Return the image files of a modality as an Arrow column of texts [N]; null where there is none."""
        column = naming.image_column(modality)
        absent = column not in self.arrow.column_names
        return pa.chunked_array([pa.nulls(len(self), pa.string())]) if absent else self.arrow.column(column)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that at least one sighting has: rgb, nir, tir, then others by name."""
        names = [name for column in self.arrow.column_names if (name := naming.modality_of(column)) is not None]
        return naming.ordered(name for name in names if self.files(name).null_count < len(self))

    @property
    def paths(self) -> list[Path]:
        """All image files, row by row."""
        return [path for sighting in self for path in sighting.images.values()]


@dataclass(frozen=True, slots=True)
class Split:
    """The parts of a data set: training set, queries and gallery."""

    name: str
    train: SightingTable
    query: SightingTable
    gallery: SightingTable
    notes: tuple[str, ...] = ()
    """Remarks for a user of the data set: its terms, and what was left out and why."""
    protocol: str = "market"
    """The name of its evaluation protocol (docs/protocols.md)."""

    @property
    def tested(self) -> int:
        """The number of sightings that an evaluation embeds; one table for query and gallery counts once."""
        return len(self.query) + (0 if self.gallery is self.query else len(self.gallery))


def _fault(sighting: Sighting) -> str:
    """What keeps a sighting from being a row of a table; empty if nothing does."""
    images: Any = sighting.images
    if not isinstance(images, Mapping) or not images:
        return "no picture"
    fault = next((fault for name in images if (fault := naming.name_fault(name))), "")
    if fault:
        return f"a picture of a modality, and {fault}"
    for name, path in images.items():
        if not isinstance(path, str | Path):
            return f"a {name} image that is no file, but of type {type(path).__name__}"
    for name in LABELS:
        label = getattr(sighting, name)
        if not (label is None or isinstance(label, str)):
            return f"the {name} {label!r:.60}; a label is a text, or None where it is unknown"
    time: Any = sighting.time
    is_number = isinstance(time, int | float | np.integer | np.floating) and not isinstance(time, bool)
    if not (time is None or (is_number and abs(time) < MAX_TIME)):
        return f"the time {time!r:.60}; a time is a finite number of seconds, or None where it is unknown"
    return ""


def _text(value: Any) -> Any:
    """As UTF-8. Other bytes in the name of a file are escaped; decoding then reports that it does not exist."""
    text = str(value) if isinstance(value, Path) else value
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


def _sighting(row: dict[str, Any]) -> Sighting:
    images = {
        name: Path(path)
        for column, path in row.items()
        if path is not None and (name := naming.modality_of(column)) is not None
    }
    return Sighting(images, **{name: row[name] for name in (*LABELS, "time")})


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split | None]:
    """Hold out a fraction of the training identities for validation.

    Args:
        split: the data set.
        fraction: of the training identities.
        seed: of the draw.

    Returns:
        the data set without the held-out identities in its training set; and the validation split, which searches each
        held-out image among the others (None if the fraction is 0).

    Raises:
        ConfigError: no identity is left for training.
    """
    if fraction == 0:
        return split, None
    identities = split.train.values("identity")
    count = max(1, round(fraction * len(identities)))
    if count >= len(identities):
        raise ConfigError(
            f"validation_fraction {fraction:g} leaves no identity for training: the training set has {len(identities)}"
        )
    validation = set(np.random.default_rng(seed).choice(identities, count, replace=False).tolist())
    held_out = split.train.of_identities(validation)  # words: ok
    train = split.train.of_identities(set(identities) - validation)
    return (
        replace(split, train=train),
        replace(split, name=f"{split.name}, held out", train=train, query=held_out, gallery=held_out),
    )
