"""Looking into folders: what every reader needs to say what it looked for and what it found."""

import re
from pathlib import Path

from resight.errors import DatasetError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def require(root: Path, names: tuple[str, ...], layout: str) -> list[Path]:
    """The folders `names` below `root`.

    Raises:
        DatasetError: `root` or one of the folders is missing; says what was looked for and what was found.
    """
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}; {layout} is read from the folder that holds {', '.join(names)}")
    missing = [name for name in names if not (root / name).is_dir()]
    if missing:
        raise DatasetError(
            f"{root} is not in the layout of {layout}: looked for the folders {', '.join(names)}, "
            f"found {contents(root)}"
        )
    return [root / name for name in names]


def contents(folder: Path, most: int = 6) -> str:
    """What a folder holds, in a few words."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def matching(
    folder: Path, suffixes: tuple[str, ...], pattern: re.Pattern[str], layout: str
) -> list[tuple[Path, re.Match[str]]]:
    """The pictures directly in `folder`, sorted by name, each with its name's match of `pattern`.

    Raises:
        DatasetError: there is no picture, or one whose name does not match.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise DatasetError(f"{folder} holds no picture ({', '.join(suffixes)}); found {contents(folder)}")
    found: list[tuple[Path, re.Match[str]]] = []
    for path in files:
        match = pattern.match(path.name)
        if match is None:
            raise DatasetError(f"{path} is not named as in {layout}: looked for {pattern.pattern}")
        found.append((path, match))
    return found
