"""Embeddings with their sightings, in memory and in one kind of file.

The file is Parquet: the columns of a table of sightings, any others, `embedding` (a fixed-size list of float32 or
float16), and, where a query and a gallery are apart, `part` (`query`, `gallery` or `both`). Its metadata states what
the embeddings are (`EmbeddingsInfo`).
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resight.config.sections import Section
from resight.data.modalities import aligned, schema_within
from resight.data.sightings import SCHEMA, SightingTable
from resight.errors import DatasetError, EvaluationError
from resight.files import replacing

FORMAT: Final = 2
_KEY: Final = b"resight"
_IN_MEMORY: Final = 1 << 30  # bytes of vectors; more are decoded into a temporary file and mapped
_ROWS: Final = 65_536
_ROW_GROUP: Final = 32 << 20  # bytes


class EmbeddingsInfo(Section):
    """What a file of embeddings states of itself."""

    format: int = FORMAT
    embedding_id: str | None = None
    """Of the embedder that made them; only embeddings of one id can be compared."""
    fusion: str = "concat"
    """How the modalities of a sighting were fused."""
    modalities: tuple[str, ...] = ("rgb",)
    """The model's."""
    dataset: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Embeddings:
    """N sightings and their embeddings."""

    vectors: np.ndarray
    """float32 or float16 [N, E], of unit length; may be memory-mapped."""
    sightings: SightingTable
    """N of them."""
    info: EmbeddingsInfo = field(default_factory=EmbeddingsInfo)


def write_embeddings(path: Path, query: Embeddings, gallery: Embeddings | None = None, half: bool = False) -> None:
    """Writes a file of embeddings, whole or not at all, for its owner only.

    Args:
        path: the file, `.parquet`.
        query: of the queries, or of everything.
        gallery: of what is searched; None, or `query` itself, where it is the same.
        half: write float16 instead of float32.

    Raises:
        StorageError: it cannot be written.
    """
    dtype = np.float16 if half else np.float32
    parts = {"query": query, "gallery": gallery} if gallery is not None and gallery is not query else {"both": query}
    sightings = dict(zip(parts, aligned([items.sightings.arrow for items in parts.values()]), strict=True))
    step = max(1, _ROW_GROUP // max(1, query.vectors[:1].nbytes))

    def tables() -> Iterator[Any]:
        for name, items in parts.items():
            for start in range(0, max(1, len(items.vectors)), step):
                vectors = np.asarray(items.vectors[start : start + step], dtype)
                column = pa.array([name] * len(vectors), pa.string())
                yield embeddings_table(vectors, sightings[name].slice(start, step), {"part": column})

    write_tables(path, tables(), query.info)


def embeddings_table(vectors: np.ndarray, sightings: Any, columns: Mapping[str, Any] | None = None) -> Any:
    """An Arrow table of sightings with further columns and `embedding`."""
    table = sightings
    for name, values in (columns or {}).items():
        table = table.append_column(name, values)
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return table.append_column("embedding", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))


def write_tables(path: Path, tables: Iterable[Any], info: EmbeddingsInfo) -> int:
    """Write a file of embeddings, whole or not at all, from Arrow tables that are read one after another.

    Args:
        path: the file, `.parquet`; only its owner may read it.
        tables: one or more, with the same columns; successive ones are joined into row groups of about 32 MiB.
        info: what the file states.

    Returns:
        the number of rows.

    Raises:
        StorageError: it cannot be written.
    """
    rows = 0
    with replacing(path, private=True) as file, ExitStack() as stack:
        writer: Any = None
        for table in _row_groups(tables):
            schema = table.schema.with_metadata({_KEY: info.model_dump_json().encode()})
            writer = writer or stack.enter_context(pq.ParquetWriter(file, schema, compression="zstd"))
            writer.write_table(table.replace_schema_metadata(schema.metadata))
            rows += table.num_rows
    return rows


def _row_groups(tables: Iterable[Any]) -> Iterator[Any]:
    group, size = list[Any](), 0
    for table in tables:
        group.append(table)
        size += table.nbytes
        if size >= _ROW_GROUP:
            yield pa.concat_tables(group)
            group, size = list[Any](), 0
    if group:
        yield pa.concat_tables(group)


def is_embeddings(path: Path) -> bool:
    """Whether a file is one of embeddings, by its metadata."""
    try:
        return path.is_file() and _KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def read_info(path: Path) -> EmbeddingsInfo:
    """What a file of embeddings states of itself.

    Raises:
        DatasetError: it is no such file, or of another format.
    """
    try:
        schema = pq.read_schema(path)
        stated = (schema.metadata or {})[_KEY]
        number = json.loads(stated).get("format")
        if isinstance(number, int) and number != FORMAT:
            raise DatasetError(
                f"{path} has format {number}, and this version of resight reads {FORMAT}: write it again"
            )
        info = EmbeddingsInfo.model_validate_json(stated)
        column = schema.field("embedding").type
        if not pa.types.is_fixed_size_list(column) or column.value_type not in (pa.float16(), pa.float32()):
            raise DatasetError(
                f"{path} has a column embedding of {column}, not a fixed-size list of float32 or float16"
            )
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read as embeddings: {error}") from error
    except (KeyError, ValueError, AttributeError) as error:  # pydantic's and json's are among them
        raise DatasetError(
            f"{path} is no file of embeddings; write one with resight extract, or resight evaluate --save-embeddings"
        ) from error
    return info


def read_batches(path: Path, rows: int = _ROWS) -> Iterator[tuple[np.ndarray, Any]]:
    """The embeddings, float32 or float16 [n, E], and other columns of a file, some rows at a time.

    Raises:
        DatasetError: it is no such file.
        EvaluationError: a vector has not unit length.
    """
    read_info(path)
    before = 0
    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(rows):
            column = batch.column("embedding")
            if column.null_count or column.flatten().null_count:
                raise EvaluationError(
                    f"{path} has a row without an embedding between rows {before} and {before + len(batch)}"
                )
            vectors = np.asarray(column.flatten()).reshape(len(batch), column.type.list_size)
            length = np.linalg.norm(vectors.astype(np.float32), axis=1)
            wrong = np.flatnonzero(~(np.abs(length - 1) < 0.01))
            if len(wrong):
                raise EvaluationError(
                    f"{path} row {before + wrong[0]} has length {length[wrong[0]]:.3g}; embeddings are compared by "
                    "their inner product and must have length 1: divide each row by its Euclidean norm"
                )
            yield vectors, pa.Table.from_batches([batch.drop_columns(["embedding"])])
            before += batch.num_rows


def read_embeddings(path: Path) -> tuple[Embeddings, Embeddings]:
    """Query and gallery of a file, one object twice where every row is both. More than 1 GiB of vectors is decoded into
    a temporary file and memory-mapped.

    Raises:
        DatasetError: it is no file of embeddings.
        EvaluationError: a vector has not unit length.
    """
    info = read_info(path)
    metadata = pq.read_metadata(path)
    vectors, tables, start = np.zeros((0, 1), np.float32), list[pa.Table](), 0
    for batch, table in read_batches(path):
        if start == 0:
            vectors = _room(metadata.num_rows, batch)
        vectors[start : start + len(batch)] = batch
        tables.append(table)
        start += len(batch)
    if not tables:
        raise DatasetError(f"{path} holds no embeddings")
    columns = pa.concat_tables(tables)
    sightings = SightingTable(_sightings(path, columns))
    parts = columns.column("part").to_pylist() if "part" in columns.column_names else ["both"] * start
    sides = list[Embeddings]()
    for name in ("query", "gallery"):
        rows = [n for n, part in enumerate(parts) if part in (name, "both")]
        if len(rows) == start:
            sides.append(Embeddings(vectors, sightings, info))
        else:
            sides.append(Embeddings(_take(vectors, rows), sightings.take(rows), info))
    return (sides[0], sides[0]) if len(sides[0].vectors) == len(sides[1].vectors) == start else (sides[0], sides[1])


def _sightings(path: Path, columns: Any) -> Any:
    absent = [name for name in SCHEMA.names if name not in columns.column_names]
    if absent:
        raise DatasetError(f"{path} has no column {', '.join(absent)}")
    schema = schema_within(columns.column_names)
    return columns.select(schema.names).cast(schema)


def _room(count: int, like: np.ndarray) -> np.ndarray:
    shape = (count, like.shape[1])
    if count * like[0].nbytes <= _IN_MEMORY:
        return np.empty(shape, like.dtype)
    with tempfile.TemporaryFile() as file:  # the mapping outlives its name
        return np.memmap(file, like.dtype, "w+", shape=shape)


def _take(vectors: np.ndarray, rows: list[int]) -> np.ndarray:
    """Some rows; a view where they follow one another."""
    if rows and rows[-1] - rows[0] + 1 == len(rows):
        return vectors[rows[0] : rows[-1] + 1]
    return vectors[rows]
