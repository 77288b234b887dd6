"""`resight data inspect` and `resight data clean`."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from resight.cli.parsing import parse
from resight.data.catalog import read
from resight.errors import ConfigError, PictureError
from resight.files import make_folder


@dataclass(frozen=True)
class Inspect:
    """Look into a data set before anything is trained on it."""

    name: Positional[str]
    """A data set of the catalog."""
    root: Positional[Path]
    """Its folder (or table)."""
    check: bool = False
    """Decode every picture and name those that are damaged."""
    out: Path | None = None
    """Write the three tables there, as train.parquet, query.parquet and gallery.parquet."""


def run(arguments: list[str]) -> None:
    """Prints what a data set holds, or removes packed pictures."""
    if arguments == ["clean"]:
        from resight.data.cache import cache_folder, clean

        count, size = clean()
        print(f"{count} packed training sets removed from {cache_folder()}, {size / 2**20:.0f} MiB")
        return
    if not arguments or arguments[0] != "inspect":
        raise ConfigError("the verbs are: resight data inspect NAME ROOT, and resight data clean")
    options = parse(Inspect, arguments[1:], "resight data inspect")
    split = read(options.name, options.root)
    parts = {"train": split.train, "query": split.query, "gallery": split.gallery}
    table = Table("part", "sightings", "pictures", "identities", "cameras", "views", "modalities", title=split.name)
    for name, part in parts.items():
        counts = (len(part), len(part.paths), *(len(part.values(label)) for label in ("identity", "camera", "view")))
        table.add_row(name, *map(str, counts), " ".join(part.modalities))
    Console(highlight=False).print(table)
    for note in split.notes:
        print(note)
    if options.out is not None:
        make_folder(options.out)
        for name, part in parts.items():
            part.write(options.out / f"{name}.parquet")
    if options.check:
        _check(sorted({path for part in parts.values() for path in part.paths}))


def _check(files: list[Path]) -> None:
    from resight.data.image import corrupt

    faults = corrupt(files)
    for _, reason in faults:
        print(reason)
    if faults:
        raise PictureError(f"{len(faults)} of {len(files)} pictures are damaged")
    print(f"all {len(files)} pictures can be decoded")
