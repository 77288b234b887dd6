"""Images outside a data set: files, folders and tables."""

from collections.abc import Sequence
from pathlib import Path

from resight.data.readers.folders import IMAGE_SUFFIXES
from resight.data.readers.table import read_rows
from resight.data.sightings import Sighting, SightingTable
from resight.errors import ConfigError, DatasetError


def read_images(sources: Sequence[Path], identity_from_folder: bool = False) -> SightingTable:
    """Read sightings from files, folders and tables, in their order.

    Args:
        sources: image files; folders, with their subfolders; tables (CSV or Parquet) with the columns of `own`.
        identity_from_folder: take the name of an image's folder as its identity.

    Raises:
        DatasetError: a source does not exist, has no image, or is no such table.
    """
    if not sources:
        raise DatasetError("there is nothing to read: give picture files, folders or tables")
    sightings = list[Sighting]()
    for source in sources:
        try:
            sightings += _read_source(source, identity_from_folder)
        except OSError as error:  # not permitted, or a name that is too long
            raise DatasetError(f"{str(source)[:300]} cannot be read: {error.strerror}") from error
    return SightingTable.of(sightings)


def _read_source(source: Path, identity_from_folder: bool) -> list[Sighting]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not paths:
            raise DatasetError(f"{source} holds no picture ({', '.join(IMAGE_SUFFIXES)})")
        return [Sighting({"rgb": path}, identity=path.parent.name if identity_from_folder else None) for path in paths]
    if source.suffix in (".csv", ".parquet"):
        return read_rows(source)[0]
    if source.is_file():
        return [Sighting({"rgb": source}, identity=source.parent.name if identity_from_folder else None)]
    raise DatasetError(f"there is no picture, folder or table at {source}")


def sample_images(sightings: SightingTable, count: int) -> list[Path]:
    """Return the first image of at most `count` evenly spaced sightings.

    Raises:
        ConfigError: the count is less than 1.
    """
    if count < 1:
        raise ConfigError(f"the number of images must be 1 or more, not {count}")
    paths = [next(iter(sighting.images.values())) for sighting in sightings]
    return paths[:: max(1, len(paths) // count)][:count]
