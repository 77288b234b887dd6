"""A gallery as one Parquet file, for other tools, and back."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from resight.errors import DatasetError
from resight.files import replacing
from resight.gallery.engines.contract import Engine
from resight.gallery.record import (
    LABELS,
    GalleryInfo,
    Record,
    images_from_text,
    images_to_text,
    read_gallery_info,
    require_valid,
)

_KEY: Final = b"resight_gallery"
_ROWS: Final = 5000  # in a row group


def write_parquet(engine: Engine, file: Path) -> int:
    """Write every record to a Parquet file that only its owner can read, and return their number.

    Columns: `id`, `identity`, `camera`, `modality`, `tracklet`, `time` (seconds), `images` and `metadata` (JSON),
    `thumbnail` (JPEG), `vector` (float32, a list of fixed size). The log of assignments is not in it.

    Raises:
        StorageError: the file cannot be written.
    """
    schema = _schema(engine.info)
    count = 0
    with replacing(file, private=True) as opened, pq.ParquetWriter(opened, schema, compression="zstd") as writer:
        records = engine.scan()
        while rows := list(islice(records, _ROWS)):
            writer.write_table(_table(rows, schema))
            count += len(rows)
    return count


def read_parquet(engine: Engine, file: Path) -> int:
    """Add every record of a file that `write_parquet` wrote, and return their number.

    Raises:
        DatasetError: it is no such file.
        GalleryError: its embeddings are of another model than the gallery's, or a record is not valid.
    """
    engine.info.require(parquet_info(file).embedding_id, "the file has")
    count = 0
    with _reading(file), pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(_ROWS):
            records = [_record(row) for row in batch.to_pylist()]
            require_valid(records, engine.info.width)
            engine.add(records)
            count += len(records)
    return count


def parquet_info(file: Path) -> GalleryInfo:
    """Return the model whose embeddings a file that `write_parquet` wrote has.

    Raises:
        DatasetError: it is no such file.
    """
    with _reading(file), pq.ParquetFile(file) as opened:
        stated = (opened.schema_arrow.metadata or {}).get(_KEY)
    if stated is None:
        raise DatasetError(f"{file} is no gallery in Parquet: write one with resight gallery to-parquet")
    return read_gallery_info(stated.decode(), str(file))


@contextmanager
def _reading(file: Path) -> Generator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{file} is no gallery in Parquet that can be read ({error})") from error


def _schema(info: GalleryInfo) -> Any:
    texts = [(name, pa.string()) for name in ("id", *LABELS)]
    others = [("time", pa.float64()), ("images", pa.string()), ("metadata", pa.string()), ("thumbnail", pa.binary())]
    columns: Any = [*texts, *others, ("vector", pa.list_(pa.float32(), info.width))]
    return pa.schema(columns, metadata={_KEY: info.model_dump_json().encode()})


def _table(records: list[Record], schema: Any) -> Any:
    columns: dict[str, Any] = {
        name: [getattr(record, name) for record in records] for name in ("id", *LABELS, "time", "thumbnail")
    }
    columns["images"] = [images_to_text(record.images) for record in records]
    columns["metadata"] = [json.dumps(dict(record.metadata)) for record in records]
    flat = pa.array(np.concatenate([record.vector for record in records]), pa.float32())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, len(records[0].vector))
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _record(row: dict[str, Any]) -> Record:
    return Record(
        **{name: row[name] for name in ("id", *LABELS, "time", "thumbnail")},
        images=images_from_text(row["images"]),
        metadata=json.loads(row["metadata"]),
        vector=np.array(row["vector"], np.float32),
    )
