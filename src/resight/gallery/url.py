"""Gallery URLs: create and open the engine that a URL names."""

from pathlib import Path
from typing import Final

from resight.errors import unknown
from resight.gallery.engines.contract import Engine
from resight.gallery.engines.postgres import PostgresEngine
from resight.gallery.engines.qdrant import QdrantEngine
from resight.gallery.engines.qdrant_server import connect
from resight.gallery.engines.server_url import shown_url
from resight.gallery.engines.sqlite.connection import DATABASE
from resight.gallery.engines.sqlite.sqlite_engine import SQLiteEngine
from resight.gallery.record import GalleryInfo

__all__ = ["create_engine", "exists", "folder_of", "open_engine", "shown_url"]

_KINDS: Final = (
    "FOLDER",
    "exact:FOLDER",
    "qdrant://HOST:PORT/COLLECTION",
    "postgresql://USER@HOST/DATABASE?gallery=NAME",
)


def open_engine(url: str) -> Engine:
    """Open the engine of an existing gallery.

    Args:
        url: as `create_engine` takes it.

    Raises:
        GalleryError: there is no gallery, it is corrupt or in use, or its server cannot be reached.
        ConfigError: the URL has an unknown scheme.
    """
    match _scheme(url):
        case "exact":
            return SQLiteEngine(_path(url), indexed=False)
        case "qdrant" | "qdrant+https":
            return QdrantEngine(*connect(url))
        case "postgresql" | "postgres":
            return PostgresEngine(url)
        case _:
            return SQLiteEngine(_path(url))


def create_engine(url: str, info: GalleryInfo) -> Engine:
    """Create an empty gallery, and open its engine.

    Args:
        url: `FOLDER`, `exact:FOLDER`, `qdrant://HOST:PORT/COLLECTION`, or `postgresql://USER@HOST/DATABASE?gallery=NAME`.
        info: the model whose embeddings it will store.

    Raises:
        GalleryError: the gallery exists already, or its server cannot be reached.
        ConfigError: the URL has an unknown scheme.
    """
    match _scheme(url):
        case "qdrant" | "qdrant+https":
            return QdrantEngine.create(*connect(url), info)
        case "postgresql" | "postgres":
            return PostgresEngine.create(url, info)
        case _:
            SQLiteEngine.create(_path(url), info)
            return open_engine(url)


def exists(url: str) -> bool:
    """Return whether a gallery exists.

    Args:
        url: as `create_engine` takes it.

    Raises:
        GalleryError: its server cannot be reached.
        ConfigError: the URL has an unknown scheme.
    """
    match _scheme(url):
        case "qdrant" | "qdrant+https":
            return QdrantEngine.exists(*connect(url))
        case "postgresql" | "postgres":
            return PostgresEngine.exists(url)
        case _:
            return (_path(url) / DATABASE).is_file()


def folder_of(url: str) -> Path | None:
    """Return the folder of a gallery's URL; None for a server.

    Raises:
        ConfigError: the URL has an unknown scheme.
    """
    return _path(url) if _scheme(url) in ("", "exact") else None


def _scheme(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    if not colon:
        return ""
    if scheme not in ("exact", "qdrant", "qdrant+https", "postgresql", "postgres") or not rest:
        raise unknown("gallery engine", shown_url(url), _KINDS)
    return scheme


def _path(url: str) -> Path:
    return Path(url.removeprefix("exact:"))
