"""`resight protocols list`."""

from __future__ import annotations

from resight.cli.listing import print_listing
from resight.retrieval.protocols import PROTOCOLS


def run(arguments: list[str]) -> None:
    """Print the evaluation protocols."""
    print_listing("protocols", arguments, [(p.name, f"{p.words} ({p.source})") for p in PROTOCOLS.values()])
