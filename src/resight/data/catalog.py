"""The data sets that a name on the command line can mean."""

import os
from collections.abc import Callable
from pathlib import Path

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


def require_known(name: str) -> list[str]:
    """The names that `read` takes, one by one.

    Raises:
        ConfigError: no data set has such a name.
    """
    names = name.split("+")
    for one in names:
        if one not in CATALOG:
            raise unknown("data set", one, CATALOG)
    return names


def read(name: str, root: Path) -> Split:
    """Reads a data set of the catalog, or several to learn from together.

    Args:
        name: one data set's, or several with `+` between them: the first is what is tested on.
        root: its folder or table; of several, with the system's path separator (`:`) between them.

    Raises:
        ConfigError: no data set has that name, or there are more names than roots.
        DatasetError: there is nothing at `root`, or not in the data set's layout.
    """
    names = require_known(name)
    if len(names) == 1:
        return CATALOG[name](root)
    roots = str(root).split(os.pathsep)
    if len(roots) != len(names):
        raise ConfigError(
            f"{name} is {len(names)} data sets and --root names {len(roots)} folders; put {os.pathsep!r} between them"
        )
    parts = zip(names, roots, strict=True)
    return join([(one, CATALOG[one](Path(folder))) for one, folder in parts])
