"""A folder of image files as sightings: labels from options, from a pattern of file names, and from folders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from resight.config.folder import FolderOptions
from resight.data.findings import list_first
from resight.data.modalities import LABELS, name_fault
from resight.data.readers.folders import IMAGE_SUFFIXES, contents, image_files, picture_like
from resight.data.readers.paired import modality_folders, pair
from resight.data.sightings import MAX_TIME, Sighting
from resight.errors import DatasetError

_ALLOW_MISSING = "; add them, or allow them with --allow-missing-modalities"
IdentityFrom = Literal["first folder", "last folder", "nothing"]
"""The folder, on the path of an image, whose name is the identity where a pattern does not state it."""


@dataclass(frozen=True)
class LabelledFolder:
    """What was read of a folder of images."""

    sightings: list[Sighting]
    parts: list[str] | None
    """The part of the data set of each sighting; None where the pattern has no group `split`."""
    unread: list[Path]
    """Files that look like pictures, and are not among the sightings."""


def read_folder(root: Path, options: FolderOptions, identity_from: IdentityFrom) -> LabelledFolder:
    """Read the image files below a folder.

    Args:
        root: the folder; or one whose folders of modalities have the same file names, which become one sighting.
        options: camera, pattern of file names, and modalities.
        identity_from: `first folder` leaves out images that are in no folder.

    Raises:
        ConfigError: a name of a modality is invalid.
        DatasetError: there is no image; a name does not match the pattern, or has an invalid time or modality; or the
            files of modalities do not fit together.
    """
    folders = modality_folders(root, options)
    if folders and "modality" in options.groups:
        raise DatasetError(f"{root} has folders of modalities, so the pattern cannot have a group modality")
    if folders:
        items = pair(folders, options.allow_missing_modalities, _ALLOW_MISSING)
    else:
        items = [(path.relative_to(root).as_posix(), {"rgb": path}) for path in image_files(root)]
    if identity_from == "first folder" and "identity" not in options.groups:
        items = [(name, images) for name, images in items if "/" in name]
    if not items:
        needed = " for each identity" if identity_from == "first folder" else ""
        raise DatasetError(
            f"{root} holds no picture ({', '.join(IMAGE_SUFFIXES)}){needed and ' in a folder' + needed}; "
            f"found {contents(root)}"
        )
    labels = _match_all(root, [name for name, _ in items], options)
    sightings = [
        _sighting(root, name, images, {"identity": _identity(root, name, identity_from)} | stated)
        for (name, images), stated in zip(items, labels, strict=True)
    ]
    files = {path for _, images in items for path in images.values()}
    parts = [str(stated["split"]) for stated in labels] if "split" in options.groups else None
    return LabelledFolder(sightings, parts, [path for path in picture_like(root) if path not in files])


def read_file(path: Path, options: FolderOptions) -> Sighting:
    """Read one image file, whose name alone is matched.

    Raises:
        DatasetError: as `read_folder`.
    """
    (labels,) = _match_all(path.parent, [path.name], options)
    return _sighting(path.parent, path.name, {"rgb": path}, labels)


def _match_all(root: Path, names: list[str], options: FolderOptions) -> list[dict[str, str | None]]:
    """The labels of each name: of the options, and of the pattern."""
    stated: dict[str, str | None] = {} if options.camera is None else {"camera": options.camera}
    if options.filename_pattern is None:
        return [dict(stated) for _ in names]
    pattern = re.compile(options.filename_pattern)
    matches = [pattern.search(name) for name in names]
    unmatched = [name for name, match in zip(names, matches, strict=True) if match is None]
    if len(unmatched) == len(names):
        raise DatasetError(
            f"the pattern {pattern.pattern} matches none of the {len(names)} images of {root}, such as {names[0]}"
        )
    if unmatched:
        raise DatasetError(
            f"the pattern {pattern.pattern} does not match {len(unmatched)} of the {len(names)} images of {root}: "
            f"{list_first(unmatched)}"
        )
    return [stated | {label: text or None for label, text in match.groupdict().items()} for match in matches if match]


def _sighting(root: Path, name: str, images: Mapping[str, Path], labels: Mapping[str, str | None]) -> Sighting:
    modality = labels.get("modality")
    if modality is not None:
        if fault := name_fault(modality):
            raise DatasetError(f"{root / name}: {fault}")
        images = {modality: images["rgb"]}
    known: dict[str, Any] = {label: labels.get(label) for label in LABELS}
    return Sighting(images, time=_seconds(root / name, labels.get("time")), **known)


def _seconds(path: Path, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not abs(seconds) < MAX_TIME:
        raise DatasetError(f"{path}: the group time is {text!r:.60}, which is no number of seconds")
    return seconds


def _identity(root: Path, name: str, identity_from: IdentityFrom) -> str | None:
    folders = PurePosixPath(name).parts[:-1]
    if identity_from == "nothing":
        return None
    if identity_from == "first folder":
        return folders[0] if folders else None
    return folders[-1] if folders else root.name
