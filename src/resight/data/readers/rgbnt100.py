"""RGBNT100: vehicles in three registered modalities, side by side in one wide picture."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from resight.data.decode import decode_array, image_size
from resight.data.modalities import MODALITIES
from resight.data.readers.folders import match_name, matching, require
from resight.data.readers.paired import pair_named
from resight.data.sightings import Sighting, SightingTable, Split
from resight.errors import DatasetError
from resight.files import write_folder

_PARTS: Final = ("bounding_box_train", "query", "bounding_box_test")
_PARENT: Final = "rgbir"  # the folder in the archive; `root` may be this folder or its parent
_WIDTH: Final = 256  # pixels of one modality
_NAME: Final = re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)")


def read(root: Path) -> Split:
    """Read RGBNT100, whose wide pictures `split_wide` (`resight data split`) has split.

    Raises:
        DatasetError: `root` has wide pictures, or not the layout of RGBNT100; or an image is missing in a modality.
    """
    folders = require(_inner(root), _PARTS, "RGBNT100")
    if not all((folder / MODALITIES[0]).is_dir() for folder in folders):
        raise DatasetError(
            f"{root} has the three modalities of a sighting in one picture: split the pictures once, with resight data "
            f"split {root} NEW_FOLDER, and use that folder"
        )
    train, query, gallery = (_part(folder) for folder in folders)
    return Split("RGBNT100", train, query, gallery)


def split_wide(root: Path, out: Path, progress: Callable[[int], None] = lambda count: None) -> int:
    """Split the wide pictures of RGBNT100 into folders of modalities with lossless PNG files, in a new folder.

    Args:
        root: the folder with `bounding_box_train`, `query` and `bounding_box_test`.
        out: the new folder.
        progress: called with the number of pictures split so far.

    Returns:
        the number of wide pictures.

    Raises:
        DatasetError: `root` does not have the layout of RGBNT100, a picture is not 768 pixels wide, or `out` exists.
        PictureError: a picture cannot be decoded.
        StorageError: `out` cannot be written.
    """
    folders = require(_inner(root), _PARTS, "RGBNT100")
    files = [path for folder in folders for path, _ in matching(folder, _NAME, "RGBNT100")]
    if out.exists():
        raise DatasetError(f"{out} exists already; choose another name")
    with ThreadPoolExecutor() as pool:
        for path, width in zip(files, pool.map(_width, files), strict=True):
            if width != 3 * _WIDTH:
                raise DatasetError(
                    f"{path} is {width} pixels wide, and a picture of RGBNT100 has {3 * _WIDTH}: rgb, nir and tir, "
                    f"{_WIDTH} each"
                )

    def fill(folder: Path) -> None:
        for part in _PARTS:
            for modality in MODALITIES:
                (folder / part / modality).mkdir(parents=True)
        with ThreadPoolExecutor() as pool:
            for count, _ in enumerate(pool.map(partial(_split, folder), files), start=1):
                progress(count)

    write_folder(out, fill)
    return len(files)


def _inner(root: Path) -> Path:
    return root / _PARENT if not (root / _PARTS[0]).is_dir() and (root / _PARENT).is_dir() else root


def _width(path: Path) -> int:
    return image_size(path)[0]


def _split(out: Path, path: Path) -> None:
    pixels = decode_array(path)  # [h, 768, 3]
    for number, modality in enumerate(MODALITIES):
        image = np.ascontiguousarray(pixels[:, number * _WIDTH : (number + 1) * _WIDTH])  # [h, 256, 3]
        is_grey = bool((image == image[..., :1]).all())
        target = out / path.parent.name / modality / f"{path.stem}.png"
        Image.fromarray(image[..., 0] if is_grey else image).save(target, compress_level=3)  # grey: a third of the size


def _part(folder: Path) -> SightingTable:
    folders: dict[str, Path] = dict(zip(MODALITIES, require(folder, MODALITIES, "RGBNT100"), strict=True))
    sightings = list[Sighting]()
    for name, images in pair_named(folders, "RGBNT100"):
        match = match_name(folder / name, _NAME, "RGBNT100")
        sightings.append(Sighting(images, match["identity"], match["camera"]))
    return SightingTable.of(sightings)
