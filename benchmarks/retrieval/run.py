"""How fast ranking and re-ranking are, against the plain way, in one run.

`python benchmarks/retrieval/run.py [CASE ...]`. Cases: market msmt17 million rerank rerank-msmt17; without any, all of
them (a quarter of an hour on 2 cores). Made-up embeddings go to `runs/benchmark-retrieval` (2 GB). Each measurement has
a process of its own, for its peak memory.
"""

import json
import platform
import resource  # noqa: F401 (of the processes that main starts)
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
MADE = Path("runs") / "benchmark-retrieval"
LABELS = ("query_id", "gallery_id", "query_camera", "gallery_camera")


def read(name, dtype):
    from made import make

    folder = make(name, MADE, dtype)
    labels = np.load(folder / "labels.npz")
    mode = None if dtype == np.float32 else "r"
    query, gallery = (np.load(folder / f"{side}.npy", mmap_mode=mode) for side in ("query", "gallery"))
    return query, gallery, [labels[name] for name in LABELS]


def keys(labels):
    from resight.retrieval.keys import Keys

    a, b = len(labels[0]), len(labels[1])
    return (
        Keys.of(identity=labels[0], camera=labels[2], picture=np.arange(a)),
        Keys.of(identity=labels[1], camera=labels[3], picture=np.arange(a, a + b)),
    )


def ours(name, dtype=np.float32, runs=3):
    from resight.retrieval.metrics import measure
    from resight.retrieval.rules import RULES
    from resight.retrieval.scores import InnerProducts

    query, gallery, labels = read(name, dtype)
    q, g = keys(labels)
    small = slice(0, 64)  # compiles
    measure(InnerProducts(query[small], gallery[:9000]), q.take(small), g.take(slice(0, 9000)), RULES["none"])
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        found = measure(InnerProducts(query, gallery), q, g, RULES["same-camera"])
        seconds.append(time.perf_counter() - began)
    return {"seconds": median(seconds), "mAP": found.map, "R1": found.r1}


def plainly(name, kind=None, runs=3):
    import plain

    query, gallery, labels = read(name, np.float32)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        found = plain.evaluate(query, gallery, *labels, kind)
        seconds.append(time.perf_counter() - began)
    return {"seconds": median(seconds), "mAP": float(found[0]), "R1": float(found[1])}


def products(name):
    """The floor: the matrix product alone, in float32 and in bf16."""
    import torch

    query, gallery, _ = read(name, np.float32)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.from_numpy(x).to(dtype) for x in (query, gallery))
        out, seconds = torch.empty(len(a), len(b), dtype=dtype), []
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(a, b.T, out=out)
            seconds.append(time.perf_counter() - began)
        found[str(dtype).removeprefix("torch.")] = median(seconds[1:])
    return {"seconds": found["bfloat16"], "float32 product": found["float32"]}


def reranked(name):
    from resight.retrieval.metrics import measure
    from resight.retrieval.rerank import rerank
    from resight.retrieval.rules import RULES
    from resight.retrieval.scores import InnerProducts

    query, gallery, labels = read(name, np.float32)
    rerank(InnerProducts(query[:50], gallery[:200])).rows(slice(0, 50))  # compiles
    began = time.perf_counter()
    found = measure(rerank(InnerProducts(query, gallery)), *keys(labels), RULES["same-camera"])
    return {"seconds": time.perf_counter() - began, "mAP": found.map, "R1": found.r1}


def plainly_reranked(name):
    import plain

    query, gallery, labels = read(name, np.float32)
    began = time.perf_counter()
    found = plain.ranked(plain.rerank(query, gallery), *labels)
    return {"seconds": time.perf_counter() - began, "mAP": float(found[0]), "R1": float(found[1])}


CASES = {  # of each case: what is measured, by what; ratios are to the first
    "market": {
        "plain numpy, argsort": "plainly('market')",
        "plain numpy, stable argsort": "plainly('market', 'stable')",
        "ours": "ours('market')",
        "bf16 product alone": "products('market')",
    },
    "msmt17": {"ours": "ours('msmt17')"},
    "million": {"ours, float16 mapped from disk": "ours('million', np.float16, 1)"},
    "rerank": {"plain, N x N matrices": "plainly_reranked('market')", "ours": "reranked('market')"},
    "rerank-msmt17": {"ours": "reranked('msmt17')"},
}


def main(*cases: str) -> None:
    made = {"market": ("market", np.float32), "rerank": ("market", np.float32), "million": ("million", np.float16)}
    print(f"{platform.machine()}, {time.strftime('%Y-%m-%d')}")
    print(f"{'':46s}{'seconds':>9s}{'peak GB':>9s}{'faster':>8s}{'mAP':>10s}{'R1':>9s}")
    for case in cases or CASES:
        read(*made.get(case, ("msmt17", np.float32)))  # what is not there is made before anything is timed
        first = None
        for label, call in CASES[case].items():
            code = f"import run, json; r = run.{call.replace('np.', 'run.np.')}; "
            code += "print(json.dumps(r | {'gb': run.resource.getrusage(run.resource.RUSAGE_SELF).ru_maxrss / 2**20}))"
            done = subprocess.run(
                [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r}); {code}"],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found["seconds"]
            scores = f"{found['mAP']:10.6f}{found['R1']:9.5f}" if "mAP" in found else ""
            measured = f"{found['seconds']:9.2f}{found['gb']:9.2f}{first / found['seconds']:7.1f}x"
            print(f"{case + ': ' + label:46s}{measured}{scores}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
