"""From a gallery's URL to its engine."""

from pathlib import Path
from typing import Any

from resight.errors import unknown
from resight.gallery.contract import Engine
from resight.gallery.edge import EdgeEngine
from resight.gallery.folder import ABOUT, FolderEngine

_KINDS = ("FOLDER", "exact:FOLDER")


def open_engine(url: str) -> Engine:
    """Opens what `create_engine` made.

    Raises:
        GalleryError: there is no gallery, it is damaged, or in use.
        ConfigError: there is no engine of that kind.
    """
    kind, path = _parts(url)
    return FolderEngine(path) if kind == "exact" else EdgeEngine(path)


def create_engine(url: str, about: dict[str, Any]) -> Engine:
    """Makes a gallery.

    Args:
        url: `FOLDER`, or `exact:FOLDER`.
        about: `width`, and the model's `fingerprint`.

    Raises:
        GalleryError: there is something already.
        ConfigError: there is no engine of that kind.
    """
    kind, path = _parts(url)
    FolderEngine.create(path, about).close()
    return open_engine(url) if kind == "exact" else EdgeEngine(path)


def exists(url: str) -> bool:
    """Whether there is a gallery.

    Raises:
        ConfigError: there is no engine of that kind.
    """
    return (_parts(url)[1] / ABOUT).is_file()


def _parts(url: str) -> tuple[str, Path]:
    kind, colon, rest = url.partition(":")
    if not colon:
        return "", Path(url)
    if kind != "exact" or not rest:
        raise unknown("gallery engine", url, _KINDS)
    return kind, Path(rest)
