"""Start the service: model, gallery, and an HTTP server in front of them."""

import gc
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resight.errors import ConfigError, StorageError, require_extra
from resight.gallery.gallery import Gallery
from resight.gallery.open import create_gallery, open_gallery
from resight.gallery.url import exists
from resight.inference.embedder import Embedder
from resight.inference.exported import is_exported
from resight.inference.load import load
from resight.models.hub.download import local_folder
from resight.models.open_model import open_card
from resight.service.settings import ServiceSettings

_KEEP_ALIVE_SECONDS = 30


def serve(settings: ServiceSettings) -> None:
    """Serve a gallery by HTTP until SIGTERM or SIGINT; then finish the requests that were accepted, and return.

    Args:
        settings: of the service; `resight.service.settings.settings_from_environment` reads them from variables.

    Raises:
        ConfigError: fastapi is not installed, a setting is missing, or other machines could connect without a key.
        GalleryError: the gallery is of another model, corrupt, or cannot be reached.
        CheckpointError: the folder is no model folder.
        StorageError: the address is in use.
    """
    for module in ("fastapi", "uvicorn", "jinja2", "prometheus_client", "python_multipart"):
        require_extra(module, "service")
    if settings.mcp != "off":
        require_extra("mcp", "mcp")
    from resight.service.security.keys import KeyStore

    settings.require_safe(len(KeyStore(settings.state)) > 0)  # before the model is loaded
    listening = _listen(settings)
    try:
        _serve(settings, listening)
    finally:
        listening.close()


def open_service(settings: ServiceSettings) -> Any:
    """Load the model, open the gallery, or create it, and return the `resight.service.work.core.Service` of both.

    Raises:
        ConfigError: neither a gallery nor a model is given, or the gallery exists and no model is known.
        GalleryError: the gallery is of another model, corrupt, or cannot be reached.
        CheckpointError: the folder is no model folder.
    """
    from resight.service.work.core import Service

    if settings.gallery is None:
        raise ConfigError("give the gallery with --gallery URL; it is created if it does not exist")
    url = settings.gallery
    embedder = _embedder(settings, url)

    def open_again() -> Gallery:
        return open_gallery(url, embedder, settings.prior)

    return Service(settings, embedder, open_again)


def _serve(settings: ServiceSettings, listening: socket.socket) -> None:
    import uvicorn

    from resight.service.app import create_app
    from resight.service.logs import configure_logs, log
    from resight.service.settings import public_settings

    configure_logs()
    service = open_service(settings)
    config = uvicorn.Config(
        create_app(service), log_config=None, access_log=False, proxy_headers=False, server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS, timeout_graceful_shutdown=int(settings.drain_seconds) or 1,
        ws="none", lifespan="on",
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                address = "http://{}:{}".format(*_address_of(listening))
                compute = service.embedder.description
                log("listening", address=address, settings=public_settings(settings), compute=compute)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.background.end_streams()
            await super().shutdown(sockets)

    server = Server(config)
    # What has been imported and loaded stays until the end: the garbage collector need not look through it again, which
    # takes up to a quarter of a second in which no request is answered.
    gc.collect()
    gc.freeze()
    with _handled_signals():
        server.run([listening])
    if not server.started:
        raise ConfigError("the service could not start; its log says why")
    log("ended")


def _embedder(settings: ServiceSettings, url: str) -> Embedder:
    """The embedder of the gallery's model and settings; a gallery that does not exist is created."""
    model: Path | None = settings.model
    options: Any = {"device": settings.device, "precision": settings.precision, "batch_size": settings.batch_size}
    if not exists(url):
        if model is None:
            raise ConfigError(f"there is no gallery at {url}; give a model folder to create it")
        _prepare(model)
        embedder = load(model, **options)
        create_gallery(url, embedder).close()
        return embedder
    with open_gallery(url) as gallery:
        info = gallery.info
    folder = model or (None if info.model is None else Path(info.model))
    if folder is None:
        raise ConfigError("the gallery names no model folder: give one")
    _prepare(folder)
    stated = info.embedding
    embedder = load(folder, flip=stated.flip, fusion=stated.fusion, unknown=stated.unknown, **options)
    info.require(embedder.embedding_id, "the model gives")
    return embedder


def _prepare(model: Path) -> None:
    """Check that a folder is a model folder; then let the decoding processes import torch while it is loaded."""
    from resight.service.work.decoding import start_server

    folder = local_folder(model)
    if not is_exported(folder):
        open_card(folder)
    start_server()


def _listen(settings: ServiceSettings) -> socket.socket:
    """A socket that listens on the address: bound before the model is loaded, so that a wrong address is refused."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it; without it, the body of an answer waits up to 40 ms until the headers are confirmed.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise StorageError(f"the service cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    return listening


@contextmanager
def _handled_signals() -> Generator[None]:
    """Ignore the signals that end the service: uvicorn handles them, and sends itself the same again at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    pass


def _address_of(listening: socket.socket) -> tuple[str, int]:
    host, port = listening.getsockname()[:2]
    return f"[{host}]" if ":" in host else host, port
