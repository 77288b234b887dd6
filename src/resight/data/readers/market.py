"""Market-1501 and the sets that share its layout: three folders, identity and camera in the file name."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resight.data.readers.folders import matching, require
from resight.data.sightings import Sighting, SightingTable, Split

_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
_JUNK = "-1"  # boxes that show no complete person; distractors have the identity 0


@dataclass(frozen=True)
class Layout:
    """The differences between data sets of the family."""

    title: str
    folder: str
    """The folder in the archive; `root` may be this folder or its parent."""
    name: re.Pattern[str]
    notes: tuple[str, ...] = ()


_DUKE_TERMS = "DukeMTMC-reID was withdrawn by its owners in 2019; use it only for comparing with published numbers"

LAYOUTS = {
    "market1501": Layout("Market-1501", "Market-1501-v15.09.15", re.compile(r"(?P<identity>-?\d+)_c(?P<camera>\d)")),
    "dukemtmc": Layout(
        "DukeMTMC-reID", "DukeMTMC-reID", re.compile(r"(?P<identity>\d+)_c(?P<camera>\d)"), notes=(_DUKE_TERMS,)
    ),
    "occluded-duke": Layout(
        "Occluded-Duke", "Occluded_Duke", re.compile(r"(?P<identity>\d+)_c(?P<camera>\d)"), notes=(_DUKE_TERMS,)
    ),
    "cuhk03": Layout(
        "CUHK03-NP",
        "cuhk03-np",
        re.compile(r"(?P<identity>\d+)_c(?P<camera>[12])_"),
        notes=("CUHK03-NP has two versions, detected and labeled: report with a score which one was used",),
    ),
}


def read(layout: Layout, root: Path) -> Split:
    """Read a data set of the family from the folder with `bounding_box_train`, `query` and `bounding_box_test`.

    Boxes of identity -1 are left out; distractors (identity 0) stay in the gallery.

    Raises:
        DatasetError: `root` does not have the layout.
    """
    if not (root / _FOLDERS[0]).is_dir() and (root / layout.folder / _FOLDERS[0]).is_dir():
        root = root / layout.folder
    folders = require(root, _FOLDERS, layout.title)
    train, query, gallery = (_read_folder(folder, layout) for folder in folders)
    return Split(layout.title, train, query, gallery, layout.notes)


READERS = {name: partial(read, layout) for name, layout in LAYOUTS.items()}


def _read_folder(folder: Path, layout: Layout) -> SightingTable:
    return SightingTable.of(
        Sighting({"rgb": path}, identity=match["identity"], camera=match["camera"])
        for path, match in matching(folder, layout.name, layout.title)
        if match["identity"] != _JUNK
    )
