"""Distil a ViT-S into a small student on the real CUHK03-NP: `python benchmarks/distillation/run.py [FOLDER]`.

Trains the teacher, a student with it, a student without it for as many epochs, and one without it for as much time;
exports each student to int8; measures all of them; and stores the figures beside this file. Each step whose result is
in FOLDER (runs/distillation) is skipped, and an interrupted training is resumed. Needs ../shared beside the checkout.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
ROOT = SHARED / "data" / "cuhk03-np" / "detected"
WEIGHTS = SHARED / "weights" / "vit_small_patch14_dinov2.fp16.safetensors"
TEACHER = [
    "cuhk03", "--root", str(ROOT), "--weights", str(WEIGHTS), "--preprocessing.size", "98", "42",
    "--schedule.epochs", "3",
]  # fmt: skip
STUDENT = [
    "edge", "--dataset", "cuhk03", "--root", str(ROOT), "--weights", "None", "--model.backbone", "osnet_x0_25",
    "--preprocessing.size", "96", "48", "--augmentation.pad", "4", "--optimizer.lr", "0.002",
    "--schedule.warmup-epochs", "1", "--validation-fraction", "0", "--evaluate-every", "0",
]  # fmt: skip
EPOCHS = 3
LONGER = 3
"""How many times the epochs of the student with a teacher one without it gets for the same time: the ratio of the CPU
seconds of a step, measured on one core."""


def train(folder: Path, words: list[str]) -> None:
    """Train, resume, or skip what is finished."""
    from resight.cli import main as resight

    if (folder / "result.json").exists():
        return
    is_begun = (folder / "last").exists()
    status = resight(["train", "--resume", str(folder)] if is_begun else ["train", *words, "--out", str(folder)])
    if status:
        sys.exit(status)


def measure_int8(model: Path, folder: Path) -> dict[str, Any]:
    """Export a student to int8, calibrated on training images, and evaluate the export."""
    import resight

    split = resight.read_dataset("cuhk03", ROOT)
    if not (folder / "export.json").exists():
        images = [sighting.images["rgb"] for sighting in split.train]
        resight.export(model, folder, "onnx", images[:: len(images) // 256][:256], int8=True)
    exported = resight.load(folder)
    result = resight.evaluate(exported, split).summary()
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    metadata = json.loads((folder / "export.json").read_text())
    return {"mAP": result["mAP"], "R1": result["R1"], "megabytes": megabytes, "cosine": metadata["cosine"]}


def figures(folder: Path) -> dict[str, Any]:
    """Figures, epochs and seconds of training of a run."""
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "seconds" in line]
    summary = {"mAP": result["mAP"], "R1": result["R1"], "epochs": len(epochs)}
    return summary | {"minutes": sum(line["seconds"] for line in epochs) / 60, "last_epoch": epochs[-1]}


def main(folder: str = "runs/distillation") -> None:
    if not ROOT.is_dir() or not WEIGHTS.is_file():
        print(f"skipped: no images and weights in {SHARED}")
        return
    import torch

    from resight.device import processor_kind

    runs = Path(folder)
    train(runs / "teacher", TEACHER)
    students = {
        "with": ["--teacher", str(runs / "teacher" / "best"), "--schedule.epochs", str(EPOCHS)],
        "without": ["--schedule.epochs", str(EPOCHS)],
        "without-longer": ["--schedule.epochs", str(LONGER * EPOCHS)],
    }
    machine = {
        "processor": processor_kind(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    rows = {"teacher": figures(runs / "teacher")}
    for name, options in students.items():
        train(runs / name, [*STUDENT, *options])
        int8 = measure_int8(runs / name / "best", runs / f"{name}-int8")
        rows[name] = figures(runs / name) | {"int8": int8}
        print(f"{name}: mAP {100 * rows[name]['mAP']:.2f} %, in int8 {100 * int8['mAP']:.2f} %", flush=True)
        (HERE / "results.json").write_text(json.dumps({"machine": machine, **rows}, indent=2) + "\n")
    print(f"figures in {HERE / 'results.json'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
