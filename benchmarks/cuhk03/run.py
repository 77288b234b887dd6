"""Train a recipe on the real CUHK03-NP and store its curve here: `python benchmarks/cuhk03/run.py cuhk03 [OPTIONS]`.

Needs ../shared beside the checkout; takes half an hour of two cores and more.
"""

import json
import platform
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
ROOT = SHARED / "data" / "cuhk03-np" / "detected"
WEIGHTS = SHARED / "weights" / "vit_small_patch14_dinov2.fp16.safetensors"


def main(recipe: str, *options: str) -> None:
    if not ROOT.is_dir() or not WEIGHTS.is_file():
        print(f"skipped: no images and weights in {SHARED}")
        return
    import torch

    from resight.cli import main as resight

    out = Path("runs") / f"benchmark-{recipe}"
    started = time.time()
    status = resight(["train", recipe, "--root", str(ROOT), "--weights", str(WEIGHTS), "--out", str(out), *options])
    if status:
        sys.exit(status)
    minutes = (time.time() - started) / 60
    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    result = json.loads((out / "result.json").read_text()) | {
        "per_query": None,
        "minutes": round(minutes, 1),
        "options": options,
    }
    lines = (out / "metrics.jsonl").read_text() + json.dumps(result | machine) + "\n"
    (HERE / f"{recipe}.jsonl").write_text(lines)
    print(f"{minutes:.1f} minutes; curve in {HERE / (recipe + '.jsonl')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
