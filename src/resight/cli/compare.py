"""`resight compare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from resight.cli.parsing import parse, print_json, print_rows


@dataclass(frozen=True)
class Compare:
    """Compare two runs on the same queries: the difference, its 95 % interval, and whether it could be chance."""

    first: Positional[Path]
    """A file from resight evaluate --json, or a run folder."""
    second: Positional[Path]
    """The one to compare with it."""
    seed: int = 0
    """Of the bootstrap over query identities."""
    json: bool = False
    """Print JSON."""


def run(arguments: list[str]) -> None:
    """Print mAP and R1 of both, and their difference."""
    options = parse(Compare, arguments, "resight compare")
    from resight.evaluation.compare import compare

    found = compare(options.first, options.second, options.seed)
    if options.json:
        print_json(asdict(found))
        return
    for words in found.unlike:
        print(f"note: {words}")
    only = f"; {found.left_out} are in one run only and left out" if found.left_out else ""
    print(f"{found.queries} queries are in both{only}")
    rows = [
        {
            "figure": row.figure,
            "first": f"{100 * row.first:.1f}",
            "second": f"{100 * row.second:.1f}",
            "difference": f"{100 * row.difference:+.1f}",
            "95 % interval": f"{100 * row.low:.2f} to {100 * row.high:.2f}",
            "p": f"{row.p:.3g}",
        }
        for row in found.rows
    ]
    print_rows("difference = second - first, in percentage points", rows)
