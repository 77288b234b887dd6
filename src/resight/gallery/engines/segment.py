"""A stretch of a gallery on disk: `vectors.npy` and `records.parquet`, the same rows in both."""

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
_NEVER: Final = -2  # a label's number that no record has
_VECTORS, RECORDS = "vectors.npy", "records.parquet"


class Segment:
    """A stretch of a gallery, opened; its thumbnails and vectors stay on disk until they are asked for.

    Args:
        path: its folder.

    Raises:
        GalleryError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read()
        self.alive = np.ones(len(self.vectors), bool)
        """bool [n]: false for records that a later segment has a newer version of."""

    def read(self) -> None:
        """Reads what is on disk, again after it was changed there."""
        for name in ("ids", "numbers", "times", "metadata", "_codes", "_tags"):
            self.__dict__.pop(name, None)
        try:
            self.vectors = np.load(self.path / _VECTORS, mmap_mode="r", allow_pickle=False)  # float32 [n, D]
            held = [name for name in _SCHEMA.names if name != "thumbnail"]
            self.table: pa.Table = pq.read_table(self.path / RECORDS, columns=held).select(held).combine_chunks()
        except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
            raise GalleryError(f"{self.path} is damaged: {error}") from error
        if len(self.vectors) != self.table.num_rows:
            raise GalleryError(
                f"{self.path} is damaged: it has {len(self.vectors)} vectors and {self.table.num_rows} records"
            )

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def ids(self) -> list[str]:
        """Of the n records."""
        return self.table.column("id").to_pylist()

    @cached_property
    def numbers(self) -> np.ndarray:
        """int64 [n], ascending: the order in which records were added to the gallery."""
        return self.table.column("number").to_numpy()

    @cached_property
    def times(self) -> np.ndarray:
        """float64 [n]; NaN where it is not known."""
        return self.table.column("time").to_numpy(zero_copy_only=False).astype(np.float64)

    @cached_property
    def metadata(self) -> list[dict[str, Value]]:
        """Of the n records."""
        return [json.loads(text) for text in self.table.column("metadata").to_pylist()]

    @cached_property
    def _codes(self) -> dict[str, tuple[np.ndarray, dict[str, int]]]:
        """Of each label its values as numbers, -1 where it is not known."""
        found: dict[str, tuple[np.ndarray, dict[str, int]]] = {}
        for name in LABELS:
            column = self.table.column(name).combine_chunks().dictionary_encode()
            codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            found[name] = codes, {value: n for n, value in enumerate(column.dictionary.to_pylist())}
        return found

    @cached_property
    def _tags(self) -> dict[tuple[str, type, Value], list[int]]:
        """Of each field of metadata and value the rows that have it; 2, 2.0 and true are not the same."""
        found: dict[tuple[str, type, Value], list[int]] = {}
        for row, own in enumerate(self.metadata):
            for name, value in own.items():
                found.setdefault((name, type(value), value), []).append(row)
        return found

    def where(self, which: Filter) -> np.ndarray:
        """bool [n]: the records that are alive and that a filter means."""
        kept = self.alive.copy()
        for name in LABELS:
            if wanted := getattr(which, name):
                codes, known = self._codes[name]
                some = np.zeros(len(codes), bool)
                for value in wanted:
                    some |= codes == known.get(value, _NEVER)
                kept &= some
        if which.after is not None:
            kept &= self.times >= which.after
        if which.before is not None:
            kept &= self.times < which.before
        for name, value in which.metadata.items():
            some = np.zeros(len(kept), bool)
            some[self._tags.get((name, type(value), value), [])] = True
            kept &= some
        return kept

    def records(self, rows: Sequence[int] | np.ndarray) -> list[Record]:
        """The records of some rows, whole."""
        if not len(rows):
            return []
        thumbnails = (
            pq.read_table(self.path / RECORDS, columns=["thumbnail"]).column(0).take(pa.array(rows)).to_pylist()
        )
        held = self.table.take(pa.array(rows)).to_pylist()
        return [
            Record(
                id=row["id"],
                vector=np.array(self.vectors[n], np.float32),
                **{name: row[name] for name in (*LABELS, "time")},
                images=images_from_text(row["images"]),
                thumbnail=thumbnail,
                metadata=json.loads(row["metadata"]),
            )
            for n, row, thumbnail in zip(rows, held, thumbnails, strict=True)
        ]

    def name(self, rows: np.ndarray, identity: str | None) -> None:
        """Writes another identity into some rows, in one step on disk."""
        table = pq.read_table(self.path / RECORDS)
        identities = table.column("identity").to_pylist()
        for row in rows:
            identities[row] = identity
        at = table.schema.get_field_index("identity")
        table = table.set_column(at, "identity", pa.array(identities, pa.string()))
        write_file(self.path / RECORDS, _parquet(table))


def write_segment(path: Path, numbers: np.ndarray, records: Sequence[Record]) -> None:
    """Writes a new segment, whole or not at all.

    Raises:
        StorageError: it cannot be written.
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
