"""Distil a ViT-S into a small student on the real CUHK03-NP: `python benchmarks/distillation/run.py [BUDGET [FOLDER]]`.

Trains the teacher, a student with it, a student without it for as many epochs, and one without it for as much time;
exports each student to int8; measures all of them; and stores the figures beside this file. Each step whose result is
in FOLDER (runs/distillation-BUDGET) is skipped, and an interrupted training is resumed. Needs ../shared.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
ROOT = SHARED / "data" / "cuhk03-np" / "detected"
WEIGHTS = SHARED / "weights" / "vit_small_patch14_dinov2.fp16.safetensors"
TEACHER = ["cuhk03", "--root", str(ROOT), "--weights", str(WEIGHTS)]
STUDENT = [
    "edge", "--dataset", "cuhk03", "--root", str(ROOT), "--weights", "None", "--preprocessing.size", "96", "48",
    "--augmentation.pad", "4", "--schedule.warmup-epochs", "1", "--validation-fraction", "0", "--evaluate-every", "0",
]  # fmt: skip


class Budget(NamedTuple):
    """How long teacher and students are trained."""

    teacher: tuple[str, ...]
    """Options of the teacher."""
    student: tuple[str, ...]
    """Options of the students."""
    epochs: int
    """Of the students."""
    longer: int
    """How many times the epochs a student without a teacher gets for the same time: about the ratio of the CPU seconds
    of a step with a teacher and without, measured on one core."""


BUDGETS = {
    "short": Budget(
        ("--preprocessing.size", "98", "42", "--schedule.epochs", "3"),
        ("--model.backbone", "osnet_x0_25", "--optimizer.lr", "0.002"),
        epochs=3,
        longer=3,
    ),
    "long": Budget(
        ("--preprocessing.size", "98", "42", "--schedule.epochs", "6", "--sampling.identities", "8"),
        ("--sampling.identities", "8"),
        epochs=8,
        longer=2,
    ),
}


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
        try:
            resight.export(model, folder, "onnx", images[:: len(images) // 256][:256], int8=True)
        except resight.ExportError as error:  # int8 changes the embeddings too much
            return {"refused": str(error)}
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


def main(budget: str = "short", folder: str | None = None) -> None:
    if not ROOT.is_dir() or not WEIGHTS.is_file():
        print(f"skipped: no images and weights in {SHARED}")
        return
    import torch

    from resight.device import processor_kind

    runs = Path(folder or f"runs/distillation-{budget}")
    teacher, student, epochs, longer = BUDGETS[budget]
    train(runs / "teacher", [*TEACHER, *teacher])
    students = {
        "with": ["--teacher", str(runs / "teacher" / "best"), "--schedule.epochs", str(epochs)],
        "without": ["--schedule.epochs", str(epochs)],
        "without-longer": ["--schedule.epochs", str(longer * epochs)],
    }
    machine = {
        "processor": processor_kind(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    rows = {"teacher": figures(runs / "teacher")}
    for name, words in students.items():
        train(runs / name, [*STUDENT, *student, *words])
        int8 = measure_int8(runs / name / "best", runs / f"{name}-int8")
        rows[name] = figures(runs / name) | {"int8": int8}
        print(f"{name}: mAP {rows[name]['mAP']:.4f}, in int8 {int8.get('mAP', 'refused')}", flush=True)
        (HERE / f"results-{budget}.json").write_text(json.dumps({"machine": machine, **rows}, indent=2) + "\n")
    print(f"figures in {HERE / f'results-{budget}.json'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
