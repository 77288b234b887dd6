"""`resight extract`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from resight.cli.parsing import parse
from resight.errors import ConfigError
from resight.sections import Precision


@dataclass(frozen=True)
class Extract:
    """Write the embeddings of many pictures into one Parquet file. Run again after it was stopped, it goes on."""

    model: Positional[Path]
    """A model's folder."""
    source: Positional[tuple[Path, ...]]
    """Picture files, folders, or tables (CSV, Parquet) with any of the columns that `own` data sets have."""
    out: Path
    """The file to write; must not exist."""
    identity_from_folder: bool = False
    """Each picture is of the one that its folder is named after."""
    flip: bool = False
    """Mean of the picture's and its mirror image's embedding."""
    precision: Precision | None = None
    """Arithmetic of the matrix products; by itself bf16 where that is faster."""
    processes: int = 1
    """That share the pictures out, on this machine."""
    device: str = "auto"
    """Where to embed."""


def run(arguments: list[str]) -> None:
    """Embeds, and says what became of the pictures."""
    options = parse(Extract, arguments, "resight extract")
    if options.processes < 1:
        raise ConfigError(f"--processes must be 1 or more, not {options.processes}")
    from resight.datasets.anything import read_anything
    from resight.extract import Way, extract
    from resight.screen import Screen

    sightings = read_anything(options.source, options.identity_from_folder)
    way = Way(options.model, options.device, options.precision, options.flip)
    with Screen() as screen:
        screen.begin("embedding", len(sightings))
        found = extract(way, sightings, options.out, options.processes, lambda done, _: screen.step(done))
        for reason in found.damaged:
            screen.say(f"left out: {reason}")
    now = found.rows - found.before
    print(
        f"{options.out}: {found.rows} embeddings ({found.before} from an earlier run, {now} now, "
        f"{now / max(found.seconds, 1e-9):.0f} pictures/s), {len(found.damaged)} pictures left out"
    )
