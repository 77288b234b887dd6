"""`index/`: a gallery's approximate index (Qdrant Edge: HNSW over int8), derived from `gallery.sqlite`.

One process at a time has the index open; others search exactly. `index.json` says which transaction of the database
the index follows, and the checksums of its files as they were last left; while they change it has none. Opening checks
the small files, which loading rewrites; `faults` checks all. The folder can be deleted.
"""

import fcntl
import json
import shutil
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from resight.errors import GalleryError
from resight.files import write_file
from resight.gallery.engines.contract import EVERYTHING, EXACT_UNDER
from resight.gallery.engines.points import edge_conditions
from resight.gallery.engines.sqlite.checksums import FolderChecksums, Sums, boot_id
from resight.gallery.record import LABELS, Filter

INDEX: Final = "index"
STATE: Final = "index.json"
LOCK: Final = "index.lock"
_FORMAT: Final = 3
_BATCH: Final = 2000
_HNSW_LINKS: Final = 16  # of a node
_HNSW_BUILD_CANDIDATES: Final = 128
_CANDIDATES: Final = 512  # of HNSW in a search
_FILTERED_CANDIDATES: Final = 1024  # of HNSW with a filter, which rejects many of them
_RECORDS_PER_CANDIDATE: Final = 500  # a large gallery has more records of nearly equal similarity
_INDEX_SEGMENTS: Final = 8  # adding or removing records rebuilds one of them, not the whole index
_OVERSAMPLING: Final = 3.0  # times k records found with int8 are scored again with the float32 vectors

Row = tuple[int, bytes, tuple[str | None, ...], float | None, dict[str, Any]]
"""Number, vector, labels, time and metadata of a record."""


class Index:
    """The open index of a gallery.

    Args:
        folder: of the gallery.
        width: numbers of a vector.
        gallery_id: of the gallery that the index must belong to.
    """

    def __init__(self, folder: Path, width: int, gallery_id: str) -> None:
        self.path = folder / INDEX
        self._state = folder / STATE
        self._width = width
        self._gallery = gallery_id
        self._edge: Any = None
        self._lock: IO[str] | None = None
        self._shard: Any = None
        self._unindexed = 0  # points that were added after the index was last optimized
        self._checksums = FolderChecksums(self.path)
        self.generation = 0

    @property
    def is_open(self) -> bool:
        """Whether this process has the index."""
        return self._shard is not None

    def open(self) -> bool:
        """Open the index, or create an empty one; False where another process has it.

        An index that cannot be opened, or is of another gallery, is created again.
        """
        lock = (self.path.parent / LOCK).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        self._edge = _import_qdrant_edge()
        state = self.read_state()
        if state is not None and state["files"] is None and state["boot"] != boot_id():
            state = None  # the system stopped while the files changed: what reached the disk is not known
        self._checksums.restore(None if state is None else state["files"])
        clean = state is not None and bool(self._checksums.sums)
        self.generation = 0 if state is None else int(state["generation"])
        try:
            usable = state is not None and not (clean and self._checksums.differing(small=True))
            self._shard = self._edge.EdgeShard.load(str(self.path)) if usable else self._create()
        except Exception:
            self._shard = self._create()
        if clean and self.generation:
            self._shard.flush()
            self._write_state(self.generation, self._checksums.measure())
        counts = self._shard.info()
        self._unindexed = counts.points_count - counts.indexed_vectors_count
        return True

    def read_state(self) -> dict[str, Any] | None:
        """What `index.json` says; None where there is no complete index of this gallery."""
        try:
            state = json.loads(self._state.read_text())
            ours = state["format"] == _FORMAT and state["gallery"] == self._gallery and self.path.is_dir()
            complete = isinstance(state["generation"], int) and {"files", "boot"} <= state.keys()
            return state if ours and complete else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def follow(self, changed: Iterable[Row], removed: Sequence[int], generation: int, count: int) -> None:
        """Bring the index up to a generation of the database.

        Args:
            changed: records that were added or assigned since.
            removed: numbers of records that were removed since; they leave the index's files too.
            generation: of the database.
            count: records in the gallery.
        """
        self._write_state(self.generation)  # without checksums: the files are about to change
        if removed:
            self._shard.update(self._edge.UpdateOperation.delete_points(list(removed)))
        rows = iter(changed)
        while batch := list(islice(rows, _BATCH)):
            self._upsert(batch)
        if removed or self._unindexed > max(EXACT_UNDER // 2, count // 20):
            self._optimize()
        self._shard.flush()
        self.generation = generation
        self._write_state(generation)

    def nearest(self, queries: np.ndarray, k: int, where: Filter, count: int) -> list[list[tuple[float, int]]]:
        """For each query similarity and number of about the k nearest records that match, nearest first."""
        candidates = _CANDIDATES if where == EVERYTHING else _FILTERED_CANDIDATES
        params = self._edge.SearchParams(
            hnsw_ef=max(candidates, count // _RECORDS_PER_CANDIDATE, 4 * k),
            quantization=self._edge.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING),
        )
        matches = edge_conditions(self._edge, where)
        nearest = list[list[tuple[float, int]]]()
        for vector in queries:
            target = self._edge.Query.Nearest(vector.tolist())
            request = self._edge.QueryRequest(k, query=target, filter=matches, params=params)
            points = [(-float(point.score), int(point.id)) for point in self._shard.query(request)]
            nearest.append([(-distance, number) for distance, number in sorted(points)])
        return nearest

    def vectors(self) -> dict[int, np.ndarray]:
        """Every vector in the index, float32 [D], by number."""
        vectors: dict[int, np.ndarray] = {}
        offset = None
        while True:
            request = self._edge.ScrollRequest(offset=offset, limit=_BATCH, with_payload=False, with_vector=True)
            points, offset = self._shard.scroll(request)
            vectors |= {int(point.id): np.array(point.vector, np.float32) for point in points}
            if offset is None:
                return vectors

    def faults(self) -> list[str]:
        """The files that differ from the checksums of when the index was last closed."""
        state = self.read_state()
        if state is None:
            return [f"{self.path} has no readable {STATE}"] if self.path.exists() else []
        if state["files"] is None:  # they have changed since the index was opened
            return []
        return [f"the index file {name} is corrupt" for name in self._checksums.differing()]

    def close(self, store_checksums: bool = True) -> None:
        """Write everything to disk, and let another process have the index."""
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None
            state = self.read_state()
            if store_checksums and state is not None and state["files"] is None:
                self._write_state(self.generation, self._checksums.measure())
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def delete(self) -> None:
        """Delete the index from disk; it is built again when it is needed."""
        self.close(store_checksums=False)
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _create(self) -> Any:
        edge = self._edge
        self.generation = 0
        self._checksums.restore(None)
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(mode=0o700)
        shard = edge.EdgeShard.create(
            str(self.path),
            edge.EdgeConfig(
                wal_enabled=False,  # the index can be rebuilt, and a log would keep removed records
                vectors=edge.EdgeVectorParams(self._width, edge.Distance.Dot),
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

    def _upsert(self, rows: Sequence[Row]) -> None:
        points = [
            self._edge.Point(
                number,
                np.frombuffer(vector, "<f4").tolist(),
                {
                    **dict(zip(LABELS, labels, strict=True)),
                    "time": time,
                    "tags": [json.dumps(pair) for pair in metadata.items()],
                },
            )
            for number, vector, labels, time, metadata in rows
        ]
        self._shard.update(self._edge.UpdateOperation.upsert_points(points))
        self._unindexed += len(points)

    def _optimize(self) -> None:
        """Add new points to the HNSW graph, and drop removed ones from the files."""
        self._shard.optimize()
        self._unindexed = 0

    def _write_state(self, generation: int, files: dict[str, Sums] | None = None) -> None:
        state = {
            "format": _FORMAT,
            "gallery": self._gallery,
            "generation": generation,
            "files": files,
            "boot": boot_id(),
        }
        write_file(self._state, json.dumps(state))


def _import_qdrant_edge() -> Any:
    try:
        return import_module("qdrant_edge")
    except ImportError as error:
        raise GalleryError(
            "a gallery of this size needs Qdrant Edge: pip install 'qdrant-edge-py==0.9.*', or open it as exact:FOLDER"
        ) from error
