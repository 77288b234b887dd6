"""`resight data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from resight.cli.parsing import parse_action, print_json
from resight.errors import PictureError


@dataclass(frozen=True)
class Inspect:
    """Count and check what a data set holds, before anything is trained on it."""

    name: Positional[str]
    """A data set of the catalog."""
    root: Positional[Path]
    """Its folder or table."""
    check: bool = False
    """Decode every picture and name those that are corrupt."""
    out: Path | None = None
    """Write the three tables there, as train.parquet, query.parquet and gallery.parquet."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Clean:
    """Remove the packed copies of training images from the cache."""


@dataclass(frozen=True)
class Names:
    """Print the data sets of the catalog."""

    json: bool = False
    """Print JSON."""


_ACTIONS: Final = {"inspect": Inspect, "clean": Clean, "list": Names}


def run(arguments: list[str]) -> None:
    """Inspect a data set, clean the cache, or list the catalog."""
    options = parse_action(_ACTIONS, arguments, "resight data")
    {Inspect: _inspect, Clean: _clean, Names: _list}[type(options)](options)


def _inspect(options: Inspect) -> None:
    from resight.data.inspect import inspect_dataset, write_tables

    found = inspect_dataset(options.name, options.root, options.check)
    if options.json:
        print_json({"name": found.name, "parts": [vars(part) for part in found.parts], "notes": found.notes})
    else:
        columns = ("part", "sightings", "images", "identities", "cameras", "views", "modalities")
        table = Table(*columns, title=found.name)
        for part in found.parts:
            table.add_row(
                *(str(value) if name != "modalities" else " ".join(value) for name, value in vars(part).items())
            )
        Console(highlight=False).print(table)
        print("\n".join(found.notes), end="\n" if found.notes else "")
    if options.out is not None:
        write_tables(found.split, options.out)
    if found.corrupt is not None:
        files = sum(part.images for part in found.parts)
        for reason in found.corrupt:
            print(reason)
        if found.corrupt:
            raise PictureError(f"{len(found.corrupt)} of the pictures are corrupt; they are named above")
        if not options.json:
            print(f"all pictures can be decoded ({files}, query and gallery counted apart)")


def _clean(options: Clean) -> None:
    from resight.data.cache import cache_folder, clean

    count, size = clean()
    print(f"{count} packed training sets removed from {cache_folder()}, {size / 2**20:.0f} MiB")


def _list(options: Names) -> None:
    from resight.data.catalog import CATALOG, protocol_of

    if options.json:
        print_json({name: protocol_of(name) for name in CATALOG})
        return
    for name in CATALOG:
        print(f"{name:20s}protocol {protocol_of(name)}")
