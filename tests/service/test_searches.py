"""Searches of many requests as one: the same answers, and an error only where it belongs."""

import threading

import numpy as np
import pytest

from resight.errors import GalleryError
from resight.gallery.answers import SearchOptions
from resight.gallery.engines.contract import EVERYTHING
from resight.service.errors import ServiceError
from resight.service.work.gallery_threads import GalleryThread
from resight.service.work.searches import Searches


class Records:
    """Stands for a gallery: answers a query with its numbers, and can be held up."""

    def __init__(self):
        self.calls = []
        self.open = threading.Event()

    def search(self, vectors, k, where, group, rerank, modality, exclude):
        assert modality == [f"of {int(value)}" for value in vectors[:, 0]]
        self.calls.append((len(vectors), k, exclude))
        if (vectors < 0).any():
            raise GalleryError("negative")
        return [[(k, *row)] for row in vectors.tolist()]

    def close(self):
        pass


@pytest.fixture
def records():
    return Records()


@pytest.fixture
def searches(records):
    """Searches of a thread that is busy until `records.open` is set."""
    thread = GalleryThread(records)
    thread.submit(lambda gallery: gallery.open.wait(5))
    yield Searches(thread)
    records.open.set()
    thread.close()


def submit(searches, values, options):
    """Search with the queries [[value], ...], each of a modality of its own."""
    vectors = np.array([[value] for value in values], np.float32)
    return searches.submit(vectors, options, [f"of {value}" for value in values])


def test_searches_with_the_same_options_are_one_and_others_are_not(records, searches):
    options = SearchOptions(3, EVERYTHING)
    futures = [submit(searches, [n, n + 10], options) for n in range(3)]
    other = submit(searches, [7], SearchOptions(4, EVERYTHING, exclude=frozenset(["a"])))
    records.open.set()
    assert [future.result(5) for future in futures] == [[[(3, n)], [(3, n + 10)]] for n in range(3)]
    assert other.result(5) == [[(4, 7)]]
    assert records.calls == [(6, 3, ()), (1, 4, ("a",))]


def test_an_error_fails_only_its_own_search(records, searches):
    options = SearchOptions(3, EVERYTHING)
    good, bad, other = (submit(searches, [n], options) for n in (1, -1, 2))
    records.open.set()
    assert good.result(5) == [[(3, 1)]]
    assert other.result(5) == [[(3, 2)]]
    with pytest.raises(GalleryError, match="negative"):
        bad.result(5)


def test_no_search_has_very_many_queries_and_a_cancelled_one_is_left_out(records, searches):
    options = SearchOptions(1, EVERYTHING)
    cancelled = submit(searches, [0], options)
    futures = [submit(searches, range(30), options) for _ in range(5)]
    large = submit(searches, range(100), options)
    assert cancelled.cancel()
    records.open.set()
    assert [len(future.result(5)) for future in futures] == [30] * 5
    assert len(large.result(5)) == 100
    assert [count for count, _, _ in records.calls] == [60, 60, 30, 100]


def test_too_many_searches_are_refused(records, searches):
    options = SearchOptions(1, EVERYTHING)
    futures = [submit(searches, [n], options) for n in range(512)]
    with pytest.raises(ServiceError, match="wait for the gallery") as refused:
        submit(searches, [1], options)
    assert refused.value.status == 503
    records.open.set()
    assert [future.result(5)[0][0][1] for future in futures] == list(range(512))
    assert submit(searches, [5], options).result(5) == [[(1, 5)]]
