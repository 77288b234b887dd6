"""Decode every image of a data set once: corrupt files, identical files, and registered images of different sizes."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from resight.config.scaling import ScalingRule
from resight.data.decode import decode_array
from resight.data.findings import BOTH, EXAMPLES, FileUse, Finding
from resight.data.picture_file import printable, read_file
from resight.data.picture_notes import PictureNotes
from resight.data.sightings import Split
from resight.errors import PictureError


@dataclass(frozen=True)
class ImageContent:
    """What was decoded of a file."""

    digest: str
    """SHA-256 of the file."""
    size: tuple[int, int]
    """Width and height, in pixels."""


def read_contents(
    paths: Sequence[Path],
    progress: Callable[[int], None] = lambda count: None,
    rules: Mapping[Path, ScalingRule] | None = None,
    notes: PictureNotes | None = None,
) -> dict[Path, ImageContent | str]:
    """Decode every image, and return its content, or the reason why it cannot be decoded.

    Args:
        paths: image files.
        progress: called with the number of images decoded so far.
        rules: by file, how one channel of more than 8 bits becomes 8.
        notes: count what decoding leaves out or converts.
    """
    rule_of_path = rules or {}

    def content_of(path: Path) -> ImageContent | str:
        try:
            name = printable(path)
            data = read_file(path, name)
            height, width = decode_array(data, name, rule_of_path.get(path), notes).shape[:2]
        except PictureError as error:
            return str(error)
        return ImageContent(hashlib.sha256(data).hexdigest(), (width, height))

    contents = dict[Path, ImageContent | str]()
    with ThreadPoolExecutor() as pool:
        for count, (path, content) in enumerate(zip(paths, pool.map(content_of, paths), strict=True), start=1):
            contents[path] = content
            progress(count)
    return contents


def find_content_faults(
    split: Split, uses: Sequence[FileUse], contents: Mapping[Path, ImageContent | str]
) -> list[Finding]:
    """Return what is suspicious in the contents of files.

    Args:
        split: the data set.
        uses: of its files.
        contents: of the files, by path.
    """
    groups = defaultdict[str, list[FileUse]](list)
    for use in uses:
        content = contents.get(use.path)
        if isinstance(content, ImageContent):
            groups[content.digest].append(use)
    findings = list[Finding]()
    copies: dict[str, list[str]] = {"copy-in-train-and-test": [], "copy-of-two-identities": [], "copy": []}
    for group in groups.values():
        if len(group) > 1:
            copies[_kind_of_copies(group)].append(" = ".join(str(use.path) for use in group[:EXAMPLES]))
    for kind, names in copies.items():
        where = {"copy": "", "copy-in-train-and-test": f", {BOTH}"}.get(kind, ", of two or more identities")
        is_error = kind == "copy-in-train-and-test"
        text = f"in two or more files with the same bytes{where}"
        findings += Finding.of(kind, names, f"image is {text}", f"images are {text}", is_error)
    return [*findings, *_different_sizes(split, contents)]


def _kind_of_copies(group: Sequence[FileUse]) -> str:
    parts = {part for use in group for part in use.parts}
    if "train" in parts and len(parts) > 1:
        return "copy-in-train-and-test"
    identities = {name for use in group for name in use.labels["identity"]}
    return "copy-of-two-identities" if len(identities) > 1 else "copy"


def _different_sizes(split: Split, contents: Mapping[Path, ImageContent | str]) -> list[Finding]:
    different = dict[str, None]()
    for table in (split.train, split.query, split.gallery):
        for sighting in table:
            sizes = dict[str, tuple[int, int]]()
            for modality, path in sighting.images.items():
                content = contents.get(path)
                if isinstance(content, ImageContent):
                    sizes[modality] = content.size
            if len(set(sizes.values())) > 1:
                listed = ", ".join(f"{modality} {width} x {height}" for modality, (width, height) in sizes.items())
                different[f"{next(iter(sighting.images.values()))} ({listed})"] = None
    what = "registered images of different sizes"
    return Finding.of("sizes-differ", different, f"sighting has {what}", f"sightings have {what}", True)
