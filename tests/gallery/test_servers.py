"""Galleries on servers: names, URLs without their passwords, and connections that end in the middle of a change."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from gallery_engines import INFO, assert_same, database_folder, naive_search, records, resight
from qdrant_client import QdrantClient

from resight.errors import ConfigError, GalleryError
from resight.gallery.engines.database import Database
from resight.gallery.engines.postgres import PostgresEngine
from resight.gallery.engines.qdrant import QdrantEngine
from resight.gallery.engines.qdrant_server import connect
from resight.gallery.maintenance import verify
from resight.gallery.record import Filter
from resight.gallery.url import create_engine, exists, open_engine, shown_url

pytest_plugins = ("gallery_fixtures",)

SECRET = "pearl"
OPERATIONS = {
    "add": lambda engine: engine.add(records(5, seed=9, first=100)),
    "replace": lambda engine: engine.add([replace(r, identity="eve") for r in records(3)]),
    "assign": lambda engine: engine.assign(["r1", "r2"], "fay"),
    "merge": lambda engine: engine.assign([], "ann", of="bob"),
    "undo": lambda engine: engine.undo(),
    "remove": lambda engine: engine.remove(["r3", "r8"], "zed"),
    "copy of the log": lambda engine: engine.add_assignments(engine.assignments() * 2),
}


class Interruption:
    """Ends an engine's connection after a number of its statements."""

    def __init__(self, engine, server, after, monkeypatch):
        self.statements = 0
        self._after = after
        self._end = partial(end_connection, server, engine)
        for name in ("rows", "copy"):
            monkeypatch.setattr(Database, name, self._counted(getattr(Database, name)))
        self._end_if_due()

    def _counted(self, method):
        def counted(database, *arguments):
            result = method(database, *arguments)
            self.statements += 1
            self._end_if_due()
            return result

        return counted

    def _end_if_due(self):
        if self.statements == self._after:
            self._end()


def end_connection(server, engine):
    """As an administrator does, or a server that stops."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [engine._database._connection.info.backend_pid])


def state_of(engine):
    stored = [(replace(r, vector=None), r.vector.tobytes()) for r in engine.scan()]
    return sorted(stored, key=lambda pair: pair[0].id), engine.assignments()


def filled(server):
    """The URL of a new gallery with 20 records, of which two were assigned."""
    url = f"{server}&gallery=g{uuid4().hex}"
    engine = PostgresEngine.create(url, INFO)
    engine.add(records(20))
    engine.assign(["r5", "r6"], "zed")
    engine.close()
    return url


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_connection_that_ends_leaves_the_state_before_or_after(postgresql, monkeypatch, name):
    """After each statement of the operation, on a gallery with an index."""
    operation = OPERATIONS[name]
    outcomes = []
    for after in range(40):
        url = filled(postgresql)
        engine = PostgresEngine(url, exact_under=0)
        before = state_of(engine)
        with monkeypatch.context() as patch:
            interruption = Interruption(engine, postgresql, after, patch)
            try:
                operation(engine)
                error = None
            except GalleryError as raised:
                error = str(raised)
        engine.close()
        engine = PostgresEngine(url, exact_under=0)
        left = state_of(engine)
        assert verify(engine) == []
        if left == before:
            assert error is not None  # what was acknowledged is stored
            operation(engine)  # and can be done now
            expected = [i for i, _ in naive_search(list(engine.scan()), records(9)[8].vector, 3, Filter())]
            assert [hit.id for hit in engine.search(records(9)[8].vector[None], 3)[0]] == expected
        outcomes.append(("before" if left == before else "after", error))
        complete = state_of(engine)
        engine.close()
        assert strip_times(left) in (strip_times(before), strip_times(complete))
        if interruption.statements < after:
            break
    states = [state for state, _ in outcomes]
    assert states == ["before"] * states.count("before") + ["after"] * states.count("after")
    assert states[0] == "before"
    assert outcomes[-1] == ("after", None)  # it was not interrupted


def strip_times(state):
    return state[0], [replace(entry, at="") for entry in state[1]]


def test_an_erasure_that_is_interrupted_is_named_and_completed_by_another_removal(postgresql, monkeypatch):
    engine = PostgresEngine.create(f"{postgresql}&gallery=g{uuid4().hex}", INFO)
    url = f"{postgresql}&gallery={engine._database.schema}"
    secret = [replace(r, identity="secret-name", id=f"secret-{r.id}") for r in records(3, seed=4)]
    engine.add([*records(20), *secret])
    transaction = Database.transaction

    @contextmanager
    def ended_after_it(database):
        with transaction(database):
            yield
        end_connection(postgresql, engine)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", ended_after_it)
        with pytest.raises(GalleryError, match=r"removed, but their erasure .* is pending .*: remove them again"):
            engine.remove([], "secret-name")
    engine.close()
    engine = PostgresEngine(url)
    assert engine.count() == 20
    assert engine.remove([], "secret-name") == 0
    engine._database.rows("CHECKPOINT")
    for path in database_folder(postgresql).rglob("*"):
        assert not path.is_file() or b"secret-name" not in path.read_bytes(), path
    engine.close()


NAMES = [
    "a b", 'quo"te', "quo'te", "100%", "%s", "%(query)s", "%%", "{s}", "a.b", "semi;colon", "Upper", "upper", "été",
    "a+b", "a&b=c", "x" * 63, "é" * 31, "tab\there", "back\\slash", "info", "select",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_of_any_name_works(postgresql, name):
    url = f"{postgresql}&gallery={quote(name, safe='')}"
    assert not exists(url)
    engine = PostgresEngine.create(url, INFO)
    engine.exact_under = 5  # so that an index is created too
    stored = records(20)
    engine.add(stored)
    engine.add(stored[:2])
    assert engine._database.schema == name
    engine.close()
    with psycopg.connect(postgresql) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        assert {row[0] for row in connection.execute(query, [name])} == {"records", "log", "info"}
    engine = PostgresEngine(url, exact_under=0)
    where = Filter(identity=("ann",), after=0.5, metadata={"floor": 2})
    assert engine.count(where) == sum(map(where.holds, stored))
    nearest = engine.search(stored[4].vector[None], 3)[0]
    assert [hit.id for hit in nearest] == [i for i, _ in naive_search(stored, stored[4].vector, 3, Filter())]
    assert engine.assign(["r1"], "100% %s") == 1
    assert engine.undo().identity == "100% %s"
    assert engine.remove(["r3"]) == 1
    assert_same(engine.get(["r2"]), [stored[2]])
    assert engine.fields() == {name for r in stored for name in r.metadata}
    engine.close()


def test_a_schema_name_that_postgresql_would_change_is_refused(postgresql):
    for name in ("", "x" * 64, "é" * 32, "a%00b", "%ff", "\udc80"):
        for action in (exists, open_engine, lambda url: create_engine(url, INFO)):
            with pytest.raises(GalleryError, match=r"cannot have the name .* 1 to 63 bytes of UTF-8, without NUL$"):
                action(f"{postgresql}&gallery={name}")
    with pytest.raises(GalleryError, match=r"PostgreSQL says: .*pg_"):  # the server's own
        create_engine(f"{postgresql}&gallery=pg_mine", INFO)


def test_other_parameters_of_the_url_reach_postgresql_unchanged(postgresql):
    database = Database(f"{postgresql}&options=-c%20application_name%3Da%2Bb+c&gallery=other")
    assert database.schema == "other"
    assert database.rows("SHOW application_name") == [("a+b+c",)]
    database.close()
    assert Database(postgresql).schema == "resight"


def test_a_collection_name_that_qdrant_would_not_take_is_refused():
    client = QdrantClient(":memory:")
    for name in ("a/b", "a%2Fb", "a?b", "a b", "a\\b", "a:b", "..", "x" * 241, "é" * 121, "a\0b", "a\nb", "\udc80"):
        for action in (lambda name: QdrantEngine.create(client, name, INFO), lambda name: QdrantEngine(client, name)):
            with pytest.raises(GalleryError, match=r"cannot have the name .* 1 to 240 bytes of UTF-8"):
                action(name)
        with pytest.raises(GalleryError, match=r"cannot have the name|is not of the form qdrant://HOST"):
            open_engine(f"qdrant://localhost:1/{name}")
    for url in ("qdrant://localhost:1/", "qdrant://localhost:1", "qdrant:localhost/x", "qdrant:///x", "qdrant://h:x/c"):
        with pytest.raises(GalleryError, match="is not of the form qdrant://HOST:PORT/COLLECTION"):
            open_engine(url)
    assert connect("qdrant+https://[::1]:7/été-1_2.x/")[1] == "été-1_2.x"


def test_no_collection_over_that_of_another_gallery():
    client = QdrantClient(":memory:")
    QdrantEngine.create(client, "people.info", INFO)
    with pytest.raises(GalleryError, match=r"has a collection 'people.info' already"):
        QdrantEngine.create(client, "people", INFO)
    assert not QdrantEngine.exists(client, "people")


def test_a_closed_gallery_on_a_server_refuses_work(postgresql):
    stored = PostgresEngine.create(f"{postgresql}&gallery=g{uuid4().hex}", INFO)
    for engine in (stored, QdrantEngine.create(QdrantClient(":memory:"), "seen", INFO)):
        engine.add(records(3))
        engine.close()
        for work in (
            lambda engine: engine.count(),
            lambda engine: engine.add(records(1)),
            lambda engine: engine.search(np.eye(1, INFO.width, dtype=np.float32), 1),
            lambda engine: engine.remove(["r1"]),
        ):
            with pytest.raises(GalleryError, match=r"says: .*closed"):
                work(engine)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://ann:{SECRET}@db:5432/people?gallery=hall", "postgresql://ann:***@db:5432/people?gallery=hall"),
        (f"postgresql://ann:{SECRET}:x@db/people", "postgresql://ann:***@db/people"),
        (f"postgresql://ann:a@{SECRET}/b@db/people", "postgresql://ann:***@db/people"),
        (f"postgresql://a/n:{SECRET}@db", "postgresql://a/n:***@db"),
        (f"postgresql://ann:{SECRET}?x#y@db", "postgresql://ann:***@db"),
        (f"postgres:ann:{SECRET}@db/people", "postgres:***@db/people"),
        (f"ann:{SECRET}@db/people", "ann:***@db/people"),
        (f"postgresql://db/people?password={SECRET}&gallery=g", "postgresql://db/people?password=***&gallery=g"),
        (f"postgresql://db?p%61ssword={SECRET}&sslPassword={SECRET}", "postgresql://db?p%61ssword=***&sslPassword=***"),
        (f"postgresql://db/people?oauth_client_secret={SECRET}", "postgresql://db/people?oauth_client_secret=***"),
        (f"qdrant://:{SECRET}@db:6333/people", "qdrant://:***@db:6333/people"),
        (f"qdrant+https://db/people?api_key={SECRET}", "qdrant+https://db/people?api_key=***"),
        (f"mongo://ann:{SECRET}@db", "mongo://ann:***@db"),
        ("postgresql://ann@db/people?host=/tmp/a", "postgresql://ann@db/people?host=/tmp/a"),
        ("exact:/home/ann:x@y", "exact:/home/ann:x@y"),
        ("/home/ann@y?password=x", "/home/ann@y?password=x"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}@localhost:1/people",
        f"postgresql://ann:{SECRET}@localhost:port/people",
        f"postgresql://ann:{SECRET}@localhost:1/people?gallery=",
        f"postgresql://ann:{SECRET}@localhost:1/people?unknown=x",
        f"postgresql://ann:{SECRET}%zz@localhost:1/people",
        f"postgresql://ann:{SECRET}%00@localhost:1/people",
        f"postgresql://ann:a/{SECRET}@localhost:1/people",
        f"postgresql://ann:a@{SECRET}@localhost:1/people",
        f"postgresql://ann:a#{SECRET}@localhost:1/people",
        f"postgresql://ann:{SECRET}@[::1/people",
        f"postgresql:ann:{SECRET}@localhost/people",
        f"postgresql://localhost:1/people?password={SECRET}",
        f"postgresql://localhost:1/people?password={SECRET}&port=x",
        f"postgresql://localhost:1/people?password=%zz{SECRET}",
        f"qdrant://ann:{SECRET}@localhost:1/people",
        f"qdrant://:{SECRET}@localhost:x/people",
        f"qdrant://:{SECRET}@localhost/",
        f"mysql://ann:{SECRET}@localhost/people",
        f"postgresq:{SECRET}@localhost",
    ],
)
def test_no_message_has_the_password(url, capsys):
    error = resight(capsys, "gallery", "stats", url, status=2)
    assert SECRET not in error
    for action in (open_engine, exists, lambda url: create_engine(url, INFO)):
        with pytest.raises((GalleryError, ConfigError)) as raised:
            action(url)
        assert SECRET not in str(raised.value)
