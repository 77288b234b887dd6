"""Whether one measured run is better than another, query by query."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resight.errors import ConfigError, EvaluationError
from resight.retrieval.bootstrap import difference


@dataclass(frozen=True)
class Difference:
    """A figure of two runs on their common queries; rates in [0, 1]."""

    figure: str
    first: float
    second: float
    difference: float
    """Second minus first."""
    low: float
    """Of the 95 % interval of the difference, over query identities."""
    high: float
    p: float
    """Probability of such a difference where there is none."""


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same queries."""

    queries: int
    """In both."""
    left_out: int
    """In one of them only."""
    unlike: list[str]
    """Sentences on settings that differ."""
    rows: list[Difference]


def compare(first: str | Path, second: str | Path, seed: int = 0) -> Comparison:
    """Compare two runs on the same queries, by a paired bootstrap over query identities.

    Args:
        first: a file from `resight evaluate --json`, or a run folder.
        second: the one to compare with it.
        seed: of the bootstrap.

    Raises:
        EvaluationError: a file holds no figures of each query, or the two have no query in common.
    """
    if seed < 0:
        raise ConfigError(f"a seed is a whole number from 0, not {seed}")
    a, b = _read(Path(first)), _read(Path(second))
    common = [query for query in a["by_query"] if query in b["by_query"]]
    if not common:
        raise EvaluationError(f"{first} and {second} have no query in common")
    names = [name for name in a if name != "by_query" and name in b]
    unlike = [f"{name}: {a[name]} in the first, {b[name]} in the second" for name in names if a[name] != b[name]]
    identity = np.unique([str(a["by_query"][q]["identity"]) for q in common], return_inverse=True)[1]
    rows = list[Difference]()
    for key, figure in (("AP", "mAP"), ("R1", "R1")):
        x, y = (np.array([run["by_query"][q][key] for q in common], float) for run in (a, b))
        if not (~np.isnan(x) & ~np.isnan(y)).any():
            raise EvaluationError("no query has a match in both runs")
        interval = difference(x, y, identity, seed)
        means = float(np.nanmean(x)), float(np.nanmean(y))
        rows.append(Difference(figure, *means, interval.value, interval.low, interval.high, interval.p))
    return Comparison(len(common), len(a["by_query"]) + len(b["by_query"]) - 2 * len(common), unlike, rows)


def _read(path: Path) -> dict[str, Any]:
    file = path / "result.json" if path.is_dir() else path
    try:
        figures = json.loads(file.read_text())
        by_query: dict[tuple[str, int], Any] = {}
        repeats = Counter[str]()  # file names of images can repeat in the folders of a data set
        for row in figures["per_query"]:
            np.array([row["AP"], row["R1"]], float)  # an error where one of them is no number
            str(row["identity"])
            by_query[row["query"], repeats[row["query"]]] = row
            repeats[row["query"]] += 1
    except OSError as error:
        raise EvaluationError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(
            f"{file} holds no figures of each query; write it with resight evaluate --json"
        ) from error
    settings = figures.get("settings")
    stated = {name: figures.get(name) for name in ("dataset", "protocol", "junk")}
    return {"by_query": by_query, **stated, **(settings if isinstance(settings, dict) else {})}
