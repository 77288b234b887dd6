"""`resight compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from resight.cli.output import Output, metavar, row_table, show
from resight.cli.parsing import parse


@dataclass(frozen=True)
class Compare(Output):
    """Compare two evaluations on the same queries: difference, 95 % confidence interval and p-value."""

    first: Positional[Annotated[Path, metavar("FIRST")]]
    """A file of figures (resight evaluate --figures FILE), or a run folder."""
    second: Positional[Annotated[Path, metavar("SECOND")]]
    """Another file or run folder."""
    seed: int = 0
    """Random seed of the bootstrap over query identities."""


def run(arguments: list[str]) -> None:
    """Print the figures of both evaluations, and their differences."""
    options = parse(Compare, arguments, "resight compare")
    from resight.evaluation.compare import compare
    from resight.progress import counted, percent

    comparison = compare(options.first, options.second, options.seed)
    left_out = ""
    if comparison.left_out:
        verb = "is" if comparison.left_out == 1 else "are"
        left_out = f"; {counted(comparison.left_out, 'query', 'queries')} {verb} in one of them only and left out"
    rows = [
        {
            "figure": row.figure,
            "first": percent(row.first),
            "second": percent(row.second),
            "difference": f"{100 * row.difference:+.1f}",
            "95 % interval": f"{100 * row.low:+.1f} to {100 * row.high:+.1f}",
            "p": f"{row.p:.3g}",
        }
        for row in comparison.rows
    ]
    show(
        options,
        comparison,
        *(f"note: {note}" for note in comparison.unlike),
        f"{counted(comparison.queries, 'query', 'queries')} in both evaluations{left_out}",
        row_table("difference = second - first, in percentage points", rows),
    )
