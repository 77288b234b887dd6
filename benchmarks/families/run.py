"""Every family of published weights through every verb: converted, embedded, exported, searched and fine-tuned.

`python benchmarks/families/run.py [CASE ...] [--identities N]`. The weights are those of ../shared/golden/weights and
tests/golden: random ones that anyone can make again, with the names, shapes and wrappers of the published files. So the
gallery's and the training's figures say that the steps run, not how good a family is. The images are those of
../shared/data/vehicles-2cam; each identity has one of each of two cameras.
"""

import argparse
import csv
import gc
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.extend(str(ROOT / part) for part in ("benchmarks", "tests", "tests/models"))
DATA = ROOT.parent / "shared" / "data" / "vehicles-2cam"
REFERENCE = "market_transreid_stride12_sie_jpm"
BATCH = {"identities": 4, "instances": 2}
EPOCHS = 2


@dataclass
class Row:
    """What one family did; a step that was not reached is empty."""

    case: str
    family: str = ""
    backbone: str = ""
    embedded: str = ""
    exported: str = ""
    """The greatest difference of a number of the exported file's embeddings to the model's."""
    top1: str = ""
    losses: str = ""
    seconds: float = 0.0
    error: str = ""


def write_tables(folder: Path, identities: int) -> tuple[Path, list[tuple[str, Path, Path]]]:
    """Write a table of training and test images; also return the tested vehicles with their two images."""
    files = {file.name: file for file in (DATA / "images").rglob("*.jpg")}
    tested = list[tuple[str, Path, Path]]()
    with (folder / "vehicles.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "identity", "camera", "split"))
        for part in ("train", "test"):
            listed = (DATA / f"{part}.txt").read_text().split()
            vehicles = sorted({name.rpartition("_cam")[0] for name in listed})
            pairs = ((name, [files.get(f"{name}_cam{camera}.jpg") for camera in (1, 2)]) for name in vehicles)
            for name, (first, second) in islice(((n, pair) for n, pair in pairs if None not in pair), identities):
                writer.writerows((image, name, camera, part) for camera, image in (("1", first), ("2", second)))
                if part == "test":
                    tested.append((name, first, second))
    return folder / "vehicles.csv", tested


def convert(case: str, folder: Path, row: Row) -> Path:
    """Convert the case's checkpoint to a model folder."""
    import resight

    if case == REFERENCE:
        import golden_cases

        golden = golden_cases.load(case)
        torch.save(golden.state, folder / "published.pth")
        conversion = resight.convert_checkpoint(folder / "published.pth", golden.options)
        row.family = "the reference's TransReID"
    else:
        import published_cases

        published = published_cases.load(case)
        published.save(folder / "published.pth")
        conversion = resight.convert_checkpoint(folder / "published.pth", size=tuple(published.spec["size"]))
        row.family = conversion.notes[0].removeprefix("read as a checkpoint of ")
    (folder / "published.pth").unlink()
    conversion.write(folder / "model")
    height, width = conversion.card.preprocessing.size
    row.backbone = f"{conversion.card.model.backbone} {height}x{width}"
    return folder / "model"


def export_difference(embedder, folder: Path, images: list[Path]) -> str:
    """Export to ONNX, and compare the embeddings of the same images by both, number by number."""
    import resight
    from resight.inference.runtime import load as load_runtime

    resight.export(embedder, folder / "onnx", "onnx", images)
    exported = load_runtime(folder / "onnx").embed(images)
    shutil.rmtree(folder / "onnx")
    return f"{np.abs(exported - embedder.embed(images)).max():.1e}"


def search(embedder, folder: Path, tested: list[tuple[str, Path, Path]]) -> str:
    """Put the images of camera 1 into a gallery, and search those of camera 2."""
    import resight

    sightings = [resight.Sighting({"rgb": first}, identity=vehicle, camera="1") for vehicle, first, _ in tested]
    with resight.create_gallery(folder / "gallery", embedder) as gallery:
        gallery.ingest(resight.SightingTable.of(sightings))
        answers = gallery.search([second for _, _, second in tested], k=1, camera="2")
    right = sum(answer[0].record.identity == vehicle for answer, (vehicle, _, _) in zip(answers, tested, strict=True))
    return f"{right} of {len(tested)}"


def fine_tune(embedder, folder: Path, table: Path, image: Path) -> str:
    """Train from the converted folder for two epochs; return the loss of each."""
    import resight
    from resight.config.recipes import own, vary

    card = embedder.card
    run = vary(
        own(), root=table, weights=str(embedder.folder), out=folder / "run", device="cpu", precision="fp32",
        validation_fraction=0.0, evaluate_every=0, cache=False,
        model=card.model.changed(sie=("camera",) if card.model.sie else ()), preprocessing=card.preprocessing,
        sampling=BATCH, optimizer={"lr": 1e-4}, schedule={"epochs": EPOCHS, "warmup_epochs": 0},
    )  # fmt: skip
    resight.train(run)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == EPOCHS, losses
    assert np.isfinite(losses).all(), losses
    again = resight.load(folder / "run" / "best", "cpu", "fp32")
    assert np.isfinite(again.embed(image)).all()
    return " ".join(f"{loss:.2f}" for loss in losses)


def measure(case: str, table: Path, tested: list[tuple[str, Path, Path]]) -> Row:
    """Take one family through all steps; the first that fails is named."""
    import resight

    row, started = Row(case), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=table.parent) as name:
        folder = Path(name)
        try:
            embedder = resight.load(convert(case, folder, row), "cpu", "fp32")
            images = [first for _, first, _ in tested]
            vectors = embedder.embed(images)
            assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
            row.embedded = f"{vectors.shape[1]} wide"
            row.exported = export_difference(embedder, folder, images)
            row.top1 = search(embedder, folder, tested)
            row.losses = fine_tune(embedder, folder, table, images[0])
        except Exception as error:  # whatever fails is a row of the table
            row.error = f"{type(error).__name__}: {error}".replace("\n", " ")
    row.seconds = time.perf_counter() - started
    gc.collect()
    return row


def markdown(row: Row) -> str:
    if row.error:
        return f"| {row.case} | {row.family} | {row.backbone} | {row.error} |"
    cells = (row.embedded, row.exported, row.top1, row.losses, f"{row.seconds:.0f}")
    return " | ".join(("| " + row.family, f"`{row.case}`", row.backbone, *cells)) + " |"


def main(arguments: list[str] | None = None) -> int:
    import published_cases
    from timing import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names of cases; all without one")
    parser.add_argument("--identities", type=int, default=8, help="vehicles of training, and as many of test")
    options = parser.parse_args(arguments)
    known = [REFERENCE, *published_cases.NAMES]
    if not DATA.exists() or len(known) == 1:
        print(f"this needs {DATA} and {published_cases.FOLDER}", file=sys.stderr)
        return 1
    unknown = [case for case in options.cases if case not in known]
    if unknown:
        parser.error(f"there is no case {unknown[0]}; known are: {', '.join(known)}")
    print(describe_machine(), flush=True)
    print("| family | case | backbone and size | embedded | exported: worst difference | top-1 | losses | seconds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        table, tested = write_tables(Path(name), options.identities)
        for case in options.cases or known:
            row = measure(case, table, tested)
            failed += bool(row.error)
            print(markdown(row), flush=True)
    print(f"{failed} of {len(options.cases or known)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
