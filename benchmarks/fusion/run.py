"""Compare fusions of modalities on the hard synthetic set: `python benchmarks/fusion/run.py [OPTIONS]`.

Trains what `results.jsonl` does not have yet and prints the table. Needs ../shared beside the checkout.
"""

import argparse
import json
import os
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import torch
from cost import print_cost
from show import show
from trainings import FUSIONS, KINDS, MODALITIES, WEIGHTS, run_training, three_models

from resight.data.subsets import all_subsets
from resight.data.synthetic.synthetic import read_hard

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results.jsonl"
_ALL: Final = "rgb+nir+tir"


def main() -> None:
    """Parse the options, train what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/fusion"), help="of the data set and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--show", metavar="KIND-SEED", help="only print and draw the matrix of a finished run")
    parser.add_argument("--time", action="store_true", help="only measure what the fusions cost in time")
    options = parser.parse_args()
    if options.time:
        print_cost()
        return
    if not WEIGHTS.is_file():
        print(f"skipped: there is no {WEIGHTS}")
        return
    torch.set_num_threads(1)
    split = read_hard(options.folder / "synthetic-hard")
    if options.show:
        show(options.folder / options.show, split, HERE)
        return
    for seed in options.seeds:
        for kind in options.kinds:
            if (kind, seed) not in _results():
                _store(run_training(kind, seed, options.folder, split))
    for seed in options.seeds:
        finished = _results()
        if ("three models", seed) not in finished and all((m, seed) in finished for m in MODALITIES):
            _store(three_models(seed, options.folder, split))
    print_tables()


def _results() -> dict[tuple[str, int], dict[str, Any]]:
    """Read the lines that are stored, by kind and seed."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {(line["kind"], line["seed"]): line for line in map(json.loads, lines)}


def _store(line: dict[str, Any]) -> None:
    """Append a line in one write, so that two processes can share the file."""
    file = os.open(RESULTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)
    complete = line["figures"].get(f"{_ALL} in {_ALL}") or next(iter(line["figures"].values()))
    print(f"{line['kind']} {line['seed']}: mAP {100 * complete[0]:.1f}, R1 {100 * complete[1]:.1f}", flush=True)


def print_tables() -> None:
    """Print three Markdown tables: every run, means of all subsets, and queries alone that lack modalities."""
    results = _results()
    seeds = sorted({seed for _, seed in results})
    kinds = [kind for kind in (*MODALITIES, "three models", "concat", *FUSIONS) if (kind, seeds[0]) in results]
    print("\n| | image passes | processor minutes | " + " | ".join(f"seed {s}" for s in seeds) + " | mean ± spread |")
    print("|---|---|---|" + "---|" * (len(seeds) + 1))
    for kind in kinds:
        lines = [results[kind, seed] for seed in seeds if (kind, seed) in results]
        own = kind if kind in MODALITIES else _ALL
        figures = [line["figures"][f"{own} in {own}"] for line in lines]
        cells = [f"{100 * ap:.1f} / {100 * r1:.1f}" for ap, r1 in figures]
        passes, minutes = (_range([line.get(name) for line in lines]) for name in ("image_passes", "processor_minutes"))
        print(f"| {kind} | {passes} | {minutes} | " + " | ".join(cells) + f" | {_spread([ap for ap, _ in figures])} |")
    columns = [kind for kind in ("three models", *FUSIONS) if kind in kinds]
    _print_missing("query and gallery", columns, lambda subset: f"{subset} in {subset}")
    _print_missing("query alone", columns, lambda subset: f"{subset} in {_ALL}")


def _print_missing(which: str, kinds: list[str], cell: Any) -> None:
    """Print the mAP of each subset beside that of the best single modality in it."""
    print(f"\n| {which} | best single modality that is left | " + " | ".join(kinds) + " |")
    print("|---|---|" + "---|" * len(kinds))
    for subset in all_subsets(MODALITIES):
        singles = {m: _values(m, f"{m} in {m}") for m in subset.split("+")}
        best = max(singles, key=lambda m: mean(singles[m] or [0.0]))
        values = [_values(kind, cell(subset)) for kind in kinds]
        print(f"| {subset} | {best} {_spread(singles[best])} | " + " | ".join(map(_spread, values)) + " |")


def _values(kind: str, cell: str) -> list[float]:
    """The mAP of a cell in every run of a kind that has it."""
    lines = [line for (name, _), line in _results().items() if name == kind]
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
