"""From a gallery's URL to its engine."""

from pathlib import Path

from resight.errors import unknown
from resight.gallery.engines import qdrant
from resight.gallery.engines.contract import Engine
from resight.gallery.engines.folder import INFO, FolderEngine
from resight.gallery.engines.postgres import PostgresEngine
from resight.gallery.engines.qdrant_edge import EdgeEngine
from resight.gallery.record import GalleryInfo

_KINDS = ("FOLDER", "exact:FOLDER", "qdrant://HOST:PORT/COLLECTION", "postgresql://USER@HOST/DATABASE?gallery=NAME")


def open_engine(url: str) -> Engine:
    """Opens what `create_engine` made.

    Raises:
        GalleryError: there is no gallery, it is damaged or in use, or its server cannot be reached.
        ConfigError: there is no engine of that kind.
    """
    match _scheme(url):
        case "exact":
            return FolderEngine(_path(url))
        case "qdrant" | "qdrant+https":
            return qdrant.QdrantEngine(*qdrant.connect(url))
        case "postgresql" | "postgres":
            return PostgresEngine(url)
        case _:
            return EdgeEngine(_path(url))


def create_engine(url: str, info: GalleryInfo) -> Engine:
    """Makes a gallery.

    Args:
        url: `FOLDER`, `exact:FOLDER`, `qdrant://HOST:PORT/COLLECTION`, or `postgresql://USER@HOST/DATABASE?gallery=NAME`.
        info: of the model.

    Raises:
        GalleryError: there is something already, or the server cannot be reached.
        ConfigError: there is no engine of that kind.
    """
    match _scheme(url):
        case "qdrant" | "qdrant+https":
            return qdrant.QdrantEngine.create(*qdrant.connect(url), info)
        case "postgresql" | "postgres":
            return PostgresEngine.create(url, info)
        case _:
            FolderEngine.create(_path(url), info).close()
            return open_engine(url)


def exists(url: str) -> bool:
    """Whether there is a gallery.

    Raises:
        GalleryError: its server cannot be reached.
        ConfigError: there is no engine of that kind.
    """
    match _scheme(url):
        case "qdrant" | "qdrant+https":
            return qdrant.QdrantEngine.exists(*qdrant.connect(url))
        case "postgresql" | "postgres":
            return PostgresEngine.exists(url)
        case _:
            return (_path(url) / INFO).is_file()


def _scheme(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    if not colon:
        return ""
    if scheme not in ("exact", "qdrant", "qdrant+https", "postgresql", "postgres") or not rest:
        raise unknown("gallery engine", url, _KINDS)
    return scheme


def _path(url: str) -> Path:
    return Path(url.removeprefix("exact:"))
