"""`FOLDER`: a gallery in a folder, with an index beside it (Qdrant Edge: HNSW over int8) once it is large.

The folder's segments are what counts; the index follows from them. `index.json` says which segments the index has in
it, so that one that was left behind, by a crash or by hand, catches up when the gallery is opened. Where few records
are searched, because there are few or because the filter means few, the exact way is as fast, and is taken.
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
from resight.gallery.engines.segment import RECORDS, Segment
from resight.gallery.record import LABELS, Filter, Near, Record

_BATCH: Final = 2000
_FEW: Final = 2000  # records that a filter means, so few that a product with all of them is as fast
_LINKS, _BUILD = 16, 128  # of HNSW: links of a node, candidates when it is built
_SEARCH, _FILTERED = 512, 1024  # candidates when it is searched; many of those that are met a filter does not mean
_SHARE: Final = 500  # or one in so many records, if that is more: a large gallery has more that are nearly as near
_SEGMENTS: Final = 8  # of the index: what is added or removed has one of them built anew, not all
_AGAIN: Final = 3.0  # times k that int8 finds and the vectors themselves put in order
_INDEX, _APPLIED, _FORMAT = "index", "index.json", 2


class EdgeEngine(FolderEngine):
    """A folder with an index.

    Args:
        path: the gallery's folder.
        exact_under: at most so many records are searched exactly.

    Raises:
        GalleryError: it is no gallery, is damaged, in use, or Qdrant Edge is not installed.
    """

    def __init__(self, path: Path, exact_under: int = EXACT_UNDER) -> None:
        super().__init__(path)
        self.exact_under = exact_under
        self._edge: Any = None
        self._shard: Any = None
        self._loose = 0  # points that came after the index was last put in order
        self._catch_up()

    def add(self, records: Sequence[Record]) -> None:
        """Into the folder, then into the index."""
        old, last = self._numbers(record.id for record in records), self._next_number()
        super().add(records)
        if self._shard is None:
            self._catch_up()
            return
        self._forget(old)
        for segment in self.segments:
            self._put(segment, np.flatnonzero(segment.alive & (segment.numbers >= last)))
        self._applied()

    def name(self, ids: Sequence[str], identity: str | None) -> None:
        """In the folder, then in the index."""
        super().name(ids, identity)
        if self._shard is not None:
            operation = self._edge.UpdateOperation.set_payload(self._numbers(ids), {"identity": identity})
            self._shard.update(operation)
            self._applied()

    def delete(self, ids: Sequence[str]) -> int:
        """Out of the folder, then out of the index."""
        numbers = self._numbers(ids)
        count = super().delete(ids)
        if self._shard is not None:
            self._forget(numbers)
            self._shard.optimize()  # vectors of what is gone leave the disk too
            self._applied()
        return count

    def search(self, vectors: np.ndarray, k: int, where: Filter = EVERYTHING) -> list[list[Near]]:
        """Through the index where many records are meant."""
        if self._shard is None or len(self._place) <= self.exact_under or self._few(where):
            return super().search(vectors, k, where)
        edge = self._edge
        params = edge.SearchParams(
            hnsw_ef=max(_SEARCH if where == EVERYTHING else _FILTERED, len(self._place) // _SHARE, 4 * k),
            quantization=edge.QuantizationSearchParams(rescore=True, oversampling=_AGAIN),
        )
        conditions = self._conditions(where)
        found = list[list[tuple[int, float]]]()
        for vector in np.asarray(vectors, np.float32):
            request = edge.QueryRequest(k, query=edge.Query.Nearest(vector.tolist()), filter=conditions, params=params)
            found.append([(int(point.id), float(point.score)) for point in self._shard.query(request)])
        ids = self._ids(np.unique([number for near in found for number, _ in near]))
        return [[Near(ids[number], score) for number, score in near if number in ids] for near in found]

    def close(self) -> None:
        """Flushes the index first."""
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None
        super().close()

    def _few(self, where: Filter) -> bool:
        return where != EVERYTHING and self.count(where) <= min(_FEW, self.exact_under)

    def _catch_up(self) -> None:
        """Has the index hold what the folder holds; makes it where the gallery has grown to need one."""
        index = self.path / _INDEX
        if not index.exists() and len(self._place) <= self.exact_under:
            return
        self._edge = _edge()
        held = _read_applied(self.path / _APPLIED) if index.exists() else None
        if held is None:  # never finished, or damaged
            shutil.rmtree(index, ignore_errors=True)
        try:
            self._shard = self._create(index) if held is None else self._edge.EdgeShard.load(str(index))
        except Exception as error:
            raise GalleryError(
                f"the index {index} cannot be opened ({error}); delete it, and it is made anew"
            ) from error
        now = self._stamps()
        info = self._shard.info()
        self._loose = info.points_count - info.indexed_vectors_count
        if held == now:
            return
        for segment in self.segments:
            if held is None or held.get(segment.path.name) != now[segment.path.name]:
                self._put(segment, np.flatnonzero(segment.alive))
        if held is not None:
            self._forget(sorted(self._indexed() - set(self._numbers(self._place))))
        self._applied()

    def _create(self, index: Path) -> Any:
        edge = self._edge
        index.mkdir()
        shard = edge.EdgeShard.create(
            str(index),
            edge.EdgeConfig(
                wal_enabled=False,  # the folder is what counts, and a log would remember what is removed
                vectors=edge.EdgeVectorParams(self.info.width, edge.Distance.Dot),
                hnsw_config=edge.HnswIndexConfig(_LINKS, _BUILD, 10_000),
                quantization_config=edge.ScalarQuantizationConfig(edge.ScalarType.Int8),
                optimizers=edge.EdgeOptimizersConfig(
                    deleted_threshold=1e-9, vacuum_min_vector_number=1, default_segment_number=_SEGMENTS
                ),
            ),
        )
        for name in (*LABELS, "tags"):
            shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword))
        shard.update(edge.UpdateOperation.create_field_index("time", edge.PayloadSchemaType.Float))
        return shard

    def _put(self, segment: Segment, rows: np.ndarray) -> None:
        """Upserts some rows of a segment, by their numbers."""
        edge = self._edge
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            labels = {name: segment.table.column(name).take(part).to_pylist() for name in LABELS}
            points = [
                edge.Point(
                    int(segment.numbers[row]),
                    segment.vectors[row].tolist(),
                    {name: values[n] for name, values in labels.items()}
                    | {"time": None if np.isnan(segment.times[row]) else float(segment.times[row])}
                    | {"tags": [json.dumps(pair) for pair in segment.metadata[row].items()]},
                )
                for n, row in enumerate(part.tolist())
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._loose += len(rows)

    def _forget(self, numbers: Sequence[int]) -> None:
        if numbers:
            self._shard.update(self._edge.UpdateOperation.delete_points(list(numbers)))

    def _applied(self) -> None:
        """Puts the index in order where it has grown, and writes down what is in it."""
        if self._loose > max(EXACT_UNDER // 2, len(self._place) // 20):
            self._tidy()
        self._shard.flush()
        write_file(self.path / _APPLIED, json.dumps({"format": _FORMAT, "segments": self._stamps()}))

    def _tidy(self) -> None:
        """Builds what is new into the index."""
        self._shard.optimize()
        self._loose = 0

    def _stamps(self) -> dict[str, int]:
        return {s.path.name: (s.path / RECORDS).stat().st_mtime_ns for s in self.segments}

    def _numbers(self, ids: Iterable[str]) -> list[int]:
        found = [self._place[i] for i in ids if i in self._place]
        return [int(segment.numbers[row]) for segment, row in found]

    def _ids(self, numbers: np.ndarray) -> dict[int, str]:
        """The ids of records by their numbers, those alive alone."""
        found = dict[int, str]()
        for segment in self.segments:
            at = np.minimum(np.searchsorted(segment.numbers, numbers), len(segment) - 1)
            there = (segment.numbers[at] == numbers) & segment.alive[at]
            found |= {int(n): segment.ids[row] for n, row in zip(numbers[there], at[there], strict=True)}
        return found

    def _indexed(self) -> set[int]:
        found, offset = set[int](), None
        while True:
            request = self._edge.ScrollRequest(offset=offset, limit=10_000, with_payload=False, with_vector=False)
            points, offset = self._shard.scroll(request)
            found |= {int(point.id) for point in points}
            if offset is None:
                return found

    def _conditions(self, where: Filter) -> Any:
        edge = self._edge
        must = [
            edge.FieldCondition(name, match=edge.MatchAny(list(getattr(where, name))))
            for name in LABELS
            if getattr(where, name)
        ]
        if where.after is not None or where.before is not None:
            must.append(edge.FieldCondition("time", range=edge.RangeFloat(gte=where.after, lt=where.before)))
        for pair in where.metadata.items():
            must.append(edge.FieldCondition("tags", match=edge.MatchValue(json.dumps(pair))))
        return edge.Filter(must=must) if must else None


def _edge() -> Any:
    try:
        return import_module("qdrant_edge")
    except ImportError as error:
        raise GalleryError(
            "a gallery of this size needs Qdrant Edge: pip install 'qdrant-edge-py==0.9.*', or open it as exact:FOLDER"
        ) from error


def _read_applied(path: Path) -> dict[str, int] | None:
    try:
        held = json.loads(path.read_text())
        return held["segments"] if held["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
