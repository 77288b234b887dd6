"""The data sets that a name on the command line can mean."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from resight.data.readers import clothes, cross_modality, market, msmt17, msvr310, rgbnt201, table, vehicles
from resight.data.readers.joined import join
from resight.data.sightings import Split
from resight.data.synthetic import synthetic
from resight.errors import ConfigError, unknown

CATALOG: dict[str, Callable[[Path], Split]] = {
    **market.READERS,
    **msmt17.READERS,
    **vehicles.READERS,
    **cross_modality.READERS,
    **clothes.READERS,
    "rgbnt201": rgbnt201.read,
    "msvr310": msvr310.read,
    "synthetic": synthetic.read,
    "own": table.read,
}


PROTOCOLS: Final[Mapping[str, str]] = {
    "msvr310": "msvr310",
    "sysu-mm01": "sysu-all",
    **dict.fromkeys((name for name in CATALOG if name.startswith("regdb")), "regdb-visible-thermal"),
    **dict.fromkeys((name for name in CATALOG if name.startswith("vehicleid")), "vehicleid"),
}
"""The protocols of the sets that are not measured as Market-1501 is."""
_OWN: Final = "own"  # its cameras have the user's names
_SAME_CAMERAS: Final = {"occluded-duke": "dukemtmc"}


def protocol_of(name: str) -> str:
    """The name of the protocol by which a data set is measured."""
    return PROTOCOLS.get(name, "market")


def require_known(name: str) -> list[str]:
    """The names that `read_dataset` takes, one by one.

    Raises:
        ConfigError: no data set has such a name.
    """
    names = name.split("+")
    for one in names:
        if one not in CATALOG:
            raise unknown("data set", one, CATALOG)
    return names


def read_dataset(name: str, root: str | Path) -> Split:
    """Read a data set of the catalog, or several to learn from together.

    Cameras and views are named after their set, such as `market1501:1`, so that a model knows its own set's cameras and
    takes no other's for them; those of a user's own images (`own`) keep their names.

    Args:
        name: of one data set, or of several with `+` between them: the first is what is tested on.
        root: its folder or table; of several, with the system's path separator (`:`) between them.

    Raises:
        ConfigError: no data set has that name, or there are more names than roots.
        DatasetError: there is nothing at `root`, or not in the data set's layout.
    """
    names = require_known(name)
    if len(names) == 1:
        return _read_one(name, Path(root))
    roots = str(root).split(os.pathsep)
    if len(roots) != len(names):
        raise ConfigError(
            f"{name} is {len(names)} data sets and --root names {len(roots)} folders; put {os.pathsep!r} between them"
        )
    return join([(one, _read_one(one, Path(folder))) for one, folder in zip(names, roots, strict=True)])


def _read_one(name: str, root: Path) -> Split:
    split = replace(CATALOG[name](root), protocol=protocol_of(name))
    if name == _OWN:
        return split
    owner = _SAME_CAMERAS.get(name, name)
    query = split.query.qualify(owner, ("camera", "view"))
    gallery = query if split.gallery is split.query else split.gallery.qualify(owner, ("camera", "view"))
    return replace(split, train=split.train.qualify(owner, ("camera", "view")), query=query, gallery=gallery)
