"""MSMT17, versions 1 and 2: folders of images, and lists of the images in each part."""

import re
from functools import partial
from pathlib import Path

from resight.data.readers.folders import contents, read_lines
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError

_VERSIONS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
_LINE = re.compile(r"(?P<path>\S+/\d+_\d+_(?P<camera>\d{1,9})_\S+) (?P<identity>\d{1,9})$", re.ASCII)


def read(root: Path, validation: bool = True) -> Split:
    """Read `list_{train,val,query,gallery}.txt` and the folders of either version.

    The numbers of training and test identities both start at 0, so they get the prefixes `train-` and `test-`.

    Args:
        root: the folder with the lists.
        validation: add the validation part to the training set, as TransReID does (others train without it).

    Raises:
        DatasetError: `root` does not have the layout of MSMT17.
    """
    version = next((v for v, names in _VERSIONS.items() if all((root / name).is_dir() for name in names)), None)
    if version is None:
        names_in_root = contents(root) if root.is_dir() else "no such folder"
        raise DatasetError(
            f"{root} is not MSMT17: looked for train and test, or mask_train_v2 and mask_test_v2; found {names_in_root}"
        )
    train, test = (root / name for name in _VERSIONS[version])
    train_sightings = [
        *_read_list(root / "list_train.txt", train),
        *(_read_list(root / "list_val.txt", train) if validation else []),
    ]
    query, gallery = (SightingTable.of(_read_list(root / f"list_{part}.txt", test)) for part in ("query", "gallery"))
    notes = (
        f"MSMT17 {version}" + (" (faces blurred: lower scores than V1's)" if version == "V2" else ""),
        f"trained on train{' and val' if validation else ' alone'}",
    )
    return Split("MSMT17", SightingTable.of(train_sightings), query, gallery, notes)


READERS = {"msmt17": read, "msmt17-train-only": partial(read, validation=False)}


def _read_list(path: Path, folder: Path) -> list[Sighting]:
    part = "train" if "train" in folder.name else "test"
    sightings: list[Sighting] = []
    for number, line in enumerate(read_lines(path, "MSMT17"), start=1):
        match = _LINE.match(line.strip())
        if match is None:
            raise DatasetError(f"{path} line {number} is not of the form 0000/0000_000_01_..._0.jpg 0")
        identity = f"{part}-{int(match['identity']):04d}"
        sightings.append(Sighting({"rgb": folder / match["path"]}, identity=identity, camera=str(int(match["camera"]))))
    return sightings
