"""`FOLDER`: a gallery in a folder, with an index (Qdrant Edge: HNSW over int8) once it is large.

The index is derived from the folder's segments. `index.json` lists the segments that the index contains, so that an
index that is out of date, after a crash or because files were copied, is updated when the gallery is opened. A search
among few records, because the gallery is small or few records match the filter, is exact: that is as fast.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from resight.errors import GalleryError
from resight.files import write_file
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.folder import FolderEngine
from resight.gallery.engines.points import edge_conditions
from resight.gallery.engines.segment import RECORDS, Segment
from resight.gallery.record import LABELS, Filter, Hit, Record

_BATCH: Final = 2000
_FEW_MATCHES: Final = 2000  # a product with so few records is as fast as the index
_HNSW_LINKS: Final = 16  # of a node
_HNSW_BUILD_CANDIDATES: Final = 128
_CANDIDATES: Final = 512  # of HNSW in a search
_FILTERED_CANDIDATES: Final = 1024  # of HNSW with a filter, which rejects many of them
_RECORDS_PER_CANDIDATE: Final = 500  # a large gallery has more records of nearly equal similarity
_INDEX_SEGMENTS: Final = 8  # adding or removing records rebuilds one of them, not the whole index
_OVERSAMPLING: Final = 3.0  # times k records found with int8 are scored again with the float32 vectors
_INDEX: Final = "index"
_INDEX_STATE: Final = "index.json"
_FORMAT: Final = 2


class EdgeEngine(FolderEngine):
    """A gallery in a folder, with an index.

    Args:
        path: the gallery's folder.
        exact_under: searches are exact, and no index is built, while the gallery has at most this many records.

    Raises:
        GalleryError: the folder is no gallery, is corrupt or in use, or Qdrant Edge is not installed.
    """

    def __init__(self, path: Path, exact_under: int = EXACT_UNDER) -> None:
        super().__init__(path)
        self.exact_under = exact_under
        self._edge: Any = None
        self._shard: Any = None
        self._unindexed = 0  # points that were added after the index was last optimized
        self._catch_up()

    def add(self, records: Sequence[Record]) -> None:
        """Write the records into the folder, then into the index."""
        replaced = self._numbers(record.id for record in records)
        first_number = self._next_number()
        super().add(records)
        if self._shard is None:
            self._catch_up()
            return
        self._delete_points(replaced)
        for segment in self.segments:
            self._put(segment, np.flatnonzero(segment.alive & (segment.numbers >= first_number)))
        self._write_state()

    def assign(self, ids: Sequence[str], identity: str | None) -> None:
        """Write the identity into the folder, then into the index."""
        super().assign(ids, identity)
        if self._shard is not None:
            operation = self._edge.UpdateOperation.set_payload(self._numbers(ids), {"identity": identity})
            self._shard.update(operation)
            self._write_state()

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the records from the folder, then from the index."""
        numbers = self._numbers(ids)
        count = super().delete(ids)
        if self._shard is not None:
            self._delete_points(numbers)
            self._shard.optimize()  # removes the deleted vectors from the disk too
            self._write_state()
        return count

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Hit]]:
        """Search exactly, or through the index if many records match the filter."""
        if self._shard is None or len(self._positions) <= self.exact_under or self._few(where):
            return super().search(vectors, k, where)
        edge = self._edge
        candidates = _CANDIDATES if where == EVERYTHING else _FILTERED_CANDIDATES
        params = edge.SearchParams(
            hnsw_ef=max(candidates, len(self._positions) // _RECORDS_PER_CANDIDATE, 4 * k),
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
        )
        conditions = edge_conditions(edge, where)
        matches = list[list[tuple[int, float]]]()  # for each query: number and similarity
        for vector in np.asarray(vectors, np.float32):
            request = edge.QueryRequest(k, query=edge.Query.Nearest(vector.tolist()), filter=conditions, params=params)
            matches.append([(int(point.id), float(point.score)) for point in self._shard.query(request)])
        ids = self._ids(np.unique([number for row in matches for number, _ in row]))
        return [[Hit(ids[number], score) for number, score in row if number in ids] for row in matches]

    def close(self) -> None:
        """Flush the index, and release the lock."""
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None
        super().close()

    def _few(self, where: Filter) -> bool:
        return where != EVERYTHING and self.count(where) <= min(_FEW_MATCHES, self.exact_under)

    def _catch_up(self) -> None:
        """Update the index to the records of the folder; create it if the gallery has grown large enough."""
        index = self.path / _INDEX
        if not index.exists() and len(self._positions) <= self.exact_under:
            return
        self._edge = _import_qdrant_edge()
        indexed = _read_state(self.path / _INDEX_STATE) if index.exists() else None
        if indexed is None:  # there is no index, or it is incomplete or corrupt
            shutil.rmtree(index, ignore_errors=True)
        try:
            self._shard = self._create(index) if indexed is None else self._edge.EdgeShard.load(str(index))
        except Exception as error:
            raise GalleryError(
                f"the index {index} cannot be opened ({error}); delete the folder, and it is rebuilt"
            ) from error
        current = self._modification_times()
        info = self._shard.info()
        self._unindexed = info.points_count - info.indexed_vectors_count
        if indexed == current:
            return
        for segment in self.segments:
            if indexed is None or indexed.get(segment.path.name) != current[segment.path.name]:
                self._put(segment, np.flatnonzero(segment.alive))
        if indexed is not None:
            self._delete_points(sorted(self._indexed() - set(self._numbers(self._positions))))
        self._write_state()

    def _create(self, index: Path) -> Any:
        edge = self._edge
        index.mkdir()
        shard = edge.EdgeShard.create(
            str(index),
            edge.EdgeConfig(
                wal_enabled=False,  # the index can be rebuilt, and a log would keep removed records
                vectors=edge.EdgeVectorParams(self.info.width, edge.Distance.Dot),
                hnsw_config=edge.HnswIndexConfig(_HNSW_LINKS, _HNSW_BUILD_CANDIDATES, 10_000),
                quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8),
                optimizers=edge.EdgeOptimizersConfig(
                    deleted_threshold=1e-9, vacuum_min_vector_number=1, default_segment_number=_INDEX_SEGMENTS
                ),
            ),
        )
        for name in (*LABELS, "tags"):
            shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword))
        shard.update(edge.UpdateOperation.create_field_index("time", edge.PayloadSchemaType.Float))
        return shard

    def _put(self, segment: Segment, rows: np.ndarray) -> None:
        """Upsert rows of a segment; a point's id is the record's number."""
        edge = self._edge
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            labels = {name: segment.table.column(name).take(batch).to_pylist() for name in LABELS}
            points = [
                edge.Point(
                    int(segment.numbers[row]),
                    segment.vectors[row].tolist(),
                    {name: values[n] for name, values in labels.items()}
                    | {"time": None if np.isnan(segment.times[row]) else float(segment.times[row])}
                    | {"tags": [json.dumps(pair) for pair in segment.metadata[row].items()]},
                )
                for n, row in enumerate(batch.tolist())
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._unindexed += len(rows)

    def _delete_points(self, numbers: Sequence[int]) -> None:
        if numbers:
            self._shard.update(self._edge.UpdateOperation.delete_points(list(numbers)))

    def _write_state(self) -> None:
        """Optimize the index if it has grown, flush it, and write `index.json`."""
        if self._unindexed > max(EXACT_UNDER // 2, len(self._positions) // 20):
            self._optimize()
        self._shard.flush()
        write_file(self.path / _INDEX_STATE, json.dumps({"format": _FORMAT, "segments": self._modification_times()}))

    def _optimize(self) -> None:
        """Add new points to the HNSW graph."""
        self._shard.optimize()
        self._unindexed = 0

    def _modification_times(self) -> dict[str, int]:
        return {segment.path.name: (segment.path / RECORDS).stat().st_mtime_ns for segment in self.segments}

    def _numbers(self, ids: Iterable[str]) -> list[int]:
        positions = [self._positions[record_id] for record_id in ids if record_id in self._positions]
        return [int(segment.numbers[row]) for segment, row in positions]

    def _ids(self, numbers: np.ndarray) -> dict[int, str]:
        """The ids of records by their numbers; numbers of removed records are left out."""
        ids = dict[int, str]()
        for segment in self.segments:
            rows = np.minimum(np.searchsorted(segment.numbers, numbers), len(segment) - 1)
            present = (segment.numbers[rows] == numbers) & segment.alive[rows]
            ids |= {int(n): segment.ids[row] for n, row in zip(numbers[present], rows[present], strict=True)}
        return ids

    def _indexed(self) -> set[int]:
        """The numbers of all records in the index."""
        numbers = set[int]()
        offset = None
        while True:
            request = self._edge.ScrollRequest(offset=offset, limit=10_000, with_payload=False, with_vector=False)
            points, offset = self._shard.scroll(request)
            numbers |= {int(point.id) for point in points}
            if offset is None:
                return numbers


def _import_qdrant_edge() -> Any:
    try:
        return import_module("qdrant_edge")
    except ImportError as error:
        raise GalleryError(
            "a gallery of this size needs Qdrant Edge: pip install 'qdrant-edge-py==0.9.*', or open it as exact:FOLDER"
        ) from error


def _read_state(path: Path) -> dict[str, int] | None:
    try:
        state = json.loads(path.read_text())
        return state["segments"] if state["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
