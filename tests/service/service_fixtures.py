"""A tiny model, and services of it inside the test's process: a pytest plugin of the test files in this folder."""

from contextlib import ExitStack

import pytest
from conftest import varied_model
from fastapi.testclient import TestClient
from service_helpers import CALIBRATION, URL, jpeg

from resight.gallery.open import create_gallery, open_gallery
from resight.inference.load import load
from resight.retrieval.calibration import Calibration
from resight.service.app import create_app
from resight.service.core import Service
from resight.service.settings import ServiceSettings


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder of three modalities, whose embeddings are averaged."""
    from resight.config.sections import Embedding
    from resight.models.checkpoint import CALIBRATION as FILE
    from resight.models.checkpoint import CARD, ModelCard

    folder = varied_model(tmp_path_factory.mktemp("service") / "model", modalities=("rgb", "nir", "tir"))
    card = ModelCard.read(folder / CARD, "a model", "")
    card = card.model_copy(update={"embedding": Embedding(fusion="mean", precision="fp32")})
    (folder / CARD).write_text(card.model_dump_json())
    (folder / FILE).write_text(Calibration(**CALIBRATION).model_dump_json())
    return folder


@pytest.fixture(scope="session")
def embedder(model):
    return load(model, "cpu", "fp32")


@pytest.fixture(scope="session")
def services(embedder, tmp_path_factory):
    """Starts a service with some settings over a new gallery, and returns a client; all end with the session."""
    with ExitStack() as stack:

        def start(**options):
            folder = tmp_path_factory.mktemp("gallery")
            create_gallery(folder / "g", embedder).close()
            settings = ServiceSettings(gallery=str(folder / "g"), **{"decoders": 1, **options})
            service = Service(settings, embedder, lambda: open_gallery(folder / "g", embedder, settings.prior))
            client = TestClient(create_app(service), base_url=URL, raise_server_exceptions=False)
            stack.enter_context(client)
            client.service = service
            client.gallery_folder = folder / "g"
            return client

        yield start


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
