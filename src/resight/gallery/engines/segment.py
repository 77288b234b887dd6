"""A segment of a gallery on disk: `vectors.npy` and `records.parquet`, with the same rows."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resight.errors import GalleryError
from resight.files import write_file, write_folder
from resight.gallery.record import LABELS, Filter, Record, Value, images_from_text, images_to_text

_TEXTS = ("id", *LABELS, "images", "metadata")
_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        *((name, pa.string()) for name in _TEXTS),
        ("time", pa.float64()),
        ("thumbnail", pa.binary()),
    ]  # pyright: ignore[reportArgumentType]
)
_ABSENT: Final = -2  # a label number that no record has
_VECTORS, RECORDS = "vectors.npy", "records.parquet"


class Segment:
    """An open segment; thumbnails and vectors are read from disk only when they are needed.

    Args:
        path: the segment's folder.

    Raises:
        GalleryError: the segment is corrupt.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read()
        self.alive = np.ones(len(self.vectors), bool)
        """bool [n]: False for records that a later segment replaces."""

    def read(self) -> None:
        """Read the files, again after they have changed on disk."""
        for name in ("ids", "numbers", "times", "metadata", "_codes", "_tags"):
            self.__dict__.pop(name, None)
        try:
            self.vectors = np.load(self.path / _VECTORS, mmap_mode="r", allow_pickle=False)  # float32 [n, D]
            columns = [name for name in _SCHEMA.names if name != "thumbnail"]
            table = pq.read_table(self.path / RECORDS, columns=columns)
            self.table: pa.Table = table.select(columns).combine_chunks()
        except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
            raise GalleryError(f"the segment {self.path} is corrupt ({error}); restore it from a copy") from error
        if len(self.vectors) != self.table.num_rows:
            raise GalleryError(
                f"the segment {self.path} is corrupt: it has {len(self.vectors)} vectors and {self.table.num_rows} "
                "records; restore it from a copy"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def ids(self) -> list[str]:
        """The ids of the n records."""
        return self.table.column("id").to_pylist()

    @cached_property
    def numbers(self) -> np.ndarray:
        """int64 [n], ascending: the order in which records were added to the gallery."""
        return self.table.column("number").to_numpy()

    @cached_property
    def times(self) -> np.ndarray:
        """float64 [n], in seconds; NaN where unknown."""
        return self.table.column("time").to_numpy(zero_copy_only=False).astype(np.float64)

    @cached_property
    def metadata(self) -> list[dict[str, Value]]:
        """The metadata of the n records."""
        return [json.loads(text) for text in self.table.column("metadata").to_pylist()]

    @cached_property
    def _codes(self) -> dict[str, tuple[np.ndarray, dict[str, int]]]:
        """For each label int64 [n], the numbers of its values (-1 where unknown), and the number of each value."""
        encoded: dict[str, tuple[np.ndarray, dict[str, int]]] = {}
        for name in LABELS:
            column = self.table.column(name).combine_chunks().dictionary_encode()
            codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            encoded[name] = codes, {value: n for n, value in enumerate(column.dictionary.to_pylist())}
        return encoded

    @cached_property
    def _tags(self) -> dict[tuple[str, type, Value], list[int]]:
        """For each metadata field and value the rows that have it; the type keeps 2, 2.0 and true apart."""
        rows: dict[tuple[str, type, Value], list[int]] = {}
        for row, metadata in enumerate(self.metadata):
            for name, value in metadata.items():
                rows.setdefault((name, type(value), value), []).append(row)
        return rows

    def where(self, which: Filter) -> np.ndarray:
        """Return bool [n]: the records that are alive and match a filter."""
        matches = self.alive.copy()
        for name in LABELS:
            if values := getattr(which, name):
                codes, known = self._codes[name]
                has_label = np.zeros(len(codes), bool)
                for value in values:
                    has_label |= codes == known.get(value, _ABSENT)
                matches &= has_label
        if which.after is not None:
            matches &= self.times >= which.after
        if which.before is not None:
            matches &= self.times < which.before
        for name, value in which.metadata.items():
            has_value = np.zeros(len(matches), bool)
            has_value[self._tags.get((name, type(value), value), [])] = True
            matches &= has_value
        return matches

    def records(self, rows: Sequence[int] | np.ndarray) -> list[Record]:
        """Read the records of some rows, with vectors and thumbnails."""
        if not len(rows):
            return []
        thumbnails = (
            pq.read_table(self.path / RECORDS, columns=["thumbnail"]).column(0).take(pa.array(rows)).to_pylist()
        )
        labels = self.table.take(pa.array(rows)).to_pylist()
        return [
            Record(
                id=row["id"],
                vector=np.array(self.vectors[n], np.float32),
                **{name: row[name] for name in (*LABELS, "time")},
                images=images_from_text(row["images"]),
                thumbnail=thumbnail,
                metadata=json.loads(row["metadata"]),
            )
            for n, row, thumbnail in zip(rows, labels, thumbnails, strict=True)
        ]

    def assign(self, rows: np.ndarray, identity: str | None) -> None:
        """Write another identity into some rows; the file is replaced in one step."""
        table = pq.read_table(self.path / RECORDS)
        identities = table.column("identity").to_pylist()
        for row in rows:
            identities[row] = identity
        column = table.schema.get_field_index("identity")
        table = table.set_column(column, "identity", pa.array(identities, pa.string()))
        write_file(self.path / RECORDS, _parquet(table))


def write_segment(path: Path, numbers: np.ndarray, records: Sequence[Record]) -> None:
    """Write a new segment: completely, or not at all.

    Args:
        path: the new segment's folder.
        numbers: int64 [n], ascending.
        records: the n records.

    Raises:
        StorageError: the folder cannot be written.
    """
    columns = {name: [getattr(r, name) for r in records] for name in ("id", *LABELS, "time", "thumbnail")}
    columns["images"] = [images_to_text(r.images) for r in records]
    columns["metadata"] = [json.dumps(dict(r.metadata), sort_keys=True) for r in records]
    table = pa.table({"number": numbers, **columns}, schema=_SCHEMA)
    vectors = np.stack([np.asarray(r.vector, np.float32) for r in records])

    def fill(folder: Path) -> None:
        np.save(folder / _VECTORS, vectors)
        (folder / RECORDS).write_bytes(_parquet(table))

    write_folder(path, fill)


def _parquet(table: pa.Table) -> bytes:  # pyright: ignore[reportUnknownParameterType]
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()
