"""The data sets that a name on the command line can mean."""

from collections.abc import Callable
from pathlib import Path

from resight.datasets import clothes, cross_modality, market, msmt17, msvr310, rgbnt201, synthetic, table, vehicles
from resight.errors import unknown
from resight.sightings import Split

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


def read(name: str, root: Path) -> Split:
    """Reads a data set of the catalog.

    Raises:
        ConfigError: no data set has that name.
        DatasetError: there is nothing at `root`, or not in the data set's layout.
    """
    if name not in CATALOG:
        raise unknown("data set", name, CATALOG)
    return CATALOG[name](root)
