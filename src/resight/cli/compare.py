"""`resight compare`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from resight.cli.parsing import parse, print_rows
from resight.errors import EvaluationError


@dataclass(frozen=True)
class Compare:
    """Compare two runs on the same queries: the difference, its 95 % interval, and whether it could be chance."""

    first: Positional[Path]
    """What `resight evaluate --json` wrote, or a run's folder."""
    second: Positional[Path]
    """The one to compare with it."""
    seed: int = 0
    """Of the bootstrap over query identities."""


def run(arguments: list[str]) -> None:
    """Prints mAP and R1 of both, and their difference."""
    options = parse(Compare, arguments, "resight compare")
    from resight.retrieval.bootstrap import difference

    first, second = _read(options.first), _read(options.second)
    for name in ("dataset", "protocol", "junk"):
        if first[name] != second[name]:
            print(f"mind: {name} is {first[name]} in the first and {second[name]} in the second")
    common = [query for query in first["by_query"] if query in second["by_query"]]
    if not common:
        raise EvaluationError(f"{options.first} and {options.second} have no query in common")
    alone = len(first["by_query"]) + len(second["by_query"]) - 2 * len(common)
    print(f"{len(common)} queries are in both" + (f"; {alone} are in one alone and left out" if alone else ""))
    identity = np.unique([str(first["by_query"][q]["identity"]) for q in common], return_inverse=True)[1]
    rows = list[dict[str, Any]]()
    for figure, label in (("AP", "mAP"), ("R1", "R1")):
        a, b = (np.array([r["by_query"][q][figure] for q in common], float) for r in (first, second))
        if not (~np.isnan(a) & ~np.isnan(b)).any():
            raise EvaluationError("no query has a match in both runs")
        found = difference(a, b, identity, options.seed)
        rows.append(
            {
                "figure": label,
                "first": 100 * float(np.nanmean(a)),
                "second": 100 * float(np.nanmean(b)),
                "difference": 100 * found.value,
                "95 % interval": f"{100 * found.low:.2f} to {100 * found.high:.2f}",
                "p": found.p,
            }
        )
    print_rows("second less first, in points", rows)


def _read(path: Path) -> dict[str, Any]:
    file = path / "result.json" if path.is_dir() else path
    try:
        figures = json.loads(file.read_text())
        by_query = {row["query"]: row for row in figures["per_query"]}
    except OSError as error:
        raise EvaluationError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{file} holds no figures of each query; write it with resight evaluate --json"
        ) from error
    return {"by_query": by_query, **{name: figures.get(name) for name in ("dataset", "protocol", "junk")}}
