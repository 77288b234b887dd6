"""Folders of image files: functions that all readers share."""

import os
import re
from pathlib import Path
from typing import Final

from resight.data.decode import FORMATS
from resight.errors import DatasetError

_SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
IMAGE_SUFFIXES: Final = tuple(suffix for name in FORMATS for suffix in _SUFFIXES[name])
"""Suffixes, in lower case, of the files that are read as images: those of the formats that can be decoded."""
_OTHER_SUFFIXES: Final = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".svg", ".psd", ".xcf", ".exr", ".hdr", ".tga"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".ico", ".pcx", ".pfm", ".dcm", ".apng"),
)
PICTURE_SUFFIXES: Final = tuple(suffix for names in _SUFFIXES.values() for suffix in names) + _OTHER_SUFFIXES
"""Suffixes of files that look like pictures, whether they are read or not."""

UNREAD: Final = ("file looks like a picture and is not read", "files look like pictures and are not read")
"""What is said of one such file, and of several."""


def is_image(path: Path) -> bool:
    """Return whether the suffix of a file, in any case, is one of `IMAGE_SUFFIXES`."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def picture_like(root: Path) -> list[Path]:
    """Return the files below a folder that look like pictures, sorted. Of links to folders, only those directly in the
    folder are followed, so that no chain of links is endless."""
    links = [entry for entry in root.iterdir() if entry.is_symlink() and entry.is_dir()]
    return sorted(
        Path(folder, name)
        for top in (root, *links)
        for folder, _, names in os.walk(top)
        for name in names
        if name.lower().endswith(PICTURE_SUFFIXES)
    )


def image_files(root: Path) -> list[Path]:
    """Return the image files below a folder, sorted; as `picture_like`, but only of the suffixes that are read."""
    return [path for path in picture_like(root) if is_image(path) and path.is_file()]


def require(root: Path, names: tuple[str, ...], layout: str) -> list[Path]:
    """Return the folders `names` below `root`.

    Raises:
        DatasetError: `root` or one of the folders does not exist; the message lists what `root` contains.
    """
    if not root.is_dir():
        raise DatasetError(
            f"there is no folder {root}; {layout} is read from the folder that contains {', '.join(names)}"
        )
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        raise DatasetError(
            f"{root} is not in the layout of {layout}: looked for the folders {', '.join(names)}, "
            f"found {contents(root)}"
        )
    return [root / name for name in names]


def contents(folder: Path, limit: int = 6) -> str:
    """List the names in a folder, at most `limit` of them, for an error text."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def read_lines(path: Path, layout: str) -> list[str]:
    """Read the lines of a list that belongs to a data set; lines of white space are left out.

    Raises:
        DatasetError: the list does not exist, or is no text.
    """
    if not path.is_file():
        raise DatasetError(f"{layout} lacks its list {path}; found {contents(path.parent)}")
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the list {path} of {layout} cannot be read: {error}") from error


def matching(folder: Path, pattern: re.Pattern[str], layout: str) -> list[tuple[Path, re.Match[str]]]:
    """Return the image files of a folder, sorted by name, and the matches of their names.

    Args:
        folder: without its subfolders.
        pattern: that every name must match from its beginning.
        layout: the name of the layout, for error texts.

    Raises:
        DatasetError: there is no image file, or the name of one does not match.
    """
    files = sorted(path for path in folder.iterdir() if is_image(path))
    if not files:
        raise DatasetError(f"{folder} holds no picture ({', '.join(IMAGE_SUFFIXES)}); found {contents(folder)}")
    return [(path, match_name(path, pattern, layout)) for path in files]


def match_name(path: Path, pattern: re.Pattern[str], layout: str) -> re.Match[str]:
    """Match the name of a file from its beginning.

    Raises:
        DatasetError: it does not match.
    """
    match = pattern.match(path.name)
    if match is None:
        raise DatasetError(f"{path} is not named as in {layout}: looked for {pattern.pattern}")
    return match
