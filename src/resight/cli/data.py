"""`resight data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from resight.cli.parsing import parse_action, print_json
from resight.config.scaling import Scaling, ScalingRule
from resight.errors import PictureError


@dataclass(frozen=True)
class Inspect:
    """Count the images and labels of a data set, and check its images."""

    name: Positional[str]
    """A data set of the catalog."""
    root: Positional[Path]
    """Its folder or table."""
    check: bool = False
    """Decode every image, and list those that are corrupt."""
    scaling: Scaling = field(default_factory=dict[str, ScalingRule])
    """With --check: how images of 16 or 32 bits or of floating-point numbers become 8 bits, by modality (or `default`):
    percentiles of each image, or limits in its units. Without a rule, such images are listed."""
    out: Path | None = None
    """Write train.parquet, query.parquet and gallery.parquet to this folder."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Clean:
    """Remove the packed copies of training images from the cache."""


@dataclass(frozen=True)
class Names:
    """List the data sets of the catalog, and their protocols."""

    json: bool = False
    """Print JSON."""


_ACTIONS: Final = {"inspect": Inspect, "clean": Clean, "list": Names}


def run(arguments: list[str]) -> None:
    """Inspect a data set, clean the cache, or list the catalog."""
    options = parse_action(_ACTIONS, arguments, "resight data")
    {Inspect: _inspect, Clean: _clean, Names: _list}[type(options)](options)


def _inspect(options: Inspect) -> None:
    from resight.data.inspect import inspect_dataset, write_tables

    inspection = inspect_dataset(options.name, options.root, options.check, scaling=options.scaling)
    if options.json:
        print_json(
            {"name": inspection.name, "parts": [vars(part) for part in inspection.parts], "notes": inspection.notes}
        )
    else:
        columns = ("part", "sightings", "images", "identities", "cameras", "views", "modalities")
        table = Table(*columns, title=inspection.name)
        for part in inspection.parts:
            table.add_row(
                *(str(value) if name != "modalities" else " ".join(value) for name, value in vars(part).items())
            )
        Console(highlight=False, markup=False, emoji=False).print(table)
        print("\n".join(inspection.notes), end="\n" if inspection.notes else "")
    if options.out is not None:
        write_tables(inspection.split, options.out)
    if inspection.corrupt is not None:
        files = sum(part.images for part in inspection.parts)
        for reason in inspection.corrupt:
            print(reason)
        if inspection.corrupt:
            raise PictureError(f"{len(inspection.corrupt)} of the images are corrupt: they are listed above")
        if not options.json:
            print(f"all images can be decoded ({files}, with query and gallery counted separately)")


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
