"""The data sets that a name on the command line can mean."""

from collections.abc import Callable
from pathlib import Path

from resight.datasets import market, rgbnt201, table
from resight.errors import DatasetError, unknown
from resight.sightings import Split

CATALOG: dict[str, Callable[[Path], Split]] = {
    **market.READERS,
    "rgbnt201": rgbnt201.read,
    "own": table.read,
}


def read(name: str, root: Path) -> Split:
    """Reads a data set of the catalog.

    Raises:
        ConfigError: no data set has that name.
        DatasetError: there is nothing at `root`, or it is not in the data set's layout.
    """
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    if not root.exists():
        raise DatasetError(f"there is nothing at {root}, where {name} was looked for")
    return CATALOG[name](root)
