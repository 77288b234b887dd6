"""Compare fusions of modalities on the hard synthetic set: `python benchmarks/fusion/run.py [OPTIONS]`.

Trains what the file of results does not have yet, resumes what was interrupted, and prints the tables. Needs ../shared
beside the checkout.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import torch
from cost import print_cost
from show import show
from trainings import COMPLETE, CROSS, FUSIONS, KINDS, MODALITIES, PASSES, SIDE, WEIGHTS, run_training, three_models

from resight.data.subsets import all_subsets
from resight.data.synthetic.synthetic import read_hard

HERE: Final = Path(__file__).parent
_ALL: Final = "rgb+nir+tir"

Results = dict[tuple[str, int], dict[str, Any]]


def main() -> None:
    """Parse the options, train what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/fusion"), help="of the data set and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--passes", type=int, default=PASSES, help="image passes of each training")
    parser.add_argument("--threads", type=int, default=1, help="of torch: cores of one training")
    parser.add_argument("--show", metavar="KIND-SEED", help="only print and draw the matrix of a finished run")
    parser.add_argument("--time", action="store_true", help="only measure what the fusions cost in time")
    options = parser.parse_args()
    if options.time:
        print_cost()
        return
    if not WEIGHTS.is_file():
        print(f"skipped: there is no {WEIGHTS}")
        return
    torch.set_num_threads(options.threads)
    split = read_hard(options.folder / "synthetic-hard")
    runs = options.folder / str(options.passes)
    if options.show:
        show(runs / options.show, split, HERE)
        return
    results = HERE / f"results-{options.passes}.jsonl"
    for seed in options.seeds:
        for kind in options.kinds:
            if (kind, seed) not in _read(results):
                _store(results, run_training(kind, seed, runs, split, options.passes))
    for seed in options.seeds:
        finished = _read(results)
        trained = all((m, seed) in finished and (runs / f"{m}-{seed}" / "best").exists() for m in MODALITIES)
        if ("three models", seed) not in finished and trained:
            _store(results, three_models(seed, runs, split))
    print_tables(_read(results))


def _read(file: Path) -> Results:
    """Read the lines that are stored, by kind and seed."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {(line["kind"], line["seed"]): line for line in map(json.loads, lines)}


def _store(results: Path, line: dict[str, Any]) -> None:
    """Append a line in one write, so that two processes can share the file."""
    file = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)
    complete = line["figures"].get(f"{_ALL} in {_ALL}") or next(iter(line["figures"].values()))
    print(f"{line['kind']} {line['seed']}: mAP {100 * complete[0]:.1f}, R1 {100 * complete[1]:.1f}", flush=True)


def print_tables(results: Results) -> None:
    """Print three Markdown tables: every run, means of all subsets, and queries alone that lack modalities."""
    seeds = sorted({seed for _, seed in results})
    finished = {kind for kind, _ in results}
    kinds = [kind for kind in (*MODALITIES, "three models", COMPLETE, *FUSIONS, SIDE, CROSS) if kind in finished]
    print("\n| | image passes | processor minutes | " + " | ".join(f"seed {s}" for s in seeds) + " | mean ± spread |")
    print("|---|---|---|" + "---|" * (len(seeds) + 1))
    for kind in kinds:
        lines = [results[kind, seed] for seed in seeds if (kind, seed) in results]
        own = kind if kind in MODALITIES else _ALL
        figures = [line["figures"][f"{own} in {own}"] for line in lines]
        by_seed = {
            line["seed"]: f"{100 * ap:.1f} / {100 * r1:.1f}" for line, (ap, r1) in zip(lines, figures, strict=True)
        }
        cells = [by_seed.get(seed, "") for seed in seeds]
        passes, minutes = (_range([line.get(name) for line in lines]) for name in ("image_passes", "processor_minutes"))
        print(f"| {kind} | {passes} | {minutes} | " + " | ".join(cells) + f" | {_spread([ap for ap, _ in figures])} |")
    columns = [kind for kind in ("three models", *FUSIONS, SIDE, CROSS) if kind in kinds]
    _print_missing(results, "query and gallery", columns, lambda subset: f"{subset} in {subset}")
    _print_missing(results, "query alone", columns, lambda subset: f"{subset} in {_ALL}")


def _print_missing(results: Results, which: str, kinds: list[str], cell: Callable[[str], str]) -> None:
    """Print the mAP of each subset beside that of the best single modality in it."""
    print(f"\n| {which} | best single modality that is left | " + " | ".join(kinds) + " |")
    print("|---|---|" + "---|" * len(kinds))
    for subset in all_subsets(MODALITIES):
        singles = {m: _values(results, m, f"{m} in {m}") for m in subset.split("+")}
        best = max(singles, key=lambda m: mean(singles[m] or [0.0]))
        values = [_values(results, kind, cell(subset)) for kind in kinds]
        print(f"| {subset} | {best} {_spread(singles[best])} | " + " | ".join(map(_spread, values)) + " |")


def _values(results: Results, kind: str, cell: str) -> list[float]:
    """The mAP of a cell in every run of a kind that has it."""
    lines = [line for (name, _), line in results.items() if name == kind]
    return [line["figures"][cell][0] for line in lines if cell in line["figures"]]


def _spread(values: list[float]) -> str:
    """Mean and standard deviation in percent."""
    percent = [100 * value for value in values]
    if not percent:
        return ""
    return f"{mean(percent):.1f} ± {stdev(percent):.1f}" if len(percent) > 1 else f"{percent[0]:.1f}"


def _range(values: list[Any]) -> str:
    given = [value for value in values if value is not None]
    return f"{min(given):,} to {max(given):,}" if given else ""


if __name__ == "__main__":
    main()
