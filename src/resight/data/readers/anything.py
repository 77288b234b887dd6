"""Pictures that are not a data set: files, folders of them, tables."""

from collections.abc import Sequence
from pathlib import Path

from resight.data.readers.folders import PICTURES
from resight.data.readers.table import read_rows
from resight.data.sightings import Sighting, SightingTable
from resight.errors import DatasetError


def read_images(sources: Sequence[Path], identity_from_folder: bool = False) -> SightingTable:
    """The sightings in files, folders (with those below) and tables (CSV or Parquet, the columns of `own`), in order.

    Args:
        sources: any of them.
        identity_from_folder: whether a picture in a folder is of the one that the folder is named after.

    Raises:
        DatasetError: one is not there, or holds no picture, or is no such table.
    """
    if not sources:
        raise DatasetError("there is nothing to read: give picture files, folders or tables")
    found = list[Sighting]()
    for source in sources:
        if source.is_dir():
            paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
            if not paths:
                raise DatasetError(f"{source} holds no picture ({', '.join(PICTURES)})")
            found += [
                Sighting({"rgb": path}, identity=path.parent.name if identity_from_folder else None) for path in paths
            ]
        elif source.suffix in (".csv", ".parquet"):
            found += read_rows(source)[0]
        elif source.is_file():
            found.append(Sighting({"rgb": source}, identity=source.parent.name if identity_from_folder else None))
        else:
            raise DatasetError(f"there is no picture, folder or table at {source}")
    return SightingTable.of(found)


def sample_images(sightings: SightingTable, count: int) -> list[Path]:
    """The first image of at most `count` sightings, evenly sampled."""
    paths = [next(iter(sighting.images.values())) for sighting in sightings]
    return paths[:: max(1, len(paths) // count)][:count]
