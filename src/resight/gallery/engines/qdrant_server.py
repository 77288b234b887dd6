"""Connections to a Qdrant server, and its errors."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from resight.errors import GalleryError, require_extra


def connect(url: str) -> tuple[Any, str]:
    """Connect to the server of a gallery's URL.

    Args:
        url: `qdrant://HOST:PORT/COLLECTION`, or `qdrant+https://` for TLS.

    Returns:
        a client, and the name of the collection.

    Raises:
        GalleryError: the URL names no collection.
        ConfigError: qdrant-client is not installed.
    """
    client = require_extra("qdrant_client", "qdrant").QdrantClient
    parts = urlsplit(url)
    collection = parts.path.strip("/")
    if not parts.hostname or not collection:
        raise GalleryError(f"{url} is not of the form qdrant://HOST:PORT/COLLECTION")
    scheme = "https" if parts.scheme == "qdrant+https" else "http"
    with translated_errors():
        address = f"{scheme}://{parts.hostname}:{parts.port or 6333}"
        return client(url=address, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False), collection


def info_collection(collection: str) -> str:
    """Return the name of the collection that stores a gallery's `GalleryInfo` and log."""
    return f"{collection}.info"


@contextmanager
def translated_errors() -> Generator[None]:
    """Raise errors of the server or the connection as a `GalleryError` with one line of text."""
    errors = import_module("qdrant_client.http.exceptions")
    try:
        yield
    except (errors.ApiException, ConnectionError, ValueError) as error:
        raise GalleryError(f"Qdrant says: {' '.join(str(error).split())}") from error
