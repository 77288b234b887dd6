"""Folders of image files: functions that all readers share."""

import re
from pathlib import Path

from resight.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


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


def matching(
    folder: Path, suffixes: tuple[str, ...], pattern: re.Pattern[str], layout: str
) -> list[tuple[Path, re.Match[str]]]:
    """Return the image files of a folder, sorted by name, and the matches of their names.

    Args:
        folder: without its subfolders.
        suffixes: of image files, in lower case.
        pattern: that every name must match from its beginning.
        layout: the name of the layout, for error texts.

    Raises:
        DatasetError: there is no image file, or the name of one does not match.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise DatasetError(f"{folder} holds no picture ({', '.join(suffixes)}); found {contents(folder)}")
    matches: list[tuple[Path, re.Match[str]]] = []
    for path in files:
        match = pattern.match(path.name)
        if match is None:
            raise DatasetError(f"{path} is not named as in {layout}: looked for {pattern.pattern}")
        matches.append((path, match))
    return matches
