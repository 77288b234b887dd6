"""A tiny model, and services of it inside the test's process: a pytest plugin of the test files in this folder."""

import threading
import time
from contextlib import ExitStack

import pytest
import uvicorn
from conftest import varied_model
from fastapi.testclient import TestClient
from service_helpers import CALIBRATION, URL, jpeg

from resight.config.sections import Embedding
from resight.gallery.open import create_gallery, open_gallery
from resight.inference.load import load
from resight.models.checkpoint import ModelCard
from resight.retrieval.calibration import Calibration
from resight.service.app import create_app
from resight.service.settings import ServiceSettings
from resight.service.work.core import Service


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder of three modalities, whose embeddings are averaged."""
    folder = varied_model(tmp_path_factory.mktemp("service") / "model", modalities=("rgb", "nir", "tir"))
    card = ModelCard.read(folder / "config.json", "a model", "")
    card = card.model_copy(update={"embedding": Embedding(fusion="mean", precision="fp32")})
    (folder / "config.json").write_text(card.model_dump_json())
    (folder / "calibration.json").write_text(Calibration(**CALIBRATION).model_dump_json())
    return folder


@pytest.fixture(scope="session")
def embedder(model):
    return load(model, "cpu", "fp32")


@pytest.fixture(scope="session")
def make_service(embedder, tmp_path_factory):
    """Makes a service with some settings over a new gallery; whoever runs its application closes it."""

    def make(**options):
        folder = tmp_path_factory.mktemp("gallery") / "g"
        create_gallery(folder, embedder).close()
        settings = ServiceSettings(gallery=str(folder), **{"decoders": 1, **options})
        return Service(settings, embedder, lambda: open_gallery(folder, embedder, settings.prior))

    return make


@pytest.fixture(scope="session")
def services(make_service):
    """Starts a service in this process, and returns a client of it; all end with the session."""
    with ExitStack() as stack:

        def start(**options):
            service = make_service(**options)
            client = TestClient(create_app(service), base_url=URL, raise_server_exceptions=False)
            stack.enter_context(client)
            client.service = service
            client.gallery_folder = service.settings.gallery
            return client

        yield start


@pytest.fixture(scope="module")
def listening(make_service):
    """Starts a service behind a real HTTP server in a thread, and returns its URL and the service."""
    servers = []

    def start(**options):
        service = make_service(**options)
        config = uvicorn.Config(create_app(service), port=0, log_config=None, ws="none", lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(services):
    """A client of one service for all tests of a file."""
    return services()


@pytest.fixture
def filled(client):
    """The client with six records of three identities, and no others."""
    ids = [record["id"] for record in client.get("/v1/records?limit=1000").json()["records"]]
    client.post("/v1/remove", json={"ids": ids})
    for n in range(6):
        form = {"id": f"r{n}", "identity": f"id{n % 3}", "camera": f"c{n % 2 + 1}", "time": str(100 - n)}
        form["metadata"] = '{"gate": "north"}' if n < 3 else '{"gate": "south", "floor": 2}'
        answer = client.post("/v1/records", data=form, files={"image": jpeg(n % 3, n)})
        assert answer.status_code == 201, answer.text
    return client
