"""Training on this machine, ours against a plain implementation, in one run.

`python benchmarks/training/run.py [--models tiny vit-s vit-b] [--strides 16 12] [--jpm both|on|off] [--batch-size 32]
[--steps 5] [--precision auto fp32 bf16]`. Prints the rate of matrix products (the floor that shares are of), the data
path, and one row for each case and precision.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
from measure import (
    Case,
    Measurement,
    ModelName,
    in_new_process,
    measure_data,
    measure_ours,
    measure_plain,
    paint,
    product_rate,
)
from timing import describe_machine

from resight.config.sections import ResolvedPrecision
from resight.device import best_precision

IMAGE_COUNT = 256
DATA_SOURCES = ((64, 128), (1280, 720))  # width and height of image files
PRODUCT_ROWS = 4128  # tokens of 32 images of 256x128
_TINY = (16, True)  # stride and JPM of the demo's network
_COLUMNS = ("images/s", "ratio", "data s", "model s", "of floor", "peak GB", "steps")


@dataclass(frozen=True)
class Options:
    """Measure training on this machine against a plain implementation of it."""

    models: tuple[ModelName, ...] = ("vit-s", "vit-b")
    """Networks; `tiny` is the demo's, at its own stride, with JPM."""
    strides: tuple[int, ...] = (16, 12)
    """Of the patches of vit-s and vit-b."""
    jpm: Literal["both", "on", "off"] = "both"
    """With JPM, without, or both."""
    batch_size: int = 32
    """Sightings of a batch, a multiple of 4; one of `tiny` has three images."""
    steps: int = 5
    """Steps that are measured for each row; fewer where they take longer than a minute."""
    precision: tuple[Literal["auto", "fp32", "bf16"], ...] = ("auto",)
    """A row for each. One that `auto` resolves to is measured once and printed for both."""


def main(arguments: list[str]) -> None:
    options = tyro.cli(Options, prog="benchmarks/training/run.py", args=arguments)
    if options.batch_size % 4 or options.batch_size < 8:
        sys.exit(f"--batch-size must be a multiple of 4, and 8 or more, not {options.batch_size}")
    if options.steps < 1:
        sys.exit(f"--steps must be 1 or more, not {options.steps}")
    print(describe_machine())
    with TemporaryDirectory() as folder:
        os.environ.setdefault("RESIGHT_CACHE", folder)  # nothing stays in the user's cache
        measure(options, Path(folder))


def measure(options: Options, folder: Path) -> None:
    """Print the three tables; image files and packed pixels go to `folder`."""
    rows = {name: resolve(name) for name in options.precision}
    floors = {
        precision: in_new_process(product_rate, precision, PRODUCT_ROWS) for precision in dict.fromkeys(rows.values())
    }
    for precision, floor in floors.items():
        print(f"{precision} matrix products: {floor / 1e12:.3g} TFLOP/s, the floor of the rows in {precision}")
    print("\nData path, one core, from the second epoch on, 256x128 out, images/s")
    for source in DATA_SOURCES:
        rates = in_new_process(measure_data, source, IMAGE_COUNT)
        plain, ours = rates["plain"], rates["ours"]
        print(f"  {f'{source[0]}x{source[1]} files':20s}plain {plain:8.0f}  ours {ours:8.0f}  {ours / plain:5.1f}x")
    print(f"\nTraining, batches of {options.batch_size} sightings")
    print(f"{'':28s}{'':20s}" + "".join(f"{column:>10s}" for column in _COLUMNS), flush=True)
    paths = paint(folder, IMAGE_COUNT, (64, 128))
    for case in cases(options):
        measure_case(case, rows, floors, paths, options.steps)


def resolve(precision: Literal["auto", "fp32", "bf16"]) -> ResolvedPrecision:
    """Resolve `auto` once, here: each row is measured in a process of its own, and all must agree."""
    return best_precision(torch.device("cpu"), training=True) if precision == "auto" else precision


def cases(options: Options) -> Iterator[Case]:
    jpm_options = {"both": (False, True), "on": (True,), "off": (False,)}[options.jpm]
    for model in options.models:
        if model == "tiny":
            yield Case(model, *_TINY, options.batch_size)
            continue
        for stride in options.strides:
            for jpm in jpm_options:
                yield Case(model, stride, jpm, options.batch_size)


def measure_case(
    case: Case,
    rows: dict[str, ResolvedPrecision],
    floors: dict[ResolvedPrecision, float],
    paths: list[Path],
    steps: int,
) -> None:
    """Print the plain row and one for each precision."""
    plain = in_new_process(measure_plain, case, paths, steps)
    print_row(str(case), "plain, fp32", plain, plain, None)
    measured = dict[ResolvedPrecision, Measurement]()
    for name, precision in rows.items():
        if precision not in measured:
            measured[precision] = in_new_process(measure_ours, case, precision, paths, steps)
        label = f"ours, {name}" + (f" ({measured[precision].precision})" if name == "auto" else "")
        print_row(str(case), label, measured[precision], plain, floors[precision])


def print_row(case: str, label: str, row: Measurement, plain: Measurement, floor: float | None) -> None:
    share = f"{100 * row.flops_per_second / floor:.0f} %" if floor and row.flops_per_second else ""
    cells = (
        f"{row.images_per_second:.4g}",
        f"{row.images_per_second / plain.images_per_second:.2f}",
        f"{row.data_seconds:.3f}",
        f"{row.model_seconds:.3f}",
        share,
        f"{row.peak_gb:.2f}",
        str(row.steps),
    )
    print(f"{case:28s}{label:20s}" + "".join(f"{cell:>10s}" for cell in cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
