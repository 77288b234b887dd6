"""`resight data`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from resight.cli.parsing import parse_action, print_json
from resight.config.folder import FolderOptions
from resight.config.scaling import Scaling, ScalingRule
from resight.errors import DatasetError, PictureError

if TYPE_CHECKING:
    from resight.data.inspect import Inspection


@dataclass(frozen=True)
class Inspect:
    """Count the images and labels of a data set, and check its images."""

    name: Positional[str]
    """A data set of the catalog."""
    root: Positional[Path]
    """Its folder or table."""
    folder: OmitArgPrefixes[FolderOptions] = field(default_factory=FolderOptions)
    check: bool = False
    """Decode every image, list those that are corrupt, and compare the contents of files."""
    scaling: Scaling = field(default_factory=dict[str, ScalingRule])
    """With --check: how images of 16 or 32 bits or of floating-point numbers become 8 bits, by modality (or `default`):
    percentiles of each image, or limits in its units. Without a rule, such images are listed."""
    allow_train_test_overlap: bool = False
    """Accept identities and files that are both in the training set and in the test set."""
    out: Path | None = None
    """Write train.parquet, query.parquet and gallery.parquet to this folder."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class SplitWide:
    """Split the pictures of RGBNT100, which have three modalities side by side, into a folder for each modality."""

    root: Positional[Path]
    """The data set's folder."""
    out: Positional[Path]
    """The new folder, which is then read as the data set rgbnt100; it needs 2 to 3 GB."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class Clean:
    """Remove the packed copies of training images from the cache."""


@dataclass(frozen=True)
class Names:
    """List the data sets of the catalog, and their protocols."""

    json: bool = False
    """Print JSON."""


_ACTIONS: Final = {"inspect": Inspect, "split": SplitWide, "clean": Clean, "list": Names}


def run(arguments: list[str]) -> None:
    """Inspect a data set, split its pictures, clean the cache, or list the catalog."""
    options = parse_action(_ACTIONS, arguments, "resight data")
    {Inspect: _inspect, SplitWide: _split, Clean: _clean, Names: _list}[type(options)](options)


def _inspect(options: Inspect) -> None:
    from resight.data.inspect import inspect_dataset, write_tables

    inspection = inspect_dataset(
        options.name, options.root, options.check, folder=options.folder, scaling=options.scaling
    )
    error = inspection.error(options.allow_train_test_overlap)
    if options.json:
        document = {"name": inspection.name, "parts": [vars(part) for part in inspection.parts]}
        document |= {"notes": inspection.notes, "findings": [asdict(finding) for finding in inspection.findings]}
        print_json(document | ({} if inspection.corrupt is None else {"corrupt": inspection.corrupt}))
    else:
        _print(inspection, options.allow_train_test_overlap)
    if options.out is not None:
        write_tables(inspection.split, options.out)
    if error:
        raise (PictureError if inspection.corrupt else DatasetError)(error)


def _print(inspection: Inspection, allow_overlap: bool) -> None:
    columns = ("part", "sightings", "images", "identities", "cameras", "views", "modalities")
    table = Table(*columns, title=inspection.name)
    for part in inspection.parts:
        table.add_row(*(str(value) if name != "modalities" else " ".join(value) for name, value in vars(part).items()))
    Console(highlight=False, markup=False, emoji=False).print(table)
    errors = inspection.errors(allow_overlap)
    for line in (*inspection.notes, *(finding.text for finding in inspection.findings if finding not in errors)):
        print(line)
    for reason in inspection.corrupt or []:
        print(reason)
    if inspection.corrupt == []:
        files = sum(part.images for part in inspection.parts)
        print(f"all images can be decoded ({files}, with query and gallery counted separately)")


def _split(options: SplitWide) -> None:
    from resight.data.readers.rgbnt100 import split_wide
    from resight.progress import Progress

    with Progress(options.quiet) as progress:
        progress.start("splitting pictures", None)
        count = split_wide(options.root, options.out, progress.update)
    print(f"{count} pictures split into rgb, nir and tir in {options.out}")


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
