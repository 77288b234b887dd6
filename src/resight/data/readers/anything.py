"""Images outside a data set: files, folders and tables."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from resight.config.folder import FolderOptions
from resight.data.findings import Finding
from resight.data.readers.folders import UNREAD
from resight.data.readers.labelled import read_file, read_folder
from resight.data.readers.table import is_table, read_rows, refuse_for_table
from resight.data.sightings import Sighting, SightingTable
from resight.errors import ConfigError, DatasetError


def read_images(
    sources: Sequence[Path],
    identity_from_folder: bool = False,
    folder: FolderOptions | None = None,
    log: Callable[[str], None] = lambda sentence: None,
) -> SightingTable:
    """Read sightings from files, folders and tables, in their order.

        images = resight.read_images([Path("my_images")], folder=resight.FolderOptions(camera="door"))

    Args:
        sources: image files; folders, with their subfolders; tables (CSV or Parquet) with the columns of `own`.
        identity_from_folder: take the name of an image's folder as its identity.
        folder: camera, pattern of file names, and modalities of files and folders; None for the defaults. The pattern
            is matched against the path within the folder, or the name of a single file.
        log: called with a sentence about files that look like pictures and are not read.

    Raises:
        ConfigError: the options are for folders and a source is a table, or both state the identity.
        DatasetError: a source does not exist, has no image, or is no such table; or the options do not fit the files.
    """
    options = folder or FolderOptions()
    if identity_from_folder and "identity" in options.groups:
        raise ConfigError("--identity-from-folder and the pattern's group identity exclude each other: leave one out")
    if not sources:
        raise DatasetError("there is nothing to read: give picture files, folders or tables")
    sightings = list[Sighting]()
    for source in sources:
        try:
            sightings += _read_source(source, identity_from_folder, options, log)
        except OSError as error:  # not permitted, or a name that is too long
            raise DatasetError(f"{str(source)[:300]} cannot be read: {error.strerror}") from error
    return SightingTable.of(sightings)


def _read_source(
    source: Path, identity_from_folder: bool, options: FolderOptions, log: Callable[[str], None]
) -> list[Sighting]:
    if source.is_dir():
        content = read_folder(source, options, "last folder" if identity_from_folder else "nothing")
        for finding in Finding.of("unread-picture", content.unread, *UNREAD):
            log(finding.text)
        return content.sightings
    if is_table(source):
        refuse_for_table(source, options)
        return read_rows(source)[0]
    if not source.is_file():
        raise DatasetError(f"there is no picture, folder or table at {source}")
    if options.modalities:
        raise ConfigError(f"--modalities names folders, and {source} is a file: give the folder that contains them")
    sighting = read_file(source, options)
    return [replace(sighting, identity=source.parent.name) if identity_from_folder else sighting]


def sample_images(sightings: SightingTable, count: int) -> list[Path]:
    """Return the first image of at most `count` evenly spaced sightings.

    Raises:
        ConfigError: the count is less than 1.
    """
    if count < 1:
        raise ConfigError(f"the number of images must be 1 or more, not {count}")
    paths = [next(iter(sighting.images.values())) for sighting in sightings]
    return paths[:: max(1, len(paths) // count)][:count]
