"""`resight compare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from resight.cli.parsing import parse, print_json, print_rows


@dataclass(frozen=True)
class Compare:
    """Compare two evaluations on the same queries: difference, 95 % confidence interval and p-value."""

    first: Positional[Path]
    """A file of resight evaluate --json, or a run folder."""
    second: Positional[Path]
    """Another file or run folder."""
    seed: int = 0
    """Random seed of the bootstrap over query identities."""
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Print the figures of both evaluations, and their differences."""
    options = parse(Compare, arguments, "resight compare")
    from resight.evaluation.compare import compare

    comparison = compare(options.first, options.second, options.seed)
    if options.json:
        print_json(asdict(comparison))
        return
    for note in comparison.unlike:
        print(f"note: {note}")
    left_out = f"; {comparison.left_out} are in one run only and left out" if comparison.left_out else ""
    print(f"{comparison.queries} queries are in both{left_out}")
    rows = [
        {
            "figure": row.figure,
            "first": f"{100 * row.first:.1f}",
            "second": f"{100 * row.second:.1f}",
            "difference": f"{100 * row.difference:+.1f}",
            "95 % interval": f"{100 * row.low:.2f} to {100 * row.high:.2f}",
            "p": f"{row.p:.3g}",
        }
        for row in comparison.rows
    ]
    print_rows("difference = second - first, in percentage points", rows)
