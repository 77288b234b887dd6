"""How fast ranking and re-ranking are, against a plain implementation, in one run.

`python benchmarks/retrieval/run.py [CASE ...]`. Cases: market msmt17 million rerank rerank-msmt17; without any, all of
them (a quarter of an hour on 2 cores). Artificial embeddings go to `runs/benchmark-retrieval` (2 GB). Each measurement
has a process of its own, for its peak memory.
"""

import json
import resource  # noqa: F401 (of the processes that main starts)
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parent))
FOLDER = Path("runs") / "benchmark-retrieval"
LABELS = ("query_id", "gallery_id", "query_camera", "gallery_camera")


def read(name, dtype):
    from artificial import make

    folder = make(name, FOLDER, dtype)
    labels = np.load(folder / "labels.npz")
    mode = None if dtype == np.float32 else "r"
    query, gallery = (np.load(folder / f"{side}.npy", mmap_mode=mode) for side in ("query", "gallery"))
    return query, gallery, [labels[name] for name in LABELS]


def rank_keys(labels):
    from resight.retrieval.labels import Labels

    a, b = len(labels[0]), len(labels[1])
    return (
        Labels.of(identity=labels[0], camera=labels[2], picture=np.arange(a)),
        Labels.of(identity=labels[1], camera=labels[3], picture=np.arange(a, a + b)),
    )


def ours(name, dtype=np.float32, runs=3):
    from resight.retrieval.junk import RULES
    from resight.retrieval.metrics import measure
    from resight.retrieval.scores import InnerProducts

    query, gallery, labels = read(name, dtype)
    q, g = rank_keys(labels)
    small = slice(0, 64)  # compiles
    measure(InnerProducts(query[small], gallery[:9000]), q.take(small), g.take(slice(0, 9000)), RULES["none"])
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        metrics = measure(InnerProducts(query, gallery), q, g, RULES["same-camera"])
        seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds), "mAP": metrics.map, "R1": metrics.r1}


def evaluate_plainly(name, kind=None, runs=3):
    import plain

    query, gallery, labels = read(name, np.float32)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        metrics = plain.evaluate(query, gallery, *labels, kind)
        seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds), "mAP": float(metrics[0]), "R1": float(metrics[1])}


def product(name, precision):
    """The floor: the matrix product alone. None for bf16 where that is no faster: there it can take minutes."""
    import torch
    from timing import median_seconds

    from resight.device import DTYPES, bf16_product_is_faster

    if precision == "bf16" and not bf16_product_is_faster():
        return None
    query, gallery, _ = read(name, np.float32)
    a, b = (torch.from_numpy(x).to(DTYPES[precision]) for x in (query, gallery))
    out = torch.empty(len(a), len(b), dtype=DTYPES[precision])
    return {"seconds": median_seconds(lambda: torch.mm(a, b.T, out=out), 3)}


def rerank_ours(name):
    from resight.retrieval.junk import RULES
    from resight.retrieval.metrics import measure
    from resight.retrieval.rerank import rerank
    from resight.retrieval.scores import InnerProducts

    query, gallery, labels = read(name, np.float32)
    rerank(InnerProducts(query[:50], gallery[:200])).rows(slice(0, 50))  # compiles
    started = time.perf_counter()
    metrics = measure(rerank(InnerProducts(query, gallery)), *rank_keys(labels), RULES["same-camera"])
    return {"seconds": time.perf_counter() - started, "mAP": metrics.map, "R1": metrics.r1}


def rerank_plainly(name):
    import plain

    query, gallery, labels = read(name, np.float32)
    started = time.perf_counter()
    metrics = plain.ranked(plain.rerank(query, gallery), *labels)
    return {"seconds": time.perf_counter() - started, "mAP": float(metrics[0]), "R1": float(metrics[1])}


CASES = {  # of each case: what is measured, by what; ratios are to the first
    "market": {
        "plain numpy, argsort": "evaluate_plainly('market')",
        "plain numpy, stable argsort": "evaluate_plainly('market', 'stable')",
        "ours": "ours('market')",
        "float32 product alone": "product('market', 'fp32')",
        "bf16 product alone": "product('market', 'bf16')",
    },
    "msmt17": {"ours": "ours('msmt17')"},
    "million": {"ours, float16 mapped from disk": "ours('million', np.float16, 1)"},
    "rerank": {"plain, N x N matrices": "rerank_plainly('market')", "ours": "rerank_ours('market')"},
    "rerank-msmt17": {"ours": "rerank_ours('msmt17')"},
}


def main(*cases: str) -> None:
    from timing import describe_machine

    sizes = {"market": ("market", np.float32), "rerank": ("market", np.float32), "million": ("million", np.float16)}
    print(describe_machine())
    print(f"{'':46s}{'seconds':>9s}{'peak GB':>9s}{'faster':>8s}{'mAP':>10s}{'R1':>9s}", flush=True)
    for case in cases or CASES:
        read(*sizes.get(case, ("msmt17", np.float32)))  # missing embeddings are written before anything is timed
        first = None
        for label, call in CASES[case].items():
            result = call_in_new_process(call)
            if result is None:
                print(f"{case + ': ' + label:46s}  not measured: bf16 is no faster on this processor", flush=True)
                continue
            first = first or result["seconds"]
            scores = f"{result['mAP']:10.6f}{result['R1']:9.5f}" if "mAP" in result else ""
            measured = f"{result['seconds']:9.2f}{result['gb']:9.2f}{first / result['seconds']:7.1f}x"
            print(f"{case + ': ' + label:46s}{measured}{scores}", flush=True)


def call_in_new_process(call: str):
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import run, json; "
    code += f"r = run.{call.replace('np.', 'run.np.')}; "
    code += "gb = run.resource.getrusage(run.resource.RUSAGE_SELF).ru_maxrss / 2**20; "
    code += "print(json.dumps(r and r | {'gb': gb}))"
    process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
