"""Connections to a Qdrant server, the names of its collections, and its errors."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from resight.errors import GalleryError, require_extra
from resight.gallery.engines.server_url import split_url, wrong_form

_FORM: Final = "qdrant://HOST:PORT/COLLECTION"
_NAME: Final = re.compile(r'[^<>:"/\\|?*%#\s\x00-\x1f\x7f\ud800-\udfff]+')
_MAX_NAME: Final = 240  # bytes; the server takes 255, and `.info` follows


def connect(url: str) -> tuple[Any, str]:
    """Connect to the server of a gallery's URL.

    Args:
        url: `qdrant://HOST:PORT/COLLECTION`, or `qdrant+https://` for TLS.

    Returns:
        a client, and the name of the collection.

    Raises:
        GalleryError: the URL has another form, or its collection a name that Qdrant does not take.
        ConfigError: qdrant-client is not installed.
    """
    client = require_extra("qdrant_client", "qdrant").QdrantClient
    parts = split_url(url, _FORM)
    collection = parts.path.removeprefix("/").removesuffix("/")
    try:
        port = parts.port or 6333
    except ValueError:  # whose text may repeat a password
        raise wrong_form(url, _FORM) from None
    if not parts.hostname or not collection or "?" in url:
        raise wrong_form(url, _FORM)
    require_collection_name(collection)
    scheme = "https" if parts.scheme == "qdrant+https" else "http"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    with translated_errors():
        key = os.environ.get("QDRANT_API_KEY")
        return client(url=f"{scheme}://{host}:{port}", api_key=key, check_compatibility=False), collection


def require_collection_name(name: str) -> None:
    """Check the name of a gallery's collection.

    Raises:
        GalleryError: Qdrant, or the path of a URL, does not take it.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > _MAX_NAME or name in (".", ".."):
        raise GalleryError(
            f"a gallery in Qdrant cannot have the name {name!r}: a name has 1 to {_MAX_NAME} bytes of UTF-8, without "
            'spaces and none of < > : " / \\ | ? * % #'
        )


@contextmanager
def translated_errors() -> Generator[None]:
    """Raise errors of the server or the connection as a `GalleryError` with one line of text."""
    errors = import_module("qdrant_client.http.exceptions")
    try:
        yield
    except (errors.ApiException, ConnectionError, ValueError, RuntimeError) as error:
        raise GalleryError(f"Qdrant says: {' '.join(str(error).split())}") from error
