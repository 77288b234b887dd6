"""The catalog of data sets, by their names on the command line."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from resight.config.folder import FolderOptions
from resight.data.readers import (
    clothes,
    cross_modality,
    market,
    msmt17,
    msvr310,
    rgbnt100,
    rgbnt201,
    table,
    vehicles,
    wmveid863,
)
from resight.data.readers.joined import join
from resight.data.sightings import Split
from resight.data.synthetic import synthetic
from resight.errors import ConfigError, DatasetError, unknown

CATALOG: dict[str, Callable[[Path], Split]] = {
    **market.READERS,
    **msmt17.READERS,
    **vehicles.READERS,
    **cross_modality.READERS,
    **clothes.READERS,
    "rgbnt100": rgbnt100.read,
    "rgbnt201": rgbnt201.read,
    "msvr310": msvr310.read,
    "wmveid863": wmveid863.read,
    "synthetic": synthetic.read,
    "synthetic-hard": synthetic.read_hard,
    "own": table.read,
}


PROTOCOLS: Final[Mapping[str, str]] = {
    "msvr310": "msvr310",
    "sysu-mm01": "sysu-all",
    **dict.fromkeys((name for name in CATALOG if name.startswith("regdb")), "regdb-visible-thermal"),
    **dict.fromkeys((name for name in CATALOG if name.startswith("vehicleid")), "vehicleid"),
}
"""The protocols of data sets that are not evaluated as Market-1501 is."""
_CUSTOM: Final = "own"  # the user's images, whose cameras keep their names
_SAME_CAMERAS: Final = {"occluded-duke": "dukemtmc"}


def protocol_of(name: str) -> str:
    """Return the name of a data set's evaluation protocol."""
    return PROTOCOLS.get(name, "market")


def camera_owner(name: str) -> str | None:
    """The data set that cameras and views are named after; None for `own`, where the user names them.

    Raises:
        ConfigError: no data set has such a name.
    """
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    return None if name == _CUSTOM else _SAME_CAMERAS.get(name, name)


def require_known(name: str) -> list[str]:
    """Split a name such as `a+b` into the names of data sets, and check them.

    Raises:
        ConfigError: there is no data set of a name.
    """
    names = name.split("+")
    for dataset in names:
        if dataset not in CATALOG:
            raise unknown("data set", dataset, CATALOG)
    return names


def read_dataset(name: str, root: str | Path, folder: FolderOptions | None = None) -> Split:
    """Read a data set of the catalog, or join several of them for training.

    The names of cameras and views begin with the name of their data set, such as `market1501:1`, so that a model does
    not confuse cameras of different data sets. Those of a user's own images (`own`) keep their names.

    Args:
        name: of a data set, or of several, joined by `+`. The test set is that of the first.
        root: the folder or table of the data set; of several, joined by the system's path separator (`:`).
        folder: camera, pattern of file names, and modalities of the folder of `own`; None for the defaults.

    Raises:
        ConfigError: there is no data set of a name, or the numbers of names and roots differ; or the options of a
            folder are for `own`, and it is not among the data sets, or is a table.
        DatasetError: `root` does not exist, or does not have the data set's layout.
    """
    names = require_known(name)
    folder = folder or FolderOptions()
    if folder.changed_options and _CUSTOM not in names:
        raise ConfigError(
            f"{folder.changed_options[0]} is for your own images (data set {_CUSTOM}): {name} has a layout that states "
            "its labels"
        )
    if len(names) == 1:
        return _read_one(name, Path(root), folder)
    roots = str(root).split(os.pathsep)
    if len(roots) != len(names):
        raise ConfigError(
            f"{name} is {len(names)} data sets and --root names {len(roots)} folders; put {os.pathsep!r} between them"
        )
    return join([(dataset, _read_one(dataset, Path(one), folder)) for dataset, one in zip(names, roots, strict=True)])


def _read_one(name: str, root: Path, folder: FolderOptions) -> Split:
    try:
        split = table.read(root, folder=folder) if name == _CUSTOM else CATALOG[name](root)
        split = replace(split, protocol=protocol_of(name))
    except OSError as error:  # not permitted, or a name that is too long
        raise DatasetError(f"{root} cannot be read: {error.strerror}") from error
    owner = camera_owner(name)
    if owner is None:
        return split
    query = split.query.qualify(owner, ("camera", "view"))
    gallery = query if split.gallery is split.query else split.gallery.qualify(owner, ("camera", "view"))
    return replace(split, train=split.train.qualify(owner, ("camera", "view")), query=query, gallery=gallery)
